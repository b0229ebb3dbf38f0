"""``compare``: two models on the same prompts, seeds and judge, with paired intervals, or the reason why not."""

from __future__ import annotations

import time
from pathlib import Path

from evaluation.compare import ComparisonRefused, compare_directories
from evaluation.records import Comparison
from reca_core.contracts.files import write_json
from reca_core.contracts.hashing import HASH_LENGTH, sha256_text
from reca_core.contracts.requests import EvaluationPlan
from tasks import tracking, tracking_views
from tasks.evidence import grid_keys
from tasks.home import current_home
from tasks.policies import verb
from tasks.progress import note
from tasks.report_scores import NONE, decimals, difference_in_words, headline_row, number, tone
from tasks.results import Compared, Judged
from tasks.run import RunContext

COMPARISON_FILE = "comparison.json"


@verb("compare", "compare {trained.model.name} with {base.model.name} on {base.benchmark}")
def compare(run: RunContext, base: Judged, trained: Judged, evaluation: EvaluationPlan) -> Compared:
    """The differences with their intervals. A refusal is a result too: it is reported, and the exit status is 5."""
    began = time.monotonic()
    comparison, refusal = None, ""
    try:
        comparison = compare_directories(
            Path(base.directory), Path(trained.directory), evaluation.arithmetic, evaluation.resamples
        )
    except ComparisonRefused as error:
        refusal = error.fact
        note(f"compare: refused: {refusal}")
    path = _write(base, trained, comparison) if comparison else ""
    views = {}
    if comparison:
        tracking.log_metrics(run.tracked, metrics(comparison))
        tracking.log_file(run.tracked, Path(path))
        views = _show(run, base, trained, comparison, evaluation)
    return Compared(
        stage=f"compare {base.benchmark}",
        seconds=time.monotonic() - began,
        benchmark=base.benchmark,
        base=base,
        trained=trained,
        comparison=comparison,
        refusal=refusal,
        path=path,
        views=views,
    )


def _show(
    run: RunContext, base: Judged, trained: Judged, comparison: Comparison, evaluation: EvaluationPlan
) -> dict[str, str]:
    """Say in MLflow which is better and by how much; returns what can be opened, by name."""
    benchmark = comparison.benchmark
    headline = headline_row(comparison)
    row = comparison.rows[headline]
    digits = decimals([row.base, row.trained])
    words = f"{tone(row)}: {difference_in_words(row)}, {number(row.base, digits)} → {number(row.trained, digits)}"
    tracking.log_tags(run.tracked, {benchmark: words})
    _tag(base, "base", NONE)
    _tag(trained, tone(row), difference_in_words(row))
    rows = [headline, *(name for name in comparison.rows if name != headline)]
    title = f"{trained.model.name} against {base.model.name}, {benchmark}"
    pictures = grid_keys(base, evaluation.preview_prompts)
    tracking_views.save_comparison_views(run.tracked, title, benchmark, rows, pictures)
    links = tracking_views.comparison_links(run.tracked, benchmark)
    return {f"{benchmark} {name}": getattr(links, name) for name in ("table", "charts", "pictures")} | {
        "all comparisons": links.everything
    }


def _tag(judged: Judged, verdict: str, difference: str) -> None:
    tags = {tracking_views.VERDICT_TAG: verdict, tracking_views.DIFFERENCE_TAG: difference}
    tracking.log_tags_of(judged.mlflow_run_id, tags)


def _write(base: Judged, trained: Judged, comparison: Comparison) -> str:
    pair = sha256_text(f"{base.request_hash} {trained.request_hash} {comparison.arithmetic}")[:HASH_LENGTH]
    path = current_home().scores(pair).path / COMPARISON_FILE
    write_json(path, comparison.model_dump(mode="json"))
    return str(path)


def metrics(comparison: Comparison) -> dict[str, float]:
    """The parent run's columns: which is better, by how much, and how sure that is."""
    found: dict[str, float] = {}
    for name, row in comparison.rows.items():
        ends = {
            "base": row.base,
            "trained": row.trained,
            "delta": row.delta,
            "delta_low": row.low,
            "delta_high": row.high,
        }
        key = f"{comparison.benchmark}/{name}"
        found |= {f"{key}/{end}": value for end, value in ends.items() if value is not None}
    return found
