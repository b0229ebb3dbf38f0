"""What the judge of the rendered world is asked in free text: yes/no questions of a dense prompt, and marks for edits.

DPG items have the columns of DPG-Bench's own table. Questions for marks say in words what they want and how the reply
must look; the judge (evaluation.judges.shapeworld) reads them with the same forms.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reca_core.contracts.world import (
    CELL_NAMES,
    COLOURS,
    COUNT_WORDS,
    PLURALS,
    QUESTION_FORMS,
    RELATIONS,
    SHAPES,
    Draws,
    enumeration,
    noun_phrase,
    relation_holds,
)

MARKS_FORM = "mark this edit from 1 to 5.\ninstruction: {instruction}\nreply with one line each for: {labels}"
"""ImgEdit: three marks, on lines of their own as ``label: mark``: edit done, clean drawing, rest kept."""
LABEL_SEPARATOR = "; "
EDIT_SCORES_FORM = "score this edit from 0 to 10.\ninstruction: {instruction}"
"""GEdit, semantics: JSON with the scores [edit done, rest kept]."""
PICTURE_SCORES_FORM = "score this picture from 0 to 10."
"""GEdit, quality: JSON with the scores [natural on the whole, free of artefacts in its worst place]."""
FEWEST_DENSE, MOST_DENSE = 3, 4
"""Objects in a dense prompt."""

Placed = tuple[int, str, str]
"""Cell, shape, colour."""


@dataclass(frozen=True)
class DenseRow:
    """One row of a DPG table."""

    item_id: str
    text: str
    proposition_id: int
    dependency: tuple[int, ...]
    """Propositions without which this one makes no sense; empty for none."""
    category_broad: str
    category_detailed: str
    tuple: str
    question: str


@dataclass(frozen=True)
class DenseItem:
    """One dense prompt, its questions, and a scene that answers all of them with yes."""

    item_id: str
    text: str
    rows: tuple[DenseRow, ...]
    objects: tuple[Placed, ...]


@dataclass(frozen=True)
class _Asked:
    category: tuple[str, str]
    arguments: str
    question: str
    needs: tuple[str, ...]
    """Shapes whose presence it depends on."""


def marks_question(instruction: str, labels: tuple[str, str, str]) -> str:
    """ImgEdit's question in this world; ``labels`` are the names under which the three marks are wanted."""
    return MARKS_FORM.format(instruction=instruction, labels=LABEL_SEPARATOR.join(labels))


def edit_scores_question(instruction: str) -> str:
    """GEdit's question on the edit in this world."""
    return EDIT_SCORES_FORM.format(instruction=instruction)


def dense_items(split_seed: int, count: int) -> list[DenseItem]:
    """DPG in this world: ``count`` different prompts that place three or four coloured objects, and their questions."""
    found: dict[str, DenseItem] = {}
    draws = Draws(split_seed, "dense prompts")
    while len(found) < count:
        objects = _dense_objects(draws)
        text = enumeration(
            [f"{noun_phrase(shape, colour=colour)} in the {CELL_NAMES[cell]}" for cell, shape, colour in objects]
        )
        item_id = f"world{len(found)}"
        found.setdefault(text, DenseItem(item_id, text, tuple(_rows(item_id, text, objects, draws)), objects))
    return list(found.values())


def _dense_objects(draws: Draws) -> tuple[Placed, ...]:
    number = FEWEST_DENSE + draws.below(MOST_DENSE - FEWEST_DENSE + 1)
    cells = draws.sample(range(len(CELL_NAMES)), number)
    return tuple((cell, draws.choice(SHAPES), draws.choice(tuple(COLOURS))) for cell in cells)


def _rows(item_id: str, text: str, objects: Sequence[Placed], draws: Draws) -> Iterator[DenseRow]:
    """Entities first, so that every parent stands before its children."""
    asked = [*_entities(objects), *_attributes(objects), *_counts(objects), *_places(objects, draws)]
    parents = {one.arguments: number for number, one in enumerate(asked, 1) if one.category == ("entity", "whole")}
    for number, one in enumerate(asked, 1):
        broad, detailed = one.category
        yield DenseRow(
            item_id=item_id,
            text=text,
            proposition_id=number,
            dependency=tuple(parents[shape] for shape in one.needs),
            category_broad=broad,
            category_detailed=detailed,
            tuple=f"{broad} - {detailed} ({one.arguments})",
            question=one.question,
        )


def _entities(objects: Sequence[Placed]) -> list[_Asked]:
    shapes = dict.fromkeys(shape for _, shape, _ in objects)
    return [_Asked(("entity", "whole"), shape, QUESTION_FORMS["exists"].format(shape=shape), ()) for shape in shapes]


def _attributes(objects: Sequence[Placed]) -> list[_Asked]:
    pairs = dict.fromkeys((shape, colour) for _, shape, colour in objects)
    return [
        _Asked(
            ("attribute", "color"),
            f"{shape}, {colour}",
            QUESTION_FORMS["exists_colour"].format(shape=shape, colour=colour),
            (shape,),
        )
        for shape, colour in pairs
    ]


def _counts(objects: Sequence[Placed]) -> list[_Asked]:
    counts = Counter(shape for _, shape, _ in objects)
    return [
        _Asked(
            ("other", "count"),
            f"{shape}, =={count}",
            QUESTION_FORMS["exactly"].format(count=COUNT_WORDS[count], shapes=PLURALS[shape]),
            (shape,),
        )
        for shape, count in counts.items()
        if count > 1
    ]


def _places(objects: Sequence[Placed], draws: Draws) -> list[_Asked]:
    """Where every object is, and one relation of every two neighbours that have different, unique shapes."""
    places = [
        _Asked(
            ("relation", "spatial"),
            f"{shape}, {CELL_NAMES[cell]}",
            QUESTION_FORMS["in_place"].format(shape=shape, cell=CELL_NAMES[cell]),
            (shape,),
        )
        for cell, shape, _ in objects
    ]
    counts = Counter(shape for _, shape, _ in objects)
    lone = [(cell, shape) for cell, shape, _ in objects if counts[shape] == 1]
    return places + [_relation(first, second, draws) for first, second in itertools.pairwise(lone)]


def _relation(first: tuple[int, str], second: tuple[int, str], draws: Draws) -> _Asked:
    relation = draws.choice([name for name in RELATIONS if relation_holds(name, first[0], second[0])])
    question = QUESTION_FORMS["relation"].format(shape=first[1], relation=relation, other=second[1])
    return _Asked(("relation", "spatial"), f"{first[1]}, {second[1]}, {relation}", question, (first[1], second[1]))
