"""GEdit's table: per language and subset, the unweighted mean of the eleven task means, for SC, PQ and O.

Rows: ``<lang>/<sc|pq|o>_<full|intersection>`` and below each ``.../<task>``. ``overall`` is O on the full set in
English, the number that RecA quotes (in the only language there is, if that is another). O is averaged per item, not
recomputed from averages. Parity has no mean while any of the eleven tasks is empty, corrected while an expected one is;
items of no such task are in no mean, and corrected counts them as expected.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.benchmark import Group, RowData
from evaluation.benchmarks.gedit.rounds import CALLS, OVERALL
from evaluation.records import Arithmetic, Judgment, Scored

TASKS = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "ps_human",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
LANGUAGES = ("en", "cn")
SUBSETS = ("full", "intersection")
NUMBERS = (*CALLS, OVERALL)
LANGUAGE = "instruction_language"
INTERSECTION = "intersection_exist"


def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
    """The headline, then language by language. Replies without a task give O, SC and PQ over all items only."""
    if not any(judgment.tag for judgment in judgments):
        calls = {call: _mean(judgments, call, call) for call in CALLS}
        return {"overall": _mean(judgments, OVERALL, "overall"), **calls}
    found = list(dict.fromkeys(_language(judgment) for judgment in judgments))
    present = [name for name in LANGUAGES if name in found] + [name for name in found if name not in LANGUAGES]
    table: dict[str, RowData] = {}
    for language in present:
        table |= language_rows(judgments, language, arithmetic)
    return {"overall": table[f"{present[0]}/o_full"], **table}


def language_rows(judgments: Sequence[Judgment], language: str, arithmetic: Arithmetic) -> dict[str, RowData]:
    """All rows of one language, also of one that no item has."""
    table: dict[str, RowData] = {}
    for subset in SUBSETS:
        chosen = [
            judgment
            for judgment in judgments
            if _language(judgment) == language and (subset == "full" or judgment.outcome.evidence[INTERSECTION])
        ]
        for number in NUMBERS:
            name = f"{language}/{number.lower()}_{subset}"
            tasks = {task: _mean([j for j in chosen if j.tag == task], number, task) for task in TASKS}
            needed = [row for row in tasks.values() if row.n_expected or arithmetic == "parity"]
            strays = sum(j.tag not in TASKS for j in chosen) if arithmetic == "corrected" else 0
            table[name] = RowData(
                groups=tuple(row.groups[0] for row in needed),
                n_scored=sum(row.n_scored for row in needed),
                n_expected=sum(row.n_expected for row in needed) + strays,
            )
            table |= {f"{name}/{task}": row for task, row in tasks.items()}
    return table


def _language(judgment: Judgment) -> str:
    return str(judgment.outcome.evidence.get(LANGUAGE, ""))


def _mean(judgments: Sequence[Judgment], number: str, name: str) -> RowData:
    scored = [(j.prompt_id, j.outcome.values[number]) for j in judgments if isinstance(j.outcome, Scored)]
    group = Group(name, tuple(item for item, _ in scored), tuple(value for _, value in scored))
    return RowData((group,), len(scored), len(judgments))
