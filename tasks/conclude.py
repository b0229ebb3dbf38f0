"""``report``: the page that shows what was done, and the same table as an artifact of the Prefect flow run."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from pathlib import Path

from reca_core.contracts.hashing import HASH_LENGTH, sha256_text
from reca_core.contracts.requests import EvaluationPlan
from tasks import tracking
from tasks.artifacts import show_page
from tasks.home import current_home
from tasks.outcome import seconds_of, stages_of
from tasks.policies import verb
from tasks.progress import note
from tasks.report import write_report
from tasks.report_inputs import BenchmarkPair, Links, Measured, ReportInputs
from tasks.report_page import TableRow
from tasks.report_scores import Scores, section
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
    said = markdown(pairs) + links_in_markdown(run, pairs, path)
    tracking.describe(run.tracked, said)
    tracking.rename(run.tracked, f"{registered.model.name} against {trained.base.name}")
    show_page(said, ARTIFACT_KEY, "Which model is better, and by how much")
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
    base_name = pairs[0].base.model.name if pairs else trained.base.name  # a fine-tuned start is not what is compared
    name = sha256_text(" ".join([trained.request_hash, *(_pair_name(pair) for pair in pairs)]))[:HASH_LENGTH]
    return ReportInputs(
        title=f"{registered.model.name} against {base_name}",
        base_name=base_name,
        trained_name=registered.model.name,
        version=registered.model.name,
        benchmarks=tuple(_pair(pair) for pair in pairs),
        training_directory=Path(trained.directory),
        pictures=prepared.data.pictures,
        quarantined=prepared.data.quarantined,
        data_directory=Path(prepared.data.directory),
        output=current_home().reports / name / REPORT_FILE,
        preview_prompts=evaluation.preview_prompts,
        links=Links(
            prefect=run.prefect_url,
            mlflow=run.tracked.url,
            mlflow_store=run.tracked.store,
            views={name: url for pair in pairs for name, url in pair.views.items()},
            rerun=tracking.rerun_command(run.tracked),
        ),
        seconds=seconds_of(results),
        reused=tuple(result.stage for result in results if result.reused),
    )


def _pair_name(pair: Compared) -> str:
    return f"{pair.base.request_hash} {pair.trained.request_hash} {pair.base.table.arithmetic}"


def _pair(pair: Compared) -> BenchmarkPair:
    return BenchmarkPair(pair.benchmark, _measured(pair.base), _measured(pair.trained), pair.comparison, pair.refusal)


def _measured(judged: Judged) -> Measured:
    return Measured(judged.model.name, judged.table, Path(judged.sampled.directory), Path(judged.directory))


def markdown(pairs: Sequence[Compared]) -> str:
    """The comparison as a table; every text is escaped, since model names and refusals come from outside."""
    return "\n\n".join(_section(pair) for pair in pairs) + "\n"


def _section(pair: Compared) -> str:
    shown = section(Scores(pair.benchmark, pair.base.table, pair.trained.table, pair.comparison, pair.refusal))
    said = f"**{cell(shown.verdict.headline)}** {cell(shown.verdict.detail)}"
    lines = [f"## {cell(pair.benchmark)}", "", said, ""]
    names = [cell(model.name) for model in (pair.base.model, pair.trained.model)]
    lines += [f"| | {names[0]} | {names[1]} | difference | 95% interval | judged |", "|---|---:|---:|---:|---:|---:|"]
    lines += [_line(row) for row in shown.rows]
    return "\n".join([*lines, "", cell(shown.caption)])


def _line(row: TableRow) -> str:
    cells = [row.name, row.base, row.trained, row.difference, row.interval, row.coverage]
    return "| " + " | ".join(cell(text) for text in cells) + " |"


def links_in_markdown(run: RunContext, pairs: Sequence[Compared], report: Path) -> str:
    """Where to look further; addresses are ours alone."""
    named = {"this run in MLflow": run.tracked.url, **_served_views(run, pairs)}
    links = [f"- [{cell(name)}]({url})" for name, url in named.items() if url]
    return "\n".join(["", *links, f"- report: `{report}`"]) + "\n"


def _served_views(run: RunContext, pairs: Sequence[Compared]) -> dict[str, str]:
    """Views of MLflow that a server shows now."""
    return {name: url for pair in pairs for name, url in pair.views.items()} if run.tracked.url else {}


def cell(text: str) -> str:
    """Text inside a markdown table: no markup of any kind survives."""
    plain = "".join(f"\\{letter}" if letter in MARKDOWN else letter for letter in " ".join(text.split()))
    return html.escape(plain, quote=False)
