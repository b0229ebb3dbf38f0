"""Scenes of the rendered world and their pictures: the training material of the tiny models.

A scene is drawn from a seed, rendered at any size (``contracts.world_raster``), and spoken of in
``reca_core.data.shapeworld_text``. Everything is keyed by seed and the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from reca_core.contracts.errors import BadInput
from reca_core.contracts.world import (
    CELL_NAMES,
    COLOURS,
    GRID,
    SHAPES,
    Draws,
    relation_holds,
)
from reca_core.contracts.world_edits import Edit, apply_edits
from reca_core.contracts.world_raster import paint
from reca_core.data.shapeworld_text import description, drawing_caption, questions, text_questions

__all__ = [
    "Scene",
    "Thing",
    "description",
    "drawing_caption",
    "edited",
    "questions",
    "render",
    "scene_for",
    "scene_from_seed",
    "scene_of",
    "text_questions",
]

CELLS = GRID * GRID
KIND_PERCENT = {"single": 25, "pair": 35, "group": 25, "free": 15}
"""What a random scene is: one object, two different shapes, 2-4 of one shape, 2-4 of anything."""
ONE_COLOUR_PERCENT = 50
"""How often a group of one shape has one colour."""
SURPLUS_PERCENT = 25
"""How often a scene made for a prompt shows one object more than it asks for, where that is harmless."""


@dataclass(frozen=True)
class Thing:
    """One object: shape, colour word and cell (GRID * row + column)."""

    shape: str
    colour: str
    cell: int


@dataclass(frozen=True)
class Scene:
    """What a picture shows: objects in the order of their cells, at most one per cell, possibly none.

    Raises BadInput for an unknown shape, colour or cell and for two objects in one cell.
    """

    objects: tuple[Thing, ...]

    def __post_init__(self) -> None:
        for thing in self.objects:
            _check("shape", thing.shape, SHAPES)
            _check("colour", thing.colour, tuple(COLOURS))
            if not 0 <= thing.cell < CELLS:
                raise BadInput(f"there is no cell {thing.cell}", field="cell", choices=CELL_NAMES)
        cells = [thing.cell for thing in self.objects]
        if len(set(cells)) < len(cells):
            raise BadInput(f"two objects in one cell: {cells}", field="cell")
        object.__setattr__(self, "objects", tuple(sorted(self.objects, key=lambda thing: thing.cell)))

    def at(self, cell: int) -> Thing | None:
        """The object in a cell, or None."""
        return next((thing for thing in self.objects if thing.cell == cell), None)

    def cells(self) -> dict[int, tuple[str, str]]:
        """Cell -> (shape, colour): the form that renderer, edits and judge share."""
        return {thing.cell: (thing.shape, thing.colour) for thing in self.objects}

    def of(self, shape: str) -> list[Thing]:
        """The objects of a shape."""
        return [thing for thing in self.objects if thing.shape == shape]


def _check(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadInput(f"no {field} is called {value!r}", field=field, choices=choices)


def render(scene: Scene, size_pixels: int) -> Image.Image:
    """The RGB picture of a scene, ``size_pixels`` on a side. Raises BadInput below SMALLEST_PIXELS."""
    return Image.fromarray(paint(scene.cells(), size_pixels), "RGB")


def scene_of(cells: Mapping[int, tuple[str, str]]) -> Scene:
    """The scene with these objects: the inverse of ``Scene.cells``."""
    return Scene(tuple(Thing(shape, colour, cell) for cell, (shape, colour) in cells.items()))


def edited(scene: Scene, edits: Sequence[Edit]) -> Scene:
    """The scene after edits. Raises BadInput where one does not fit."""
    return scene_of(apply_edits(edits, scene.cells()))


def scene_from_seed(seed: int) -> Scene:
    """A random scene of one to four objects."""
    draws = Draws(seed, "scene")
    kind = draws.choice([kind for kind, percent in KIND_PERCENT.items() for _ in range(percent)])
    count = {"single": 1, "pair": 2}.get(kind) or 2 + draws.below(CELLS - 1)
    if kind in ("single", "pair"):
        shapes = draws.sample(SHAPES, count)
    elif kind == "group":
        shapes = [draws.choice(SHAPES)] * count
    else:
        shapes = [draws.choice(SHAPES) for _ in range(count)]
    colours = [draws.choice(tuple(COLOURS)) for _ in range(count)]
    if kind == "group" and draws.chance(ONE_COLOUR_PERCENT):
        colours = colours[:1] * count
    cells = draws.sample(range(CELLS), count)
    return Scene(tuple(Thing(*thing) for thing in zip(shapes, colours, cells, strict=True)))


def scene_for(metadata: Mapping[str, Any], seed: int) -> Scene:
    """A scene that satisfies a GenEval record of this world; what the record leaves open is random.

    Sometimes it shows one object more, of a shape that the record does not name (never for counting).
    """
    draws = Draws(seed, f"scene for {metadata['prompt']}")
    clauses = [clause for clause in metadata["include"] for _ in range(clause["count"])]
    shapes = [clause["class"] for clause in clauses]
    colours = [clause.get("color") or draws.choice(tuple(COLOURS)) for clause in clauses]
    if metadata["tag"] != "counting" and draws.chance(SURPLUS_PERCENT):
        shapes.append(draws.choice([shape for shape in SHAPES if shape not in shapes]))
        colours.append(draws.choice(tuple(COLOURS)))
    while True:
        cells = draws.sample(range(CELLS), len(shapes))
        if all(_stands_right(clause, cells[index], cells) for index, clause in enumerate(clauses)):
            return Scene(tuple(Thing(*thing) for thing in zip(shapes, colours, cells, strict=True)))


def _stands_right(clause: Mapping[str, Any], cell: int, cells: list[int]) -> bool:
    if "position" not in clause:
        return True
    relation, target = clause["position"]
    return relation_holds(relation, cell, cells[target])
