"""Scenes: does the model still read what it sees? Nine kinds of questions about rendered scenes, answered exactly.

A benchmark of this project alone, for the rendered world alone (``scenes.shapeworld``): the questions that the tiny
models' replay asks (``QUESTION_FORMS``), about scenes of its own stream of draws. An answer counts if it is equal to
the right one, letter case and outer blanks aside: the image-to-text exact match of docs/tiny_protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.benchmark import BenchmarkCard, Group, PromptPlan, RowData, SourcePicture
from evaluation.records import Arithmetic, Judgment, Scored
from evaluation.rendered import painted
from evaluation.understanding.questions import CORRECT, PICTURE, Asked, QuestionBenchmark, Readings
from reca_core.contracts.errors import BadInput
from reca_core.contracts.world import (
    CELL_NAMES,
    COLOURS,
    COUNT_WORDS,
    NO,
    NOTHING,
    PLURALS,
    QUESTION_FORMS,
    RELATIONS,
    SHAPES,
    YES,
    Draws,
    noun_phrase,
    relation_holds,
)

CARD = BenchmarkCard(
    name="Scenes",
    paper="none: a measure of this project",
    data_origin="rendered from a seed",
    files=(),
    licence="Apache-2.0",
    published_judge="none: answers are compared word for word",
    pictures_per_prompt=1,
)
WORLD_PICTURES = 96
MOST_OBJECTS = 4
GROUP_PERCENT, YES_PERCENT, ABSENT_PERCENT = 30, 50, 25
"""How often all objects have one shape; how often yes is right; how often what is counted is not there."""
EXACT_MATCH = "exact_match"

Objects = dict[int, tuple[str, str]]
"""Cell -> (shape, colour)."""
Pair = tuple[str, str]
"""Question and answer."""


class Scenes(QuestionBenchmark):
    """The rules."""

    card = CARD
    readings: Readings = {
        "parity": lambda reply, item: reply.strip().lower(),
        "corrected": lambda reply, item: reply.strip().lower(),
    }

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> Scenes:
        """Rendered from the plan's first seed. Raises BadInput without ``world``: there are no photographs of it."""
        if not world:
            raise BadInput(f"{benchmark_id} exists in the rendered world alone", choices=("scenes.shapeworld",))
        items, sources = world_questions(plan.first_seed, WORLD_PICTURES)
        return cls(benchmark_id, items, sources, plan)

    @staticmethod
    def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
        """Share of exact answers, over all questions and kind by kind; questions about one picture share a cluster."""
        kinds = list(dict.fromkeys(judgment.tag for judgment in judgments))
        parts = {kind: _row(kind, [judgment for judgment in judgments if judgment.tag == kind]) for kind in kinds}
        return {EXACT_MATCH: _row(EXACT_MATCH, judgments), **parts}


def _row(name: str, judgments: Sequence[Judgment]) -> RowData:
    scored = [judgment.outcome for judgment in judgments if isinstance(judgment.outcome, Scored)]
    clusters = tuple(outcome.evidence[PICTURE] for outcome in scored)
    group = Group(name, clusters, tuple(outcome.values[CORRECT] for outcome in scored))
    return RowData((group,), len(scored), len(judgments))


def world_questions(split_seed: int, pictures: int) -> tuple[list[Asked], dict[str, SourcePicture]]:
    """At most one question of each kind about every picture, ordered by kind; and the pictures."""
    items: list[Asked] = []
    sources: dict[str, SourcePicture] = {}
    for number in range(pictures):
        draws, name = Draws(split_seed, f"scenes/{number}"), f"{number:05d}.png"
        objects = _objects(draws)
        sources[name] = painted(objects)
        for kind, ask in KINDS.items():
            if found := ask(objects, draws):
                question, answer = found
                items.append(Asked(f"{kind}/{number:05d}", question, answer, picture=name, tag=kind))
    return sorted(items, key=lambda item: tuple(KINDS).index(item.tag)), sources


