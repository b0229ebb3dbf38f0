"""ImgEdit's table: nine edit types and two overalls.

``overall`` and ``overall_micro`` are the mean over items (RecA's number), ``overall_macro`` the unweighted mean of the
types (the leaderboard's). Parity rounds the means of items and types to two decimals, as upstream does; its macro mean,
which no upstream script prints, is over the types that have a score. Corrected has no macro mean while a type is empty.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.benchmark import Group, RowData
from evaluation.benchmarks.imgedit.ratings import DECIMALS, EDIT_TYPES, RATING
from evaluation.records import Arithmetic, Judgment, Scored


def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
    """Overalls first, then the types in a fixed order."""
    decimals = DECIMALS if arithmetic == "parity" else None
    present = [tag for tag in EDIT_TYPES if any(judgment.tag == tag for judgment in judgments)]
    types = {tag: _row([j for j in judgments if j.tag == tag], tag, decimals) for tag in present}
    parts = [row for row in types.values() if row.n_scored or arithmetic == "corrected"]
    macro = RowData(
        groups=tuple(row.groups[0] for row in parts),
        n_scored=sum(row.n_scored for row in types.values()),
        n_expected=sum(row.n_expected for row in types.values()),
        decimals=decimals,
    )
    micro = _row(judgments, "overall", decimals)
    return {"overall": micro, "overall_micro": micro, "overall_macro": macro, **types}


def _row(judgments: Sequence[Judgment], name: str, decimals: int | None) -> RowData:
    scored = [(j.prompt_id, j.outcome.values[RATING]) for j in judgments if isinstance(j.outcome, Scored)]
    group = Group(name, tuple(item for item, _ in scored), tuple(value for _, value in scored))
    return RowData((group,), len(scored), len(judgments), decimals=decimals)
