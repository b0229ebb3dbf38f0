"""GenEval's table: one row per tag, and overall = the unweighted mean of the tag means.

Upstream prints columns in the order in which its operating system listed the folders, below fixed headings; parity
keeps order of first appearance but names every row. Corrected has the fixed order of the papers. Values are equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.benchmark import Group, RowData
from evaluation.benchmarks.geneval.requirement import TAGS
from evaluation.benchmarks.geneval.verdict import CORRECT
from evaluation.records import Arithmetic, Judgment, Scored


def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
    """overall, the tags, ``images`` (share of correct pictures) and ``prompts`` (share with at least one correct)."""
    tags = list(dict.fromkeys(judgment.tag for judgment in judgments))
    if arithmetic == "corrected":
        tags = [tag for tag in TAGS if tag in tags] + [tag for tag in tags if tag not in TAGS]
    parts = {tag: _row([judgment for judgment in judgments if judgment.tag == tag], tag) for tag in tags}
    overall = RowData(
        tuple(part.groups[0] for part in parts.values()),
        sum(part.n_scored for part in parts.values()),
        sum(part.n_expected for part in parts.values()),
    )
    return {"overall": overall, **parts, "images": _row(judgments, "images"), "prompts": _prompts(judgments)}


def _row(judgments: Sequence[Judgment], name: str) -> RowData:
    scored = [(j.prompt_id, j.outcome.values[CORRECT]) for j in judgments if isinstance(j.outcome, Scored)]
    group = Group(name, tuple(prompt for prompt, _ in scored), tuple(value for _, value in scored))
    return RowData((group,), len(scored), len(judgments))


def _prompts(judgments: Sequence[Judgment]) -> RowData:
    """A prompt is right if any of its scored pictures is; it is scored if any of them is."""
    best: dict[str, float] = {}
    for judgment in judgments:
        if isinstance(judgment.outcome, Scored):
            value = judgment.outcome.values[CORRECT]
            best[judgment.prompt_id] = max(value, best.get(judgment.prompt_id, 0.0))
    group = Group("prompts", tuple(best), tuple(best.values()))
    return RowData((group,), len(best), len({judgment.prompt_id for judgment in judgments}))