def _objects(draws: Draws) -> Objects:
    cells = draws.sample(range(len(CELL_NAMES)), 1 + draws.below(MOST_OBJECTS))
    one_shape = draws.choice(SHAPES) if draws.chance(GROUP_PERCENT) else ""
    return {cell: (one_shape or draws.choice(SHAPES), draws.choice(tuple(COLOURS))) for cell in cells}


def _lone(objects: Objects) -> list[int]:
    """Cells of objects that are the only one of their shape."""
    shapes = [shape for shape, _ in objects.values()]
    return [cell for cell in sorted(objects) if shapes.count(objects[cell][0]) == 1]


def _place(objects: Objects, draws: Draws) -> Pair:
    cell = draws.below(len(CELL_NAMES))
    answer = noun_phrase(objects[cell][0], colour=objects[cell][1]) if cell in objects else NOTHING
    return QUESTION_FORMS["place"].format(cell=CELL_NAMES[cell]), answer


def _colour(objects: Objects, draws: Draws) -> Pair | None:
    if not (lone := _lone(objects)):
        return None
    shape, colour = objects[draws.choice(lone)]
    return QUESTION_FORMS["colour"].format(shape=shape), colour


def _count(objects: Objects, draws: Draws) -> Pair:
    shown = sorted({shape for shape, _ in objects.values()})
    absent = [shape for shape in SHAPES if shape not in shown]
    shape = draws.choice(absent if draws.chance(ABSENT_PERCENT) else shown)
    number = sum(other == shape for other, _ in objects.values())
    return QUESTION_FORMS["count"].format(shapes=PLURALS[shape]), COUNT_WORDS[number]


def _total(objects: Objects, draws: Draws) -> Pair:
    return QUESTION_FORMS["total"], COUNT_WORDS[len(objects)]


def _where(objects: Objects, draws: Draws) -> Pair | None:
    if not (lone := _lone(objects)):
        return None
    cell = draws.choice(lone)
    return QUESTION_FORMS["where"].format(shape=objects[cell][0]), CELL_NAMES[cell]


def _exists(objects: Objects, draws: Draws) -> Pair:
    shown = sorted({shape for shape, _ in objects.values()})
    there = draws.chance(YES_PERCENT)
    shape = draws.choice(shown if there else [shape for shape in SHAPES if shape not in shown])
    return QUESTION_FORMS["exists"].format(shape=shape), YES if there else NO


def _exists_colour(objects: Objects, draws: Draws) -> Pair:
    """A wrong pair keeps the shape and changes the colour."""
    shape, colour = objects[draws.choice(sorted(objects))]
    there = draws.chance(YES_PERCENT)
    if not there:
        colour = draws.choice([name for name in COLOURS if (shape, name) not in objects.values()])
    return QUESTION_FORMS["exists_colour"].format(colour=colour, shape=shape), YES if there else NO


def _relation(objects: Objects, draws: Draws) -> Pair | None:
    lone = _lone(objects)
    if len(lone) < 2:
        return None
    subject, reference = draws.sample(lone, 2)
    there = draws.chance(YES_PERCENT)
    relation = draws.choice([name for name in RELATIONS if relation_holds(name, subject, reference) == there])
    question = QUESTION_FORMS["relation"].format(
        shape=objects[subject][0], relation=relation, other=objects[reference][0]
    )
    return question, YES if there else NO


def _beside(objects: Objects, draws: Draws) -> Pair | None:
    """What stands in a relation to an object: asked only where exactly one object does."""
    asked = []
    for reference in _lone(objects):
        for relation in RELATIONS:
            beside = [cell for cell in sorted(objects) if relation_holds(relation, cell, reference)]
            if len(beside) == 1:
                question = QUESTION_FORMS["beside"].format(relation=relation, shape=objects[reference][0])
                asked.append((question, noun_phrase(objects[beside[0]][0], colour=objects[beside[0]][1])))
    return draws.choice(asked) if asked else None


KINDS: dict[str, Callable[[Objects, Draws], Pair | None]] = {
    "place": _place,
    "colour": _colour,
    "count": _count,
    "total": _total,
    "where": _where,
    "exists": _exists,
    "exists_colour": _exists_colour,
    "relation": _relation,
    "beside": _beside,
}
