"""Edits of the rendered world: their grammar, their effect, and the items of its two editing benchmarks.

An edit is said as an instruction (``make the ring blue``), read back from it, and applied to what a picture shows.
The renderer makes pictures of right edits with it and the judge derives what it should see: both mean the same.
Kinds carry the names of ImgEdit's and GEdit's types where the world has them; style, background, text and people do
not exist here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reca_core.contracts.errors import BadInput
from reca_core.contracts.world import CELL_NAMES, COLOURS, EDIT_FORMS, SHAPES, Draws

Objects = Mapping[int, tuple[str, str]]
"""What a picture shows: cell -> (shape, colour)."""

IMGEDIT_TYPES: dict[str, tuple[str, ...]] = {
    "extract": ("extract",),
    "add": ("add",),
    "adjust": ("alter",),
    "replace": ("replace",),
    "remove": ("remove",),
    "action": ("move",),
    "compose": ("alter", "remove"),
}
"""ImgEdit's edit types in its order -> the kinds of edit that make one instruction."""
GEDIT_TYPES: dict[str, tuple[str, ...]] = {
    "color_alter": ("alter",),
    "motion_change": ("move",),
    "subject-add": ("add",),
    "subject-remove": ("remove",),
    "subject-replace": ("replace",),
}
"""GEdit's task types in its order -> the same."""
AND = " and "
FEWEST_OBJECTS, MOST_OBJECTS = 2, 3
"""Objects in a source picture, all of different shapes: names stay unambiguous and a cell stays free."""


@dataclass(frozen=True)
class Edit:
    """One change. Fields that a kind does not use are empty; ``cell`` is -1."""

    kind: str
    shape: str
    """The object it is about; for ``add`` the new one."""
    colour: str = ""
    other: str = ""
    """The new shape of ``replace``."""
    cell: int = -1

    def instruction(self) -> str:
        """The edit in words."""
        place = CELL_NAMES[self.cell] if self.cell >= 0 else ""
        return EDIT_FORMS[self.kind].format(shape=self.shape, colour=self.colour, other=self.other, cell=place)


@dataclass(frozen=True)
class EditItem:
    """One item of an editing benchmark of this world."""

    key: str
    """Unique in the list."""
    edit_type: str
    instruction: str
    source: tuple[tuple[int, str, str], ...]
    """(cell, shape, colour) of every object of the picture to edit."""

    def objects(self) -> dict[int, tuple[str, str]]:
        """The source as ``Objects``."""
        return {cell: (shape, colour) for cell, shape, colour in self.source}


# --- grammar ----------------------------------------------------------------------------------------------------------


def _pattern(form: str) -> re.Pattern[str]:
    choices = {"shape": SHAPES, "other": SHAPES, "colour": tuple(COLOURS), "cell": CELL_NAMES}
    parts = re.split(r"\{(\w+)\}", form)
    named = [f"(?P<{part}>{'|'.join(choices[part])})" if index % 2 else part for index, part in enumerate(parts)]
    return re.compile("".join(named))


_PATTERNS = {kind: _pattern(form) for kind, form in EDIT_FORMS.items()}


def parse_instruction(text: str) -> list[Edit]:
    """The edits that an instruction asks for, in order. Raises BadInput where the world has no words for it."""
    return [_parse_one(part) for part in text.strip().rstrip(".").split(AND)]


def _parse_one(text: str) -> Edit:
    for kind, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            cell = CELL_NAMES.index(found.pop("cell")) if "cell" in found else -1
            return Edit(kind, cell=cell, **found)
    raise BadInput(f"this world has no such edit: {text!r}", field="instruction", choices=tuple(EDIT_FORMS.values()))


# --- effect -----------------------------------------------------------------------------------------------------------


def apply_edits(edits: Sequence[Edit], objects: Objects) -> dict[int, tuple[str, str]]:
    """What a picture shows after the edits. Raises BadInput where an edit does not fit what it shows."""
    shown = dict(objects)
    for edit in edits:
        shown = _apply(edit, shown)
    return shown


