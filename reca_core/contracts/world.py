"""The rendered world of the tiny models: what can be seen, where, and in which words it is spoken of.

A picture shows 0 to 4 objects in a 2 x 2 grid on a plain light ground, at most one per cell. The renderer
(``reca_core.data.shapeworld``) draws it and the reader (``evaluation.judges.shapeworld``) reads it; both know the world
only from here, so neither imports the other. No torch, no numpy: the control plane imports this file.

Shapes were chosen by measurement: of ten candidates these six have the largest smallest distance at 8 pixels per cell,
allowing a shift of one pixel and a free colour (docs/shapeworld.md). Colour words are GenEval's candidates without
white (the ground) and orange (between red and yellow). Changing anything here changes every tiny model: raise
WORLD_VERSION.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from reca_core.contracts.errors import BadInput

WORLD_VERSION = 1
GRID = 2
"""Cells per side."""
BACKGROUND = (236, 236, 236)
"""RGB of the ground."""
SUPERSAMPLE = 8
"""Sample points per pixel and axis; a pixel's colour is the rounded mean, in integers."""
SMALLEST_PIXELS = 8
"""Smallest side of a picture: below 4 pixels per cell shapes are not shapes."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 30),
    "yellow": (240, 205, 20),
    "green": (20, 150, 60),
    "blue": (30, 80, 225),
    "purple": (140, 40, 165),
    "pink": (250, 110, 185),
    "brown": (118, 78, 22),
    "black": (20, 20, 20),
}
"""Colour word -> RGB, in GenEval's order. The closest two are 111 apart, and 127 from the ground, of 442 possible."""

PLURALS: dict[str, str] = {
    "square": "squares",
    "triangle": "triangles",
    "cross": "crosses",
    "ring": "rings",
    "bar": "bars",
    "moon": "moons",
}
SHAPES: tuple[str, ...] = tuple(PLURALS)
CELL_NAMES: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
"""Cells in reading order: cell = GRID * row + column."""
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
COUNT_WORDS: tuple[str, ...] = ("none", "one", "two", "three", "four")
NOTHING = "nothing"
YES, NO = "yes", "no"
DESCRIBE_QUESTION = "what is in the picture?"
"""Answered by the full description of a scene, cell by cell."""

WORLD_TEMPLATES: tuple[str, ...] = (
    "draw this picture again",
    "draw the same picture",
    "draw the same picture again",
    "show this picture again",
    "show the same picture",
    "make the same picture",
    "make this picture again",
    "copy this picture",
    "draw what this picture shows",
    "draw the same objects in the same places",
)
"""RecA's instructions in the words of this world."""

TAGS: tuple[str, ...] = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""GenEval's six tags in the order of its table."""
FIRST_REPORTING_SEED = 1000
"""Split seeds from here on give reporting prompts, those below give tuning prompts."""
FIRST_TRAINING_SCENE = 20_000
"""Trainings render scenes from this seed on; those below are for measuring."""

Number = TypeVar("Number")
Item = TypeVar("Item")


# --- looks ------------------------------------------------------------------------------------------------------------


def inside(shape: str, x: Any, y: Any) -> Any:
    """Whether points of a cell belong to a shape.

    Args:
        shape: one of SHAPES.
        x, y: coordinates in [-1, 1], x to the right, y downwards; floats, or arrays of them of one shape.
    Returns: bool, or an array of bool: only comparisons, ``&``, ``|`` and single float operations are used, so the
        answer is the same for numbers and arrays and on every machine.
    Raises: BadInput for an unknown shape.
    """
    if shape == "square":
        return (abs(x) <= 0.75) & (abs(y) <= 0.75)
    if shape == "triangle":
        return (y >= -0.75) & (y <= 0.75) & (abs(x) * 1.75 <= y + 0.85)
    if shape == "cross":
        return ((abs(x) <= 0.25) & (abs(y) <= 0.75)) | ((abs(y) <= 0.25) & (abs(x) <= 0.75))
    if shape == "ring":
        return (x * x + y * y <= 0.75) & (x * x + y * y >= 0.2)
    if shape == "bar":
        return (abs(x) <= 0.75) & (abs(y) <= 0.25)
    if shape == "moon":
        return ((x - 0.1) * (x - 0.1) + y * y <= 0.75) & ((x - 0.55) * (x - 0.55) + y * y >= 0.5)
    raise BadInput(f"no shape is called {shape!r}", field="shape", choices=SHAPES)


