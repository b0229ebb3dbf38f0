"""``reca run FLOW``: settings from recipe, file and --set, then the plan, the hash, or the flow itself."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping

from rich.table import Table

from deployments import recipes
from deployments.catalogue import FLOWS, FlowEntry
from deployments.context import Context
from deployments.outcome import sections, show
from deployments.settings import BadSettings, read
from deployments.start import run_flow
from reca_core.contracts.base import Config
from reca_core.contracts.errors import EXIT_DONE
from tasks import validate


def run(options: Namespace, context: Context) -> int:
    """Start a flow, or show what it would do."""
    entry = FLOWS[options.flow]
    if options.settings:
        context.terminal.show(settings_table(entry))
        return EXIT_DONE
    parameters = read_parameters(entry, options, context)
    return execute(options.flow, parameters, context)


def read_parameters(entry: FlowEntry, options: Namespace, context: Context) -> dict[str, Config]:
    """The flow's parameters. Raises BadSettings with every fault of a field and of fields together."""
    recipe = recipes.find(options.recipe) if options.recipe else {}
    file = context.path(options.config) if options.config else None
    reading = read(entry.parameters, recipe, file, options.sets)
    parameters = {name: anchored(config, context) for name, config in reading.parameters.items()}
    faults = [*reading.faults, *validate.faults(*parameters.values())]
    if faults:
        raise BadSettings(faults)
    return parameters


def execute(flow: str, parameters: Mapping[str, Config], context: Context) -> int:
    """Run a flow and show how it ended."""
    began = time.monotonic()
    outcome = run_flow(FLOWS[flow], parameters, context)
    startup = time.monotonic() - began - sum(outcome.seconds.values())
    show(outcome, context.surroundings.home, context.terminal, startup)
    document = outcome.model_dump(mode="json", exclude={"exit_status"})
    document["comparison"] = {
        found.benchmark: {row.name: [row.base, row.trained, row.difference, row.interval] for row in found.rows}
        for found, _ in sections(outcome)
    }
    context.terminal.answer(document, outcome.exit_status)
    return outcome.exit_status


def anchored(config: Config, context: Context) -> Config:
    """Relative files in a setting mean the person's directory; nobody below knows it."""
    source = getattr(config, "source", None)
    return config.model_copy(update={"source": context.source(source)}) if isinstance(source, str) else config


def settings_table(entry: FlowEntry) -> Table:
    """Every setting of a flow: key, default, meaning."""
    table = Table(show_edge=False)
    for heading in ("setting", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    for name, owner in entry.parameters.items():
        for field_name, field in owner.model_fields.items():
            table.add_row(f"{name}.{field_name}", repr(field.default), f"{field.title}. {field.description or ''}")
    return table
