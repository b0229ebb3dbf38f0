"""``report``: the page that shows what was done, and the same table as an artifact of the Prefect flow run."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from evaluation.records import DeltaRow
from reca_core.contracts.hashing import HASH_LENGTH, sha256_text
from reca_core.contracts.requests import EvaluationPlan
from tasks import tracking
from tasks.home import current_home
from tasks.outcome import seconds_of, stages_of
from tasks.policies import verb
from tasks.progress import SERVER_TROUBLE, note, run_logger
from tasks.report import write_report
from tasks.report_inputs import BenchmarkPair, Links, Measured, ReportInputs
from tasks.results import Compared, Judged, Prepared, Registered, Reported, Trained
from tasks.run import RunContext

REPORT_FILE = "report.html"
ARTIFACT_KEY = "comparison"
MARKDOWN = "\\`*_{}[]()#+!|~"
"""Letters that mean something in a table cell."""


@verb("report")
def report(
    run: RunContext,
    prepared: Prepared,
    trained: Trained,
    registered: Registered,
    pairs: Sequence[Compared],
    evaluation: EvaluationPlan,
) -> Reported:
    """Write the report, keep it with the run, and say where it is."""
    began = time.monotonic()
    path = write_report(report_inputs(run, prepared, trained, registered, pairs, evaluation))
    tracking.log_file(run.tracked, path)
    _show_in_prefect(pairs)
    note(f"report: {path}")
    return Reported(stage="report", seconds=time.monotonic() - began, path=str(path))


def report_inputs(
    run: RunContext,
    prepared: Prepared,
    trained: Trained,
    registered: Registered,
    pairs: Sequence[Compared],
    evaluation: EvaluationPlan,
) -> ReportInputs:
    """What the page is made from."""
    results = stages_of([prepared, trained, registered, *pairs])
    name = sha256_text(" ".join([trained.request_hash, *(_pair_name(pair) for pair in pairs)]))[:HASH_LENGTH]
    return ReportInputs(
        title=f"{registered.model.name} against {trained.base.name}",
        base_name=trained.base.name,
        trained_name=registered.model.name,
        version=registered.model.name,
        benchmarks=tuple(_pair(pair) for pair in pairs),
        training_directory=Path(trained.directory),
        pictures=prepared.data.pictures,
        quarantined=prepared.data.quarantined,
        data_directory=Path(prepared.data.directory),
        output=current_home().reports / name / REPORT_FILE,
        preview_prompts=evaluation.preview_prompts,
        links=Links(prefect=run.prefect_url, mlflow=run.tracked.url, mlflow_store=run.tracked.store),
        seconds=seconds_of(results),
        reused=tuple(result.stage for result in results if result.reused),
    )


def _pair_name(pair: Compared) -> str:
    return f"{pair.base.request_hash} {pair.trained.request_hash} {pair.base.table.arithmetic}"


def _pair(pair: Compared) -> BenchmarkPair:
    return BenchmarkPair(pair.benchmark, _measured(pair.base), _measured(pair.trained), pair.comparison, pair.refusal)


def _measured(judged: Judged) -> Measured:
    return Measured(judged.model.name, judged.table, Path(judged.sampled.directory), Path(judged.directory))


def _show_in_prefect(pairs: Sequence[Compared]) -> None:
    if FlowRunContext.get() is None:
        return
    try:
        create_markdown_artifact(markdown(pairs), key=ARTIFACT_KEY, description="Base and trained model")
    except SERVER_TROUBLE as error:
        run_logger().warning("the comparison could not be stored in Prefect: %s", error)


def markdown(pairs: Sequence[Compared]) -> str:
    """The comparison as a table; every text is escaped, since model names and refusals come from outside."""
    return "\n\n".join(_section(pair) for pair in pairs) + "\n"


def _section(pair: Compared) -> str:
    lines = [f"## {cell(pair.benchmark)}"]
    if pair.comparison is None:
        return "\n\n".join([*lines, f"Not compared: {cell(pair.refusal)}"])
    base, trained = cell(pair.base.model.name), cell(pair.trained.model.name)
    lines += [f"| | {base} | {trained} | difference | 95% interval | prompts |", "|---|---:|---:|---:|---:|---:|"]
    lines += [_line(name, row) for name, row in pair.comparison.rows.items()]
    return "\n".join([lines[0], "", *lines[1:]])


def _line(name: str, row: DeltaRow) -> str:
    interval = f"{_number(row.low)} to {_number(row.high)}"
    cells = [cell(name), _number(row.base), _number(row.trained), _number(row.delta), interval, str(row.n)]
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "unscored" if value is None else f"{value:.3f}"


def cell(text: str) -> str:
    """Text inside a markdown table: no markup of any kind survives."""
    plain = "".join(f"\\{letter}" if letter in MARKDOWN else letter for letter in " ".join(text.split()))
    return html.escape(plain)
