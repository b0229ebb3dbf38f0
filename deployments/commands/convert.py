"""``reca convert``: a checkpoint between this project's layout and the one that its family's authors publish.

The report says which tensors are missing, unexpected or of another shape; where one is, nothing is written and the
status is 2. The work is done in a child process: nothing here imports torch.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path

from deployments.context import Context
from deployments.environment import enter
from deployments.terminal import Terminal
from reca_core.contracts.conversion import ConversionFault, ConversionReport, ConvertRequest
from reca_core.contracts.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_PREREQUISITE,
    EXIT_STAGE_FAILED,
    BadInput,
    PrerequisiteMissing,
    RecaError,
    StageFailed,
)
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.registry import BUNDLED_MODELS, FAMILIES
from reca_core.contracts.requests import ModelChoice

SHOWN = 12
"""Names of each kind that a person is shown; with --json all of them are there."""
REGISTERED = "models:/"
HUB_PARTS = 2
"""OWNER/NAME; what follows names one of a repository's several models."""
FAULTS: dict[int, type[RecaError]] = {EXIT_BAD_INPUT: BadInput, EXIT_PREREQUISITE: PrerequisiteMissing}
"""Exit status of the child -> what it raised; any other is a failed stage."""


def convert(options: Namespace, context: Context) -> int:
    """Convert, print the report, and say where the result is."""
    if options.family not in FAMILIES:
        raise BadInput(f"no family is called {options.family!r}", field="--family", choices=tuple(FAMILIES))
    source = place_of(options.source, options.family, context, "--from")
    base = place_of(options.base, options.family, context, "--base") if options.base else ""
    target = str(context.path(options.destination))
    with tempfile.TemporaryDirectory(prefix="reca-convert-") as scratch:
        request = ConvertRequest(
            family=options.family,
            source=source,
            target=target,
            layout=options.layout,
            base=base,
            weights=options.weights or "auto",
            report=str(Path(scratch) / "report.json"),
        )
        report = run(request, Path(scratch))
    exit_code = EXIT_BAD_INPUT if not report.clean() else EXIT_STAGE_FAILED if report.refusal else EXIT_DONE
    show(report, context.terminal, target)
    context.terminal.answer({**report.model_dump(), "output": target if report.written else ""}, exit_code)
    return exit_code


def place_of(typed: str, family: str, context: Context, field: str) -> str:
    """The absolute path behind a path, a bundled name, a registered version or a hub id."""
    path = context.path(typed)
    if path.exists():
        return str(path)
    is_path = Path(typed).is_absolute() or context.source(typed) != typed
    if is_path and typed not in BUNDLED_MODELS and not typed.startswith(REGISTERED):
        raise BadInput("there is no such file or directory", field=f"{field} {typed}", remedy=f"check {path}")
    from tasks.models import resolve_model

    enter(context.surroundings)
    parts = typed.split("/")
    one_of_several = len(parts) > HUB_PARTS and not typed.startswith(REGISTERED)
    source, weights = ("/".join(parts[:HUB_PARTS]), "/".join(parts[HUB_PARTS:])) if one_of_several else (typed, "")
    return resolve_model(ModelChoice(source=source, weights=weights, family=family)).path


def run(request: ConvertRequest, scratch: Path) -> ConversionReport:
    """The child, to its end. Raises what it ended with."""
    from tasks.processes import module_command, run_child

    path = scratch / "request.json"
    atomic_write_text(path, request.model_dump_json())
    command = module_command("reca_core.launch", "convert", str(path))
    written = Path(request.report)
    try:
        run_child(command, scratch / "log.txt", lambda text: None, lambda progress: None)
    except RecaError as error:
        if not written.exists():
            raise  # it was killed, or the fault is ours: its last lines are in the message
        fault = ConversionFault.model_validate_json(written.read_bytes())
        kind = FAULTS.get(fault.exit_code, StageFailed)
        raise kind(fault.fact, field=fault.field, choices=fault.choices, remedy=fault.remedy) from error
    return ConversionReport.model_validate_json(written.read_bytes())


def show(report: ConversionReport, terminal: Terminal, target: str) -> None:
    """For people: what does not fit, what was chosen, and the place."""
    for note in report.notes:
        terminal.note(note)
    for title, names in (
        ("missing", report.missing),
        ("unexpected", report.unexpected),
        ("of another shape", report.details),
        ("equal to the base", report.unchanged),
    ):
        if names:
            terminal.line(f"{title}: {len(names)}")
            for name in names[:SHOWN]:
                terminal.line(f"  {name}")
            if len(names) > SHOWN:
                terminal.line(f"  and {len(names) - SHOWN} more")
    if report.written:
        terminal.line(f"{report.n_tensors} tensors: {target}")
    else:
        terminal.note(f"nothing was written: {report.refusal or 'the tensors do not fit'}")