def _apply(edit: Edit, shown: dict[int, tuple[str, str]]) -> dict[int, tuple[str, str]]:
    if edit.kind in ("add", "move") and edit.cell in shown:
        raise BadInput(f"{edit.instruction()}: that place is taken", field="instruction")
    if edit.kind == "add":
        return {**shown, edit.cell: (edit.shape, edit.colour)}
    cell = _cell_of(edit, shown)
    shape, colour = shown[cell]
    rest = {place: thing for place, thing in shown.items() if place != cell}
    effects = {
        "remove": rest,
        "replace": {**rest, cell: (edit.other, edit.colour)},
        "alter": {**rest, cell: (shape, edit.colour)},
        "move": {**rest, edit.cell: (shape, colour)},
        "extract": {cell: (shape, colour)},
    }
    return effects[edit.kind]


def _cell_of(edit: Edit, shown: Objects) -> int:
    cells = [cell for cell, (shape, _) in shown.items() if shape == edit.shape]
    if len(cells) != 1:
        raise BadInput(f"{edit.instruction()}: there are {len(cells)} of them", field="instruction")
    return cells[0]


# --- items ------------------------------------------------------------------------------------------------------------


def edit_items(types: Mapping[str, Sequence[str]], split_seed: int, per_type: int) -> list[EditItem]:
    """Items of an editing benchmark, keyed by the split seed, without duplicates.

    Args:
        types: IMGEDIT_TYPES or GEDIT_TYPES.
        split_seed: different seeds give different pictures and instructions.
        per_type: how many of every type.
    """
    return [item for edit_type in types for item in _items_of(edit_type, types[edit_type], split_seed, per_type)]


def _items_of(edit_type: str, kinds: Sequence[str], split_seed: int, per_type: int) -> list[EditItem]:
    found: dict[tuple[str, tuple[tuple[int, str, str], ...]], EditItem] = {}
    draws = Draws(split_seed, f"edits/{edit_type}")
    while len(found) < per_type:
        source = _source(draws)
        instruction = AND.join(edit.instruction() for edit in _edits(kinds, source, draws))
        item = EditItem(f"{edit_type}-{len(found):04d}", edit_type, instruction, source)
        found.setdefault((instruction, source), item)
    return list(found.values())


def _source(draws: Draws) -> tuple[tuple[int, str, str], ...]:
    count = FEWEST_OBJECTS + draws.below(MOST_OBJECTS - FEWEST_OBJECTS + 1)
    cells, shapes = draws.sample(range(len(CELL_NAMES)), count), draws.sample(SHAPES, count)
    return tuple(sorted((cell, shape, draws.choice(tuple(COLOURS))) for cell, shape in zip(cells, shapes, strict=True)))


def _edits(kinds: Sequence[str], source: tuple[tuple[int, str, str], ...], draws: Draws) -> list[Edit]:
    """One edit of every kind, about different objects."""
    about = draws.sample(source, len(kinds))
    return [_edit(kind, thing, source, draws) for kind, thing in zip(kinds, about, strict=True)]


def _edit(kind: str, about: tuple[int, str, str], source: tuple[tuple[int, str, str], ...], draws: Draws) -> Edit:
    _, shape, colour = about
    taken, present = {cell for cell, _, _ in source}, {name for _, name, _ in source}
    free = draws.choice([cell for cell in range(len(CELL_NAMES)) if cell not in taken])
    new_shape = draws.choice([name for name in SHAPES if name not in present])
    new_colour = draws.choice([name for name in COLOURS if name != colour])
    edits = {
        "add": Edit(kind, new_shape, colour=new_colour, cell=free),
        "replace": Edit(kind, shape, colour=new_colour, other=new_shape),
        "alter": Edit(kind, shape, colour=new_colour),
        "move": Edit(kind, shape, cell=free),
    }
    return edits.get(kind, Edit(kind, shape))
