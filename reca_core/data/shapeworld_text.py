"""What can be said and asked about a scene of the rendered world, in words of ``contracts.world.VOCABULARY``.

Three kinds of text, all keyed by seed:
- drawing captions. Plain ones name the objects only (``a ring and moons``); rich ones also say colours, counts, places
  or relations. A caption names every object of its scene, and never says a meaning held back for reporting.
- questions about the picture, whose short answers the picture decides.
- the same questions about a caption that decides them: text and picture come to mean the same to a language model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    TEXT_QUESTION_FORM,
    YES,
    Draws,
    attributes_meaning,
    enumeration,
    held_back_meanings,
    noun_phrase,
    relation_holds,
    relation_meaning,
)

if TYPE_CHECKING:
    from reca_core.data.shapeworld import Scene, Thing

COLOUR, PLACE, HORIZONTAL, VERTICAL = "colour", "place", "horizontal", "vertical"
AXIS = {"left of": HORIZONTAL, "right of": HORIZONTAL, "above": VERTICAL, "below": VERTICAL}
LARGEST_PLACED = 2
"""Rich captions say places for at most so many objects; more would double the longest caption."""
ABSENT_PERCENT = 25
"""How often a counting question asks for a shape that is not there."""
HALF_PERCENT = 50


@dataclass(frozen=True)
class Caption:
    """A caption, what it decides beyond names and counts, and the held-back meanings it could say."""

    text: str
    tells: frozenset[str] = frozenset()
    meanings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A question with its answer and what a caption must tell to decide it."""

    question: str
    answer: str
    needs: frozenset[str] = frozenset()


# --- captions ---------------------------------------------------------------------------------------------------------


def description(scene: Scene) -> str:
    """Everything in a scene, cell by cell: ``a red ring in the top left and a blue bar in the bottom right``."""
    return enumeration([_placed(thing, coloured=True) for thing in scene.objects]) if scene.objects else NOTHING


def drawing_caption(scene: Scene, seed: int, rich: bool) -> str:
    """A caption to draw a scene from.

    Args:
        scene: with at least one object.
        seed: decides form and order.
        rich: also colours, counts, places or relations; else the names of the shapes, plural without a number.
    """
    draws = Draws(seed, "caption")
    if not rich:
        names = Counter(thing.shape for thing in scene.objects)
        phrases = [
            noun_phrase(shape) if names[shape] == 1 else PLURALS[shape] for shape in draws.shuffled(sorted(names))
        ]
        return enumeration(phrases)
    said = [caption for caption in rich_captions(scene, draws) if not held_back_meanings() & set(caption.meanings)]
    return draws.choice(said).text


def rich_captions(scene: Scene, draws: Draws) -> list[Caption]:
    """One caption of every rich form that fits the scene; there is always one that says nothing held back."""
    captions = [_coloured_caption(scene, draws)]
    if len(scene.objects) <= LARGEST_PLACED:
        captions.append(_placed_caption(scene, draws, draws.chance(HALF_PERCENT)))
    if len({thing.shape for thing in scene.objects}) < len(scene.objects):
        captions.append(_counted_caption(scene, draws))
    elif len(scene.objects) == 2:
        captions += [_relation_caption(scene, draws, coloured) for coloured in (False, True)]
    return captions


def _counted_caption(scene: Scene, draws: Draws) -> Caption:
    counts = Counter(thing.shape for thing in scene.objects)
    return Caption(enumeration([noun_phrase(shape, counts[shape]) for shape in draws.shuffled(sorted(counts))]))


def _coloured_caption(scene: Scene, draws: Draws) -> Caption:
    counts = Counter((thing.colour, thing.shape) for thing in scene.objects)
    order = draws.shuffled(sorted(counts))
    phrases = [noun_phrase(shape, counts[colour, shape], colour) for colour, shape in order]
    return Caption(enumeration(phrases), frozenset({COLOUR}), _attribute_meanings(scene))


def _placed_caption(scene: Scene, draws: Draws, coloured: bool) -> Caption:
    text = enumeration([_placed(thing, coloured) for thing in draws.shuffled(scene.objects)])
    tells = {PLACE, HORIZONTAL, VERTICAL} | ({COLOUR} if coloured else set())
    return Caption(text, frozenset(tells))


def _relation_caption(scene: Scene, draws: Draws, coloured: bool) -> Caption:
    subject, reference = draws.shuffled(scene.objects)
    relation = draws.choice([name for name in RELATIONS if relation_holds(name, subject.cell, reference.cell)])
    first, second = (
        noun_phrase(thing.shape, colour=thing.colour if coloured else "") for thing in (subject, reference)
    )
    meanings = (relation_meaning(subject.shape, relation, reference.shape),)
    tells = {AXIS[relation]} | ({COLOUR} if coloured else set())
    return Caption(
        f"{first} {relation} {second}",
        frozenset(tells),
        meanings + (_attribute_meanings(scene) if coloured else ()),
    )


def _attribute_meanings(scene: Scene) -> tuple[str, ...]:
    if len(scene.objects) != 2:
        return ()
    return (attributes_meaning([(thing.colour, thing.shape) for thing in scene.objects]),)


def _placed(thing: Thing, coloured: bool) -> str:
    return f"{noun_phrase(thing.shape, colour=thing.colour if coloured else '')} in the {CELL_NAMES[thing.cell]}"


# --- questions --------------------------------------------------------------------------------------------------------


