"""``reca run FLOW``: settings from recipe, file and --set, then the plan, the hash, or the flow itself."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from deployments import recipes
from deployments.catalogue import FLOWS
from deployments.context import Context
from deployments.environment import enter
from deployments.outcome import sections, show
from deployments.presence import absent
from deployments.settings import BadSettings, read
from deployments.start import run_flow
from reca_core.contracts.base import Config
from reca_core.contracts.errors import EXIT_DONE, BadInput
from reca_core.contracts.home import Home
from reca_core.contracts.requests import EvaluationPlan
from tasks import validate

if TYPE_CHECKING:
    from deployments.foresight import Asked, Step
    from tasks.trainings import Trainings

ESTIMATED = ("post-train", "train-then-evaluate", "sweep", "study")
"""Flows that train, whose needs a look ahead estimates."""
MEASURING = ESTIMATED[1:]
"""Those of them that draw pictures."""


def run(options: Namespace, context: Context) -> int:
    """Start a flow, or show what it would do."""
    recipe = recipes.find(options.recipe) if options.recipe else {}
    flow = options.flow or _flow_of(options.recipe)
    parameters = read_parameters(flow, recipe, options, context)
    if options.dry_run or options.print_hash:
        return look_ahead(flow, options.recipe or "", options, parameters, context)
    return execute(flow, parameters, context)


def _flow_of(recipe: str | None) -> str:
    """The flow of a recipe where none is named. Raises BadInput where neither is."""
    if recipe:
        return recipes.flow_of(recipe)
    raise BadInput(
        "no flow is named", field="FLOW", choices=tuple(FLOWS), remedy="name one, or a recipe: --recipe NAME"
    )


def look_ahead(flow: str, recipe: str, options: Namespace, parameters: Mapping[str, Config], context: Context) -> int:
    """The plan, the hashes, or both, and start nothing."""
    enter(context.surroundings)
    from deployments.asked import Asked
    from deployments.foresight import Foresight
    from tasks.progress import listening

    foresight = Foresight(context.surroundings.home, flow, Asked(**parameters))  # type: ignore[arg-type]
    answer: dict[str, Any] = {"flow": flow}
    if options.dry_run:
        steps = foresight.steps()
        answer["plan"] = [step.as_dict() for step in steps]
        answer["recipe"] = recipes.card(recipe) if recipe else ""
        context.terminal.show(plan_table(steps, context.surroundings.home))
        if recipe:
            context.terminal.line(f"recipe {recipe}: {answer['recipe']}")
        answer["estimate"] = estimate(flow, steps, foresight.asked, context)
    if options.print_hash:
        with listening(context.terminal):
            hashes = foresight.hashes()
        answer["hashes"] = hashes
        for name, value in hashes.items():
            context.terminal.line(value if len(hashes) == 1 else f"{value}  {name}")
    context.terminal.answer(answer)
    return EXIT_DONE


def estimate(flow: str, steps: Sequence[Step], asked: Asked, context: Context) -> dict[str, Any] | None:
    """What the trainings that are still to be done need, shown; None where there are none, or where it is switched off.

    Raises PrerequisiteMissing where it does not fit this machine.
    """
    from deployments.foresight import REUSED
    from tasks import preflight

    trained = any(step.stage == "train" and step.state == REUSED for step in steps)
    if flow not in ESTIMATED or trained or asked.training.preflight == "off":
        return None
    found = preflight.foresee(
        context.surroundings.home,
        asked.images,
        asked.model,
        _trainings(flow, asked),
        asked.evaluation if flow in MEASURING else None,
        every=asked.training.preflight == "always",
    )
    for line in preflight.lines(found):
        context.terminal.line(line)
    preflight.refuse(found)
    return found.model_dump(mode="json")


def _trainings(flow: str, asked: Asked) -> Trainings:
    """Those of the flow."""
    from tasks.trainings import Trainings

    if flow == "sweep":
        return Trainings.of_sweep(asked.sweep, asked.losses, asked.captions, asked.training)
    if flow == "study":
        return Trainings.of_study(asked.study, asked.losses, asked.captions, asked.training)
    return Trainings.chain(asked.losses, asked.captions, asked.training, asked.fine_tuning)


def plan_table(steps: Sequence[Step], home: Home) -> Table:
    """The plan for people; folders as seen from the home."""
    table = Table(title="plan; nothing was started", title_justify="left", title_style="bold")
    for heading in ("stage", "work", "state", "where"):
        table.add_column(heading, overflow="fold")
    for step in steps:
        where = step.directory.removeprefix(f"{home.root}{os.sep}")
        table.add_row(*(Text(cell) for cell in (step.stage, step.work, step.state, where)))
    return table


def read_parameters(flow: str, recipe: recipes.Settings, options: Namespace, context: Context) -> dict[str, Config]:
    """The flow's parameters. Raises BadSettings with every fault of a field, of fields together, of absent files."""
    file = context.path(options.config) if options.config else None
    reading = read(FLOWS[flow].parameters, recipe, file, options.sets)
    parameters = {name: anchored(config, context) for name, config in reading.parameters.items()}
    faults = [*reading.faults, *validate.faults(*parameters.values()), *absent(parameters)]
    if faults:
        raise BadSettings(faults)
    return parameters


def execute(flow: str, parameters: Mapping[str, Config], context: Context) -> int:
    """Run a flow and show how it ended."""
    ended = run_flow(FLOWS[flow], parameters, context)
    outcome = ended.outcome
    evaluation = parameters.get("evaluation", EvaluationPlan())
    show(ended, context.surroundings.home, context.terminal, evaluation.model_dump()["arithmetic"])
    document = outcome.model_dump(mode="json", exclude={"exit_status"})
    document["startup_seconds"] = round(ended.startup_seconds, 2)
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
