"""DPG-Bench's table: overall, and the categories of two levels, all times 100.

Categories pool the scores of single questions *before* dependencies. Upstream keeps only the last picture of a file;
corrected pools all pictures, and adds the same categories after dependencies as ``l1_zeroed`` and ``l2_zeroed``.
Category columns of multi-GPU runs upstream are mixed up among processes; that is not repeated here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from evaluation.aggregate import plain_mean
from evaluation.benchmark import Group, RowData
from evaluation.benchmarks.dpg.scoring import SCORE
from evaluation.benchmarks.dpg.table import broad
from evaluation.records import Arithmetic, Judgment, Scored

PERCENT = 100.0


def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
    """``overall``, ``l1/<category>``, ``l2/<category>``, each level in alphabetical order."""
    last_only = arithmetic == "parity"
    table = {"overall": _overall(judgments, per_item=not last_only)}
    table |= _categories(judgments, "raw", last_only, "")
    if not last_only:
        table |= _categories(judgments, "zeroed", last_only, "_zeroed")
    return table


def _overall(judgments: Sequence[Judgment], per_item: bool) -> RowData:
    """Mean over files; corrected weighs items equally however many of their files were scored."""
    scored = [(j.prompt_id, j.outcome.values[SCORE]) for j in judgments if isinstance(j.outcome, Scored)]
    count = len(scored)
    if per_item:
        items: dict[str, list[float]] = {}
        for item, value in scored:
            items.setdefault(item, []).append(value)
        scored = [(item, plain_mean(values)) for item, values in items.items()]
    group = Group("overall", tuple(item for item, _ in scored), tuple(value for _, value in scored))
    return RowData((group,), count, len(judgments), scale=PERCENT)


def _categories(judgments: Sequence[Judgment], which: str, last_only: bool, suffix: str) -> dict[str, RowData]:
    levels: tuple[tuple[str, Callable[[str], str]], ...] = (("l1", broad), ("l2", str))
    table: dict[str, RowData] = {}
    for level, name_of in levels:
        pools: dict[str, list[tuple[str, float]]] = {}
        expected: Counter[str] = Counter()
        for judgment in judgments:
            expected.update(name_of(category) for category in _expected_questions(judgment, last_only))
            for category, value in _question_scores(judgment, which, last_only):
                pools.setdefault(name_of(category), []).append((judgment.prompt_id, value))
        for name in sorted(expected):
            pool = pools.get(name, [])
            group = Group(f"{level}/{name}", tuple(item for item, _ in pool), tuple(value for _, value in pool))
            table[f"{level}{suffix}/{name}"] = RowData((group,), len(pool), expected[name], scale=PERCENT)
    return table


def _expected_questions(judgment: Judgment, last_only: bool) -> list[str]:
    """Category of every question that should have been scored."""
    evidence = judgment.outcome.evidence
    return list(evidence["categories"].values()) * (1 if last_only else evidence["pictures"])


def _question_scores(judgment: Judgment, which: str, last_only: bool) -> list[tuple[str, float]]:
    """(category, score) of every question of every picture of a file that was scored."""
    if not isinstance(judgment.outcome, Scored):
        return []
    evidence = judgment.outcome.evidence
    pictures = evidence[which][-1:] if last_only else evidence[which]
    return [pair for scores in pictures for pair in zip(evidence["categories"].values(), scores, strict=True)]
