"""Recorded answers scored without any model: ``reca score dpg --questions CSV --answers JSON``.

``answers.json``: item -> list of pictures -> {proposition: raw reply}. Three layouts of picture files:
grid4: one file per item with all its pictures (upstream); first_image: one picture per item; per_image: one file
``<item>_<k>`` per picture (RecA's copy, which asks every file as often as a grid has pictures, with equal replies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from evaluation.benchmarks.dpg.scoring import score_file
from evaluation.benchmarks.dpg.table import LONGEST_NUMBER, Table
from evaluation.records import Arithmetic, Judgment, Scored
from reca_core.contracts.errors import BadInput

Layout = Literal["grid4", "first_image", "per_image"]
LAYOUTS: tuple[Layout, ...] = ("grid4", "first_image", "per_image")
DEFAULT_PICTURES = 4

AnswersByItem = Mapping[str, Sequence[Mapping[int, str]]]


def read_answers(document: Any, name: str) -> dict[str, list[dict[int, str]]]:
    """Check the shape of ``answers.json``. Raises BadInput naming file, item, picture and proposition."""
    if not isinstance(document, dict):
        raise BadInput(f"{name}: expected an object item -> list of pictures", field="answers")
    return {item: _pictures(pictures, f"{name}, item {item!r}") for item, pictures in document.items()}


def _pictures(pictures: Any, place: str) -> list[dict[int, str]]:
    if not isinstance(pictures, list):
        raise BadInput(f"{place}: expected a list of pictures", field="answers")
    return [_replies(replies, f"{place}, picture {number}") for number, replies in enumerate(pictures)]


def _replies(replies: Any, place: str) -> dict[int, str]:
    if not isinstance(replies, dict):
        raise BadInput(f"{place}: expected an object proposition -> reply", field="answers")
    checked: dict[int, str] = {}
    for proposition, reply in replies.items():
        number = _proposition(proposition, place)
        if number in checked:
            raise BadInput(f"{place}: proposition {number} is answered twice", field="answers")
        if not isinstance(reply, str):
            raise BadInput(f"{place}, proposition {number}: the reply is not a text", field="answers")
        checked[number] = reply
    return checked


def _proposition(text: str, place: str) -> int:
    if not text.strip().isdecimal() or len(text) > LONGEST_NUMBER:
        shown = text[:LONGEST_NUMBER]
        raise BadInput(f"{place}: proposition {shown!r} is not a whole number of an item's question", field="answers")
    return int(text)


def judgments(
    table: Table,
    answers: AnswersByItem,
    layout: Layout = "grid4",
    pictures: int = DEFAULT_PICTURES,
    arithmetic: Arithmetic = "corrected",
) -> list[Judgment]:
    """One judgment per file. Items of the table come first, then items that only the answers know.

    Args:
        table: read with ``first_row_kept=False`` for upstream's own behaviour.
        pictures: per item; with the layout first_image it is 1.
    """
    items = [*table, *(item for item in answers if item not in table)]
    if layout == "per_image":
        return [_picture(table, answers, item, k, pictures, arithmetic) for item in items for k in range(pictures)]
    expected = 1 if layout == "first_image" else pictures
    return [
        Judgment(id=item, prompt_id=item, outcome=score_file(table.get(item), answers.get(item, ()), expected))
        for item in items
    ]


def _picture(table: Table, answers: AnswersByItem, item: str, k: int, asked: int, arithmetic: Arithmetic) -> Judgment:
    """One file of RecA's layout. Its script takes the item to be what stands before the first underscore."""
    name = item.partition("_")[0] if arithmetic == "parity" else item
    outcome = score_file(table.get(name), answers.get(item, ())[k : k + 1], 1)
    if isinstance(outcome, Scored) and arithmetic == "parity":
        repeated = outcome.evidence["image_scores"] * asked
        outcome = outcome.model_copy(update={"evidence": {**outcome.evidence, "image_scores": repeated}})
    return Judgment(id=f"{item}_{k}", prompt_id=item, seed=k, outcome=outcome)
