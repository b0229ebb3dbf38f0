"""Base against trained: the difference of every row with a paired 95% interval.

Both models drew the same prompts with the same seeds and were judged by the same judge, so prompts are resampled once
for both sides: what makes a prompt hard cancels out. Anything else is refused rather than corrected for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from evaluation.aggregate import (
    DEFAULT_RESAMPLES,
    DEFAULT_SEED,
    FEWEST_CLUSTERS,
    cluster_count,
    interval,
    point_value,
    resampled_values,
)
from evaluation.benchmark import RowData
from evaluation.records import Arithmetic, Comparison, DeltaRow, JudgeResult, Judgment, Scored, ScoreTable, Unscored
from evaluation.registry import benchmark_class, split_id
from reca_core.contracts.errors import EXIT_INCOMPLETE, StageFailed
from reca_core.contracts.files import read_jsonl

JUDGMENTS_FILE = "judgments.jsonl"
RESULT_FILE = "DONE.json"
SAME_SUBJECT = ("benchmark", "arithmetic", "prompts_sha256", "seeds")
SAME_MEASURE = (*SAME_SUBJECT[:2], "judge", *SAME_SUBJECT[2:])
"""Fields of a table that two comparable ones share."""
NAMED = 3
"""How many pictures an error names."""


class ComparisonRefused(StageFailed):
    """The two sides do not measure the same thing."""

    exit_code = EXIT_INCOMPLETE


@dataclass(frozen=True)
class Measurement:
    """One side: its table and the judgments behind it."""

    table: ScoreTable
    judgments: Sequence[Judgment]


def read_measurement(directory: Path, arithmetic: Arithmetic) -> Measurement:
    """What a finished judging left in ``answers/<hash>``. Raises StageFailed if it is not finished."""
    path = directory / RESULT_FILE
    if not path.is_file():
        raise StageFailed(f"{directory} holds no finished judging", field="answers", remedy="judge the pictures first")
    result = JudgeResult.model_validate_json(path.read_text(encoding="utf-8"))
    rows = read_jsonl(directory / (JUDGMENTS_FILE if arithmetic == "corrected" else f"{arithmetic}_{JUDGMENTS_FILE}"))
    return Measurement(result.tables[arithmetic], [Judgment.model_validate(row) for row in rows])


def compare_directories(
    base: Path, trained: Path, arithmetic: Arithmetic = "corrected", resamples: int = DEFAULT_RESAMPLES
) -> Comparison:
    """``compare`` for two finished judgings. Raises ComparisonRefused, or StageFailed if one is not finished."""
    return compare(read_measurement(base, arithmetic), read_measurement(trained, arithmetic), resamples)


def compare_over_time(before: Measurement, now: Measurement, resamples: int = DEFAULT_RESAMPLES) -> Comparison:
    """The difference between two judgings of one model's pictures, whoever judged: that is what may have changed.

    Raises ComparisonRefused for anything else that differs.
    """
    return _compared(before, now, SAME_SUBJECT, resamples, DEFAULT_SEED)


def changed_verdicts(before: Measurement, now: Measurement) -> int:
    """Pictures that both judged and that now have another verdict."""
    first = {judgment.id: judgment.outcome for judgment in before.judgments}
    return sum(_values(first.get(item.id)) != _values(item.outcome) for item in now.judgments if item.id in first)


def _values(outcome: Scored | Unscored | None) -> Mapping[str, float] | None:
    return outcome.values if isinstance(outcome, Scored) else None


def compare(
    base: Measurement, trained: Measurement, resamples: int = DEFAULT_RESAMPLES, seed: int = DEFAULT_SEED
) -> Comparison:
    """The difference of every row.

    Raises: ComparisonRefused naming the first thing that differs: benchmark, arithmetic, judge, prompts, seeds, or
        which pictures have a score.
    """
    return _compared(base, trained, SAME_MEASURE, resamples, seed)


def _compared(base: Measurement, trained: Measurement, same: Sequence[str], resamples: int, seed: int) -> Comparison:
    refuse_unequal(base, trained, same)
    arithmetic = base.table.arithmetic
    rules = benchmark_class(split_id(base.table.benchmark)[0])
    first, second = (rules.rows(side.judgments, arithmetic) for side in (base, trained))
    return Comparison(
        benchmark=base.table.benchmark,
        arithmetic=arithmetic,
        judge=trained.table.judge,
        n_prompts=len({judgment.prompt_id for judgment in base.judgments}),
        rows={name: _delta_row(row, second[name], resamples, seed) for name, row in first.items()},
    )


def _delta_row(base: RowData, trained: RowData, resamples: int, seed: int) -> DeltaRow:
    first, second = point_value(base), point_value(trained)
    delta = low = high = None
    if first is not None and second is not None:
        delta = second - first
        if cluster_count(base) >= FEWEST_CLUSTERS:
            low, high = interval(resampled_values(trained, resamples, seed) - resampled_values(base, resamples, seed))
    return DeltaRow(base=first, trained=second, delta=delta, low=low, high=high, n=base.n_scored)


def refuse_unequal(base: Measurement, trained: Measurement, same: Sequence[str] = SAME_MEASURE) -> None:
    """Raises ComparisonRefused naming the first of ``same`` in which two measurements differ, or their pictures."""
    for name in same:
        first, second = getattr(base.table, name), getattr(trained.table, name)
        if first != second:
            raise ComparisonRefused(
                f"the two sides differ in {name}: {_shown(first)} and {_shown(second)}",
                field="compare",
                remedy="evaluate both models with the same evaluation settings",
            )
    _refuse_unequal_pictures("were judged", *(_ids(side.judgments) for side in (base, trained)))
    _refuse_unequal_pictures("have a score", *(_ids(_scored(side.judgments)) for side in (base, trained)))


def _refuse_unequal_pictures(what: str, base: set[str], trained: set[str]) -> None:
    only_base, only_trained = sorted(base - trained), sorted(trained - base)
    if only_base or only_trained:
        raise ComparisonRefused(
            f"not the same pictures {what}: {len(only_base)} of the base only ({_names(only_base)}), "
            f"{len(only_trained)} of the trained only ({_names(only_trained)})",
            field="compare",
            remedy="complete the side that lacks them; their reasons are in its judgments.jsonl",
        )


def _scored(judgments: Sequence[Judgment]) -> list[Judgment]:
    return [judgment for judgment in judgments if isinstance(judgment.outcome, Scored)]


def _ids(judgments: Iterable[Judgment]) -> set[str]:
    return {judgment.id for judgment in judgments}


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "") if names else "none"


def _shown(value: object) -> str:
    return value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value)
