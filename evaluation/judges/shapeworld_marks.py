"""Marks for edited pictures of the rendered world, in the reply forms of ImgEdit's and GEdit's judges.

Three shares from 0 to 1 are measured cell by cell and mapped to the scale that is asked for:

- done: what the instruction should change, as far as it did; a picture left as it was has 0;
- kept: what it should not change, as far as it is as before;
- clean: how sure the reader is of every object and how empty empty cells are; on average, and in the worst cell.

An object counts half for its shape and half for its colour. ImgEdit tells its judge that the second and third mark must
not exceed the first, and so they do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluation.judges.shapeworld_reader import CELLS, CellReading
from reca_core.contracts.world_edits import Objects, apply_edits, parse_instruction
from reca_core.contracts.world_tasks import EDIT_SCORES_FORM, LABEL_SEPARATOR, MARKS_FORM, PICTURE_SCORES_FORM

COUNTED_SCORE = 0.3
"""Findings at or below it are not there, as in GenEval."""
LOWEST_MARK, HIGHEST_MARK = 1, 5
HIGHEST_SCORE = 10
PART = 0.5
"""What shape and colour each count for."""


@dataclass(frozen=True)
class EditShares:
    """How well an edit was made; each 0 to 1."""

    done: float
    kept: float
    clean: float
    cleanest_worst: float
    """Cleanness of the worst cell."""


def objects_of(readings: Sequence[CellReading]) -> dict[int, tuple[str, str]]:
    """What counts as seen: cell -> (shape, colour)."""
    return {
        cell: (reading.finding.label, reading.finding.colour)
        for cell, reading in enumerate(readings)
        if reading.finding and reading.finding.score > COUNTED_SCORE
    }


def edit_shares(instruction: str, source: Sequence[CellReading], edited: Sequence[CellReading]) -> EditShares:
    """Measure an edit. Raises BadInput where the instruction is none of this world's or does not fit the source."""
    before, after = objects_of(source), objects_of(edited)
    wanted = apply_edits(parse_instruction(instruction), before)
    touched = [cell for cell in range(CELLS) if before.get(cell) != wanted.get(cell)]
    others = [cell for cell in range(CELLS) if cell not in touched]
    cleanness = [reading.cleanness() for reading in edited]
    return EditShares(
        done=_mean(_progress(cell, before, wanted, after) for cell in touched),
        kept=_mean(_likeness(cell, before, after) for cell in others),
        clean=_mean(cleanness),
        cleanest_worst=min(cleanness),
    )


def _likeness(cell: int, one: Objects, other: Objects) -> float:
    a, b = one.get(cell), other.get(cell)
    if a is None or b is None:
        return float(a == b)
    return PART * (a[0] == b[0]) + PART * (a[1] == b[1])


def _progress(cell: int, before: Objects, wanted: Objects, after: Objects) -> float:
    """How much of the way from before to wanted: a wrong change is no progress."""
    start = _likeness(cell, before, wanted)
    return max(0.0, (_likeness(cell, after, wanted) - start) / (1 - start))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 1.0


# --- replies ----------------------------------------------------------------------------------------------------------


def _form(form: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(form)))


_MARKS, _EDIT_SCORES = _form(MARKS_FORM), _form(EDIT_SCORES_FORM)


def marks_reply(question: str, source: Sequence[CellReading] | None, edited: Sequence[CellReading]) -> str | None:
    """The reply to a question for marks, or None where the question asks for something else.

    Raises BadInput for an instruction that is none of this world's or does not fit the source.
    """
    if question == PICTURE_SCORES_FORM:
        cleanness = [reading.cleanness() for reading in edited]
        return _scores(_mean(cleanness), min(cleanness))
    if source is None:
        return None
    if match := _MARKS.fullmatch(question):
        shares = edit_shares(match["instruction"], source, edited)
        return _lines(match["labels"].split(LABEL_SEPARATOR), shares)
    if match := _EDIT_SCORES.fullmatch(question):
        shares = edit_shares(match["instruction"], source, edited)
        return _scores(shares.done, shares.kept)
    return None


def _lines(labels: Sequence[str], shares: EditShares) -> str:
    done, clean, kept = (_mark(share) for share in (shares.done, shares.clean, shares.kept))
    marks = (done, min(clean, done), min(kept, done))
    return "\n".join(f"{label}: {mark}" for label, mark in zip(labels, marks, strict=True))


def _mark(share: float) -> int:
    return LOWEST_MARK + round(share * (HIGHEST_MARK - LOWEST_MARK))


def _scores(*shares: float) -> str:
    return json.dumps({"score": [round(HIGHEST_SCORE * share) for share in shares], "reasoning": "read cell by cell"})
