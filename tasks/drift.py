"""``drift``: does a version measure as it did last time? A judge that changed under its name is found so.

Both judgings are of the same model, prompts and seeds, so the difference is paired by prompt, with a 95% interval. A
row whose interval does not hold 0 has drifted. A pair of judgings is told of once: then ``scores/<pair>/drift.json`` is
written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation.compare import ComparisonRefused, changed_verdicts, compare_over_time, read_measurement
from evaluation.records import Comparison, JudgeIdentity
from reca_core.contracts.files import write_json
from reca_core.contracts.hashing import HASH_LENGTH, sha256_text
from reca_core.contracts.requests import EvaluationPlan
from tasks import events, tracking
from tasks.artifacts import show_page
from tasks.conclude import cell
from tasks.history import before
from tasks.home import current_home
from tasks.policies import verb
from tasks.progress import note
from tasks.results import DriftChecked, FoundVersions, Judged
from tasks.run import RunContext

DRIFT_FILE = "drift.json"
ARTIFACT_KEY = "drift"


@dataclass(frozen=True)
class Difference:
    """Two judgings, side by side."""

    comparison: Comparison
    changed: int
    judge_changes: list[str]


@verb("drift", "drift of {judged.model.name} on {judged.benchmark}")
def drift(run: RunContext, found: FoundVersions, judged: Judged, evaluation: EvaluationPlan) -> DriftChecked:
    """This judging against the last one. The first judging of a model, and one that cannot be compared, say so."""
    began = time.monotonic()
    stage = f"drift {judged.benchmark}, {judged.model.name}"
    last = before(current_home(), judged)
    if last is None:
        note(f"{stage}: nothing to compare with, this is the first judging")
        return _result(stage, began, judged)
    try:
        difference = differ(last, Path(judged.directory), evaluation)
    except ComparisonRefused as error:
        note(f"{stage}: refused: {error.fact}")
        return _result(stage, began, judged, before=str(last), refusal=error.fact)
    path = _path(last, judged, evaluation)
    checked = _result(
        stage,
        began,
        judged,
        before=str(last),
        comparison=difference.comparison,
        changed=difference.changed,
        judge_changes=difference.judge_changes,
        moved=moved(difference.comparison),
        path=str(path),
    )
    tracking.log_metrics(run.tracked, metrics(difference.comparison))
    note(f"{stage}: {sentence(checked)}")
    if not path.exists():
        _report(run, found, checked)
        write_json(path, checked.model_dump(mode="json"))
    return checked


def _result(stage: str, began: float, judged: Judged, **facts: object) -> DriftChecked:
    given = {"benchmark": judged.benchmark, "model": judged.model, "now": judged.directory, **facts}
    return DriftChecked(stage=stage, seconds=time.monotonic() - began, **given)  # type: ignore[arg-type]


def differ(last: Path, now: Path, evaluation: EvaluationPlan) -> Difference:
    """What changed between two judgings. Raises ComparisonRefused where not the same pictures have a score."""
    first, second = (read_measurement(side, evaluation.arithmetic) for side in (last, now))
    return Difference(
        compare_over_time(first, second, evaluation.resamples),
        changed_verdicts(first, second),
        list(judge_changes(first.table.judge, second.table.judge)),
    )


def judge_changes(first: JudgeIdentity, second: JudgeIdentity) -> Iterator[str]:
    """What two judges of one name say of themselves and that is not the same."""
    old, new = ({**judge.model_dump(exclude={"settings"}), **judge.settings} for judge in (first, second))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, "") != new.get(name, ""):
            yield f"{name}: {old.get(name, '') or 'none'} then, {new.get(name, '') or 'none'} now"


def moved(comparison: Comparison) -> list[str]:
    """The rows that drifted: the interval of the difference does not hold 0."""
    rows = comparison.rows.items()
    return [name for name, row in rows if row.low is not None and row.high is not None and not row.low <= 0 <= row.high]


def metrics(comparison: Comparison) -> dict[str, float]:
    """The run's columns: how far each row moved since last time."""
    found: dict[str, float] = {}
    for name, row in comparison.rows.items():
        ends = {"": row.delta, "/low": row.low, "/high": row.high}
        key = f"drift/{comparison.benchmark}/{name}"
        found |= {f"{key}{end}": value for end, value in ends.items() if value is not None}
    return found


def sentence(checked: DriftChecked) -> str:
    """What a person wants to hear first."""
    if checked.comparison is None:
        return checked.refusal or "this is the first judging"
    told = f"{checked.changed} verdicts changed since the last judging"
    if not checked.moved:
        return f"no drift; {told}"
    row = checked.comparison.rows[checked.moved[0]]
    ends = f"{row.delta:+.3f} (95% interval {row.low:+.3f} to {row.high:+.3f})"
    others = f", and {len(checked.moved) - 1} other rows" if len(checked.moved) > 1 else ""
    return f"drift: {checked.benchmark}/{checked.moved[0]} moved by {ends}{others}; {told}"


def _path(last: Path, judged: Judged, evaluation: EvaluationPlan) -> Path:
    pair = sha256_text(f"drift {last.name} {judged.request_hash} {evaluation.arithmetic}")[:HASH_LENGTH]
    return current_home().scores(pair).path / DRIFT_FILE


def _report(run: RunContext, found: FoundVersions, checked: DriftChecked) -> None:
    """The page in Prefect, and for drift an event per version."""
    show_page(
        markdown(checked), f"{ARTIFACT_KEY} {checked.benchmark} {checked.model.name}", f"Drift of {checked.model.name}"
    )
    if not checked.moved or checked.comparison is None:
        return
    row = checked.comparison.rows[checked.moved[0]]
    facts: dict[str, events.Fact] = {
        "benchmark": checked.benchmark,
        "row": checked.moved[0],
        "delta": row.delta,
        "low": row.low,
        "high": row.high,
        "changed_verdicts": checked.changed,
        "judge_changes": "; ".join(checked.judge_changes),
        "flow_run_id": run.flow_run_id,
    }
    for version in found.versions_of(checked.model):
        text = f"{version.name}/{version.version}: {sentence(checked)}"
        events.tell(
            events.Notice(event=events.DRIFT, model=version.name, version=version.version, text=text, facts=facts)
        )


def markdown(checked: DriftChecked) -> str:
    """The difference as a table, and what the judge says of itself."""
    if checked.comparison is None:
        return cell(sentence(checked)) + "\n"
    lines = [cell(sentence(checked)), _table(checked.comparison)]
    lines += [f"- the judge changed: {cell(change)}" for change in checked.judge_changes]
    return "\n\n".join(lines) + "\n"


def _table(comparison: Comparison) -> str:
    lines = ["| | last time | now | difference | 95% interval | pictures |", "|---|---:|---:|---:|---:|---:|"]
    for name, row in comparison.rows.items():
        ends = f"{_number(row.low)} to {_number(row.high)}"
        lines.append(
            f"| {cell(name)} | {_number(row.base)} | {_number(row.trained)} | {_number(row.delta)} | {ends} | {row.n} |"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