def questions(scene: Scene, seed: int) -> list[tuple[str, str]]:
    """(question, answer) pairs about the picture, at most one of each kind, in random order.

    Answers have at most three words and follow from the picture alone.
    """
    return [(asked.question, asked.answer) for asked in _questions(scene, Draws(seed, "questions"))]


def text_questions(scene: Scene, seed: int) -> list[tuple[str, str]]:
    """The same questions about a caption of the scene, which is part of the question; only those it decides.

    Half of the captions are full descriptions, half are rich drawing captions (held-back meanings included: they are
    held back from drawing, not from reading).
    """
    draws = Draws(seed, "text questions")
    caption = Caption(description(scene), frozenset({COLOUR, PLACE, HORIZONTAL, VERTICAL}))
    if draws.chance(HALF_PERCENT):
        caption = draws.choice(rich_captions(scene, draws))
    return [
        (TEXT_QUESTION_FORM.format(caption=caption.text, question=asked.question), asked.answer)
        for asked in _questions(scene, draws)
        if asked.needs <= caption.tells
    ]


def _questions(scene: Scene, draws: Draws) -> list[Asked]:
    asked = [found for ask in QUESTION_KINDS if (found := ask(scene, draws))]
    return draws.shuffled(asked)


def _ask_place(scene: Scene, draws: Draws) -> Asked:
    cell = draws.below(len(CELL_NAMES))
    thing = scene.at(cell)
    answer = noun_phrase(thing.shape, colour=thing.colour) if thing else NOTHING
    return Asked(QUESTION_FORMS["place"].format(cell=CELL_NAMES[cell]), answer, frozenset({PLACE, COLOUR}))


def _ask_colour(scene: Scene, draws: Draws) -> Asked | None:
    if not (lone := _lone(scene)):
        return None
    thing = draws.choice(lone)
    return Asked(QUESTION_FORMS["colour"].format(shape=thing.shape), thing.colour, frozenset({COLOUR}))


def _ask_count(scene: Scene, draws: Draws) -> Asked:
    present = sorted({thing.shape for thing in scene.objects})
    absent = [shape for shape in SHAPES if shape not in present]
    shape = draws.choice(absent if draws.chance(ABSENT_PERCENT) else present)
    return Asked(QUESTION_FORMS["count"].format(shapes=PLURALS[shape]), COUNT_WORDS[len(scene.of(shape))])


def _ask_total(scene: Scene, draws: Draws) -> Asked:
    return Asked(QUESTION_FORMS["total"], COUNT_WORDS[len(scene.objects)])


def _ask_where(scene: Scene, draws: Draws) -> Asked | None:
    if not (lone := _lone(scene)):
        return None
    thing = draws.choice(lone)
    return Asked(QUESTION_FORMS["where"].format(shape=thing.shape), CELL_NAMES[thing.cell], frozenset({PLACE}))


def _ask_exists(scene: Scene, draws: Draws) -> Asked:
    present = sorted({thing.shape for thing in scene.objects})
    absent = [shape for shape in SHAPES if shape not in present]
    shape = draws.choice(absent if draws.chance(HALF_PERCENT) else present)
    return Asked(QUESTION_FORMS["exists"].format(shape=shape), _yes(shape in present))


def _ask_exists_colour(scene: Scene, draws: Draws) -> Asked:
    """A wrong pair keeps the shape and changes the colour: the hard case."""
    thing = draws.choice(scene.objects)
    present = {other.colour for other in scene.of(thing.shape)}
    colour = thing.colour
    if draws.chance(HALF_PERCENT):
        colour = draws.choice([name for name in COLOURS if name not in present])
    question = QUESTION_FORMS["exists_colour"].format(colour=colour, shape=thing.shape)
    return Asked(question, _yes(colour in present), frozenset({COLOUR}))


def _ask_relation(scene: Scene, draws: Draws) -> Asked | None:
    lone = _lone(scene)
    if len(lone) < 2:
        return None
    subject, reference = draws.sample(lone, 2)
    wanted = draws.chance(HALF_PERCENT)
    cells = subject.cell, reference.cell
    relation = draws.choice([name for name in RELATIONS if relation_holds(name, *cells) == wanted])
    question = QUESTION_FORMS["relation"].format(shape=subject.shape, relation=relation, other=reference.shape)
    return Asked(question, _yes(wanted), frozenset({AXIS[relation]}))


def _ask_beside(scene: Scene, draws: Draws) -> Asked | None:
    """What stands in a relation to an object: asked only where exactly one object does."""
    asked = []
    for reference in _lone(scene):
        for relation in RELATIONS:
            beside = [thing for thing in scene.objects if relation_holds(relation, thing.cell, reference.cell)]
            if len(beside) == 1:
                question = QUESTION_FORMS["beside"].format(relation=relation, shape=reference.shape)
                answer = noun_phrase(beside[0].shape, colour=beside[0].colour)
                asked.append(Asked(question, answer, frozenset({AXIS[relation], COLOUR})))
    return draws.choice(asked) if asked else None


QUESTION_KINDS: tuple[Callable[[Scene, Draws], Asked | None], ...] = (
    _ask_place,
    _ask_colour,
    _ask_count,
    _ask_total,
    _ask_where,
    _ask_exists,
    _ask_exists_colour,
    _ask_relation,
    _ask_beside,
)


def _lone(scene: Scene) -> list[Thing]:
    """The objects that are the only one of their shape: ``the ring`` means one of these."""
    return [thing for thing in scene.objects if len(scene.of(thing.shape)) == 1]


def _yes(fact: bool) -> str:
    return YES if fact else NO