def relation_holds(relation: str, subject_cell: int, reference_cell: int) -> bool:
    """Whether an object in one cell stands left of, right of, above or below one in another (diagonals do twice).

    This agrees with GenEval's rule on boxes for every pair of shapes; a test goes through them all.
    """
    row, column = divmod(subject_cell, GRID)
    other_row, other_column = divmod(reference_cell, GRID)
    difference = {
        "left of": other_column - column,
        "right of": column - other_column,
        "above": other_row - row,
        "below": row - other_row,
    }
    return difference[relation] > 0


# --- words ------------------------------------------------------------------------------------------------------------


def noun_phrase(shape: str, count: int = 1, colour: str = "") -> str:
    """``a ring``, ``a red ring``, ``three red rings``. Count 1 to 4."""
    words = ["a" if count == 1 else COUNT_WORDS[count], colour, shape if count == 1 else PLURALS[shape]]
    return " ".join(word for word in words if word)


def enumeration(phrases: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text: the units of the tiny models' tokenizer."""
    return re.findall(r"\w+|[^\w\s]", text)


QUESTION_FORMS: dict[str, str] = {
    "place": "what is in the {cell}?",
    "colour": "what colour is the {shape}?",
    "count": "how many {shapes} are there?",
    "total": "how many objects are there?",
    "where": "where is the {shape}?",
    "exists": "is there a {shape}?",
    "exists_colour": "is there a {colour} {shape}?",
    "relation": "is the {shape} {relation} the {other}?",
    "beside": "what is {relation} the {shape}?",
    "exactly": "are there {count} {shapes}?",
    "in_place": "is there a {shape} in the {cell}?",
}
"""Every question that can be asked about a picture; the last two only by the judge of dense prompts."""
TEXT_QUESTION_FORM = "the picture shows {caption}. {question}"
"""A question about a caption instead of a picture."""

EDIT_FORMS: dict[str, str] = {
    "add": "add a {colour} {shape} in the {cell}",
    "remove": "remove the {shape}",
    "replace": "replace the {shape} with a {colour} {other}",
    "alter": "make the {shape} {colour}",
    "move": "move the {shape} to the {cell}",
    "extract": "keep only the {shape}",
}
"""Edit instructions of the world."""


def _vocabulary() -> tuple[str, ...]:
    forms = [*QUESTION_FORMS.values(), TEXT_QUESTION_FORM, *EDIT_FORMS.values()]
    texts = [re.sub(r"\{\w+\}", " ", form) for form in forms]
    texts += [*SHAPES, *PLURALS.values(), *COLOURS, *CELL_NAMES, *RELATIONS, *COUNT_WORDS]
    texts += [NOTHING, YES, NO, DESCRIBE_QUESTION, *WORLD_TEMPLATES, "a and the in , . ?"]
    return tuple(sorted({word for text in texts for word in words_of(text)}))


VOCABULARY: tuple[str, ...] = _vocabulary()
"""Every word and mark that a prompt, caption, question, answer, template or edit instruction can use, sorted."""


# --- draws ------------------------------------------------------------------------------------------------------------


class Draws:
    """A stream of integers keyed by (seed, name): SHA-256 of a counter, so equal on every machine and version."""

    def __init__(self, seed: int, name: str) -> None:
        self._key = f"{seed}/{name}"
        self._count = 0

    def below(self, limit: int) -> int:
        """An integer in [0, limit), uniform up to 2^-50."""
        digest = hashlib.sha256(f"{self._key}/{self._count}".encode()).digest()
        self._count += 1
        return int.from_bytes(digest[:8], "big") % limit

    def choice(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """``count`` different positions of ``items``, in random order."""
        pool = list(items)
        return [pool.pop(self.below(len(pool))) for _ in range(count)]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All items in random order."""
        return self.sample(items, len(items))

    def chance(self, percent: int) -> bool:
        """True in ``percent`` of 100 draws."""
        return self.below(100) < percent


# --- prompts ----------------------------------------------------------------------------------------------------------


def relation_meaning(subject: str, relation: str, reference: str) -> str:
    """One name for the two ways to say it: ``a ring left of a bar`` is ``a bar right of a ring``."""
    if relation in ("right of", "below"):
        subject, relation, reference = reference, OPPOSITE[relation], subject
    return f"{subject} {relation} {reference}"


def attributes_meaning(objects: Sequence[tuple[str, str]]) -> str:
    """One name for the two orders of a pair of (colour, shape)."""
    return " and ".join(sorted(f"{colour} {shape}" for colour, shape in objects))


@functools.cache
def held_back_meanings() -> frozenset[str]:
    """Meanings of position and attribute prompts that only reporting asks for: half of each, fixed for ever.

    Neither tuning prompts nor drawing captions ever say one of them; ``geneval_metadata`` with a reporting seed says
    nothing else in these two tags. The other tags have too few prompts (6 to 48) to hold any back.
    """
    held: set[str] = set()
    for tag in ("position", "color_attr"):
        meanings = {meaning_of(record) for record in all_records(tag)}
        ranked = sorted(meanings, key=lambda meaning: hashlib.sha256(f"held back/{meaning}".encode()).digest())
        held.update(ranked[: len(ranked) // 2])
    return frozenset(held)


def meaning_of(record: dict[str, Any]) -> str:
    """The meaning of a GenEval record, independent of the order in which it is said."""
    include = record["include"]
    if record["tag"] == "position":
        return relation_meaning(include[1]["class"], include[1]["position"][0], include[0]["class"])
    if record["tag"] == "color_attr":
        return attributes_meaning([(clause["color"], clause["class"]) for clause in include])
    return str(record["prompt"])


@functools.cache
def _records(tag: str) -> tuple[dict[str, Any], ...]:
    return tuple(_RECORD_MAKERS[tag]())


def all_records(tag: str) -> list[dict[str, Any]]:
    """Every GenEval record of a tag that this world can draw, without duplicates. Raises BadInput for another tag."""
    if tag not in TAGS:
        raise BadInput(f"no tag is called {tag!r}", field="tag", choices=TAGS)
    return [{**record, "include": [dict(clause) for clause in record["include"]]} for record in _records(tag)]


def geneval_metadata(split_seed: int, per_tag: int) -> list[dict[str, Any]]:
    """Records in GenEval's own form {tag, include, exclude?, prompt} for the six tags, in GenEval's order of tags.

    Args:
        split_seed: chooses and orders the prompts; from FIRST_REPORTING_SEED on, position and attribute prompts come
            from the held-back half, below from the other half: tuning and reporting never share one.
        per_tag: at most so many per tag; a tag that has fewer gives all (6, 30, 18, 48, 60 and 840 per half).
    Raises: BadInput for a negative seed or ``per_tag`` below 1.
    """
    if split_seed < 0 or per_tag < 1:
        raise BadInput(f"split_seed {split_seed}, per_tag {per_tag}", remedy="give a seed >= 0 and per_tag >= 1")
    reporting = split_seed >= FIRST_REPORTING_SEED
    chosen = []
    for tag in TAGS:
        records = all_records(tag)
        if tag in ("position", "color_attr"):
            records = [record for record in records if (meaning_of(record) in held_back_meanings()) == reporting]
        chosen += Draws(split_seed, f"prompts/{tag}").shuffled(records)[:per_tag]
    return chosen


def _single_object() -> list[dict[str, Any]]:
    return [_record("single_object", [{"class": shape, "count": 1}], noun_phrase(shape)) for shape in SHAPES]


def _two_object() -> list[dict[str, Any]]:
    return [
        _record("two_object", [{"class": a, "count": 1}, {"class": b, "count": 1}], f"a {a} and a {b}")
        for a, b in itertools.permutations(SHAPES, 2)
    ]


def _counting() -> list[dict[str, Any]]:
    return [
        _record("counting", [{"class": shape, "count": count}], noun_phrase(shape, count), excluded=(shape, count + 1))
        for shape in SHAPES
        for count in (2, 3, 4)
    ]


def _colors() -> list[dict[str, Any]]:
    return [
        _record("colors", [{"class": shape, "count": 1, "color": colour}], noun_phrase(shape, colour=colour))
        for shape in SHAPES
        for colour in COLOURS
    ]


def _position() -> list[dict[str, Any]]:
    return [
        _record(
            "position",
            [{"class": reference, "count": 1}, {"class": subject, "count": 1, "position": [relation, 0]}],
            f"a {subject} {relation} a {reference}",
        )
        for subject, reference in itertools.permutations(SHAPES, 2)
        for relation in RELATIONS
    ]


def _color_attr() -> list[dict[str, Any]]:
    return [
        _record(
            "color_attr",
            [{"class": a, "count": 1, "color": ink}, {"class": b, "count": 1, "color": other}],
            f"a {ink} {a} and a {other} {b}",
        )
        for a, b in itertools.permutations(SHAPES, 2)
        for ink, other in itertools.permutations(COLOURS, 2)
    ]


def _record(
    tag: str, include: list[dict[str, Any]], prompt: str, excluded: tuple[str, int] | None = None
) -> dict[str, Any]:
    record: dict[str, Any] = {"tag": tag, "include": include}
    if excluded:
        record["exclude"] = [{"class": excluded[0], "count": excluded[1]}]
    return {**record, "prompt": prompt}


_RECORD_MAKERS = {
    "single_object": _single_object,
    "two_object": _two_object,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
}
