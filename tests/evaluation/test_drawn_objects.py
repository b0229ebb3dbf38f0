"""The counts behind dense scores: pictures that are what their prompts say, and the same with one thing wrong."""

from __future__ import annotations

from pathlib import Path

from reca_core.contracts.files import append_jsonl
from reca_core.contracts.world import COLOURS
from reca_core.contracts.world_tasks import DenseItem, dense_items
from reca_core.data.shapeworld import render, scene_of
from tests.evaluation.drawn_objects import counted, short_wanted

SIDE_PIXELS = 64
ITEMS = {f"world{number}": item for number, item in enumerate(dense_items(1000, 5))}


def drawn(folder: Path, wrong_colours: bool = False, lacking: int = 0) -> Path:
    """A sampling's folder whose pictures are the prompts' own, with other colours or without some objects."""
    names = list(COLOURS)

    def scene(item: DenseItem) -> dict[int, tuple[str, str]]:
        shift = int(wrong_colours)
        colour = {name: names[(index + shift) % len(names)] for index, name in enumerate(names)}
        return {cell: (shape, colour[painted]) for cell, shape, painted in item.objects[lacking:]}

    for name, item in ITEMS.items():
        render(scene_of(scene(item)), SIDE_PIXELS).save(folder / f"{name}.png")
        append_jsonl(folder / "samples.jsonl", [{"prompt_id": name, "image_path": f"{name}.png"}])
    return folder


def test_the_prompts_own_pictures_are_right_in_everything(tmp_path: Path) -> None:
    counts = counted(drawn(tmp_path), ITEMS)
    wanted = sum(len(item.objects) for item in ITEMS.values())
    assert set(counts.values()) == {wanted}
    assert set(counts) == {"wanted", "drawn", "place", "shape", "colour", "both"}


def test_what_is_wrong_or_lacking_is_counted_as_such(tmp_path: Path) -> None:
    (tmp_path / "colours").mkdir()
    other = counted(drawn(tmp_path / "colours", wrong_colours=True), ITEMS)
    assert other["drawn"] == other["shape"] == other["wanted"]
    assert other["colour"] == other["both"] == 0
    (tmp_path / "fewer").mkdir()
    fewer = counted(drawn(tmp_path / "fewer", lacking=1), ITEMS)
    assert fewer["drawn"] == fewer["both"] == fewer["wanted"] - len(ITEMS)


def test_short_prompts_say_how_many_objects_they_want() -> None:
    wanted = short_wanted()
    assert (wanted["a square"], wanted["a triangle and a cross"], wanted["two triangles"]) == (1, 2, 2)
