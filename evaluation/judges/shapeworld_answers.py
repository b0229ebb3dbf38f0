"""Answers of the rendered world's judge to questions in words, from what the reader saw.

This is written independently of the texts that ask (reca_core.data.shapeworld_text): the tests hold both against each
other on rendered pictures. "The ring" of a yes/no question means any ring; answers that name a thing need exactly one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from reca_core.contracts.errors import StageFailed
from reca_core.contracts.world import (
    CELL_NAMES,
    COLOURS,
    COUNT_WORDS,
    DESCRIBE_QUESTION,
    NO,
    NOTHING,
    PLURALS,
    QUESTION_FORMS,
    RELATIONS,
    SHAPES,
    YES,
    enumeration,
    noun_phrase,
    relation_holds,
)
from reca_core.contracts.world_edits import Objects

Found = Mapping[str, str]
"""The words that a question names, by their role."""

SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


def _pattern(form: str) -> re.Pattern[str]:
    roles = {
        "shape": SHAPES,
        "other": SHAPES,
        "shapes": tuple(PLURALS.values()),
        "colour": tuple(COLOURS),
        "cell": CELL_NAMES,
        "relation": RELATIONS,
        "count": COUNT_WORDS,
    }
    parts = re.split(r"\{(\w+)\}", form)
    named = [f"(?P<{part}>{'|'.join(roles[part])})" if at % 2 else re.escape(part) for at, part in enumerate(parts)]
    return re.compile("".join(named))


def answer(question: str, objects: Objects) -> str:
    """The answer to a question of ``contracts.world.QUESTION_FORMS`` about what a picture shows.

    Case and blanks around it do not matter. Raises StageFailed for a question that the world has no words for: an
    invented answer would be a wrong score.
    """
    text = question.strip().lower()
    if text == DESCRIBE_QUESTION:
        return _description(objects)
    for kind, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(text):
            return _ANSWERS[kind](match.groupdict(), objects)
    raise StageFailed(
        f"the rendered world has no words for {question!r}", field="question", choices=tuple(QUESTION_FORMS.values())
    )


def _cells(objects: Objects, shape: str, colour: str = "") -> list[int]:
    return [cell for cell, (name, ink) in objects.items() if name == shape and colour in ("", ink)]


def _yes(fact: bool) -> str:
    return YES if fact else NO


def _phrase(objects: Objects, cell: int) -> str:
    if cell not in objects:
        return NOTHING
    shape, colour = objects[cell]
    return noun_phrase(shape, colour=colour)


def _description(objects: Objects) -> str:
    placed = [f"{_phrase(objects, cell)} in the {CELL_NAMES[cell]}" for cell in sorted(objects)]
    return enumeration(placed) if placed else NOTHING


def _only(cells: list[int]) -> int | None:
    return cells[0] if len(cells) == 1 else None


def _place(words: Found, objects: Objects) -> str:
    return _phrase(objects, CELL_NAMES.index(words["cell"]))


def _colour(words: Found, objects: Objects) -> str:
    cell = _only(_cells(objects, words["shape"]))
    return NOTHING if cell is None else objects[cell][1]


def _where(words: Found, objects: Objects) -> str:
    cell = _only(_cells(objects, words["shape"]))
    return NOTHING if cell is None else CELL_NAMES[cell]


def _count(words: Found, objects: Objects) -> str:
    return COUNT_WORDS[len(_cells(objects, SINGULAR[words["shapes"]]))]


def _total(words: Found, objects: Objects) -> str:
    return COUNT_WORDS[len(objects)]


def _exists(words: Found, objects: Objects) -> str:
    return _yes(bool(_cells(objects, words["shape"], words.get("colour", ""))))


def _exactly(words: Found, objects: Objects) -> str:
    return _yes(_count(words, objects) == words["count"])


def _in_place(words: Found, objects: Objects) -> str:
    return _yes(CELL_NAMES.index(words["cell"]) in _cells(objects, words["shape"]))


def _relation(words: Found, objects: Objects) -> str:
    subjects, references = (_cells(objects, words[role]) for role in ("shape", "other"))
    return _yes(any(relation_holds(words["relation"], a, b) for a in subjects for b in references if a != b))


def _beside(words: Found, objects: Objects) -> str:
    reference = _only(_cells(objects, words["shape"]))
    if reference is None:
        return NOTHING
    beside = _only([cell for cell in objects if relation_holds(words["relation"], cell, reference)])
    return NOTHING if beside is None else _phrase(objects, beside)


_ANSWERS: dict[str, Callable[[Found, Objects], str]] = {
    "place": _place,
    "colour": _colour,
    "count": _count,
    "total": _total,
    "where": _where,
    "exists": _exists,
    "exists_colour": _exists,
    "relation": _relation,
    "beside": _beside,
    "exactly": _exactly,
    "in_place": _in_place,
}
_PATTERNS = {kind: _pattern(form) for kind, form in QUESTION_FORMS.items()}
