"""Marks for edits: full for what the renderer edits rightly, lower in the right mark for each known wrong edit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from evaluation.benchmark import JudgeTask
from evaluation.judges.shapeworld import ShapeworldJudge
from evaluation.judges.shapeworld_marks import EditShares, edit_shares
from evaluation.judges.shapeworld_reader import read_cells
from evaluation.records import Question
from reca_core.contracts.errors import BadInput
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world import BACKGROUND, COLOURS, VOCABULARY, words_of
from reca_core.contracts.world_edits import (
    AND,
    GEDIT_TYPES,
    IMGEDIT_TYPES,
    EditItem,
    apply_edits,
    edit_items,
    parse_instruction,
)
from reca_core.contracts.world_tasks import PICTURE_SCORES_FORM, edit_scores_question, marks_question
from reca_core.data.shapeworld import Scene, Thing, edited, render, scene_of

SIZE = 32
LABELS = ("Done", "Clean", "Kept")
ITEMS = [*edit_items(IMGEDIT_TYPES, 1000, 12), *edit_items(GEDIT_TYPES, 1000, 12)]
SOURCE = {0: ("ring", "red"), 3: ("bar", "blue")}


def shares(item: EditItem, after: Scene) -> EditShares:
    source = read_cells(render(scene_of(item.objects()), SIZE))
    return edit_shares(item.instruction, source, read_cells(render(after, SIZE)))


def right(item: EditItem) -> Scene:
    return edited(scene_of(item.objects()), parse_instruction(item.instruction))


def of(instruction: str, after: dict[int, tuple[str, str]]) -> EditShares:
    return edit_shares(
        instruction, read_cells(render(scene_of(SOURCE), SIZE)), read_cells(render(scene_of(after), SIZE))
    )


def test_instructions_say_what_is_read_back_in_words_of_the_world() -> None:
    for item in ITEMS:
        edits = parse_instruction(item.instruction)
        assert AND.join(edit.instruction() for edit in edits) == item.instruction
        assert set(words_of(item.instruction)) <= set(VOCABULARY)


def test_items_are_keyed_by_seed_and_differ() -> None:
    assert edit_items(IMGEDIT_TYPES, 1000, 12) == ITEMS[: 12 * len(IMGEDIT_TYPES)]
    assert len({(item.instruction, item.source) for item in ITEMS}) > 0.95 * len(ITEMS)
    assert len({item.key for item in ITEMS}) == len(ITEMS)
    tuning = edit_items(IMGEDIT_TYPES, 0, 12)
    assert not {(item.instruction, item.source) for item in tuning} & {(i.instruction, i.source) for i in ITEMS}


def test_every_edit_changes_what_the_picture_shows() -> None:
    assert all(right(item).cells() != item.objects() for item in ITEMS)


def test_right_edits_get_everything() -> None:
    found = [shares(item, right(item)) for item in ITEMS]
    assert {(one.done, one.kept) for one in found} == {(1.0, 1.0)}
    assert min(one.cleanest_worst for one in found) > 0.99


def test_a_picture_left_as_it_was_has_nothing_done_and_everything_kept() -> None:
    found = [shares(item, scene_of(item.objects())) for item in ITEMS]
    assert {(one.done, one.kept) for one in found} == {(0.0, 1.0)}


def test_an_empty_picture_keeps_nothing_that_was_there() -> None:
    for item in ITEMS:
        untouched = [cell for cell in item.objects() if right(item).cells().get(cell) == item.objects()[cell]]
        assert (shares(item, Scene(())).kept < 1) == bool(untouched)


def test_changing_another_object_too_lowers_what_is_kept_and_not_what_is_done() -> None:
    for item in ITEMS:
        after = right(item).cells()
        others = [cell for cell in item.objects() if after.get(cell) == item.objects()[cell]]
        if others:
            shape, colour = after[others[0]]
            after[others[0]] = (shape, next(name for name in COLOURS if name != colour))
            found = shares(item, scene_of(after))
            assert found.done == 1
            assert found.kept < 1


@pytest.mark.parametrize(
    ("instruction", "after", "done", "kept"),
    [
        ("remove the ring", {3: ("bar", "blue")}, 1, 1),
        ("remove the ring", {0: ("ring", "red")}, 0, 2 / 3),
        ("remove the ring", {}, 1, 2 / 3),
        ("make the ring blue", {0: ("ring", "pink"), 3: ("bar", "blue")}, 0, 1),
        ("replace the ring with a pink moon", {0: ("moon", "red"), 3: ("bar", "blue")}, 0.5, 1),
        ("replace the ring with a pink moon", {1: ("moon", "pink"), 3: ("bar", "blue")}, 0, 2 / 3),
        ("add a green cross in the top right", {**SOURCE, 1: ("cross", "black")}, 0.5, 1),
        ("add a green cross in the top right", {**SOURCE, 2: ("cross", "green")}, 0, 2 / 3),
        ("move the bar to the top right", {0: ("ring", "red"), 1: ("bar", "blue")}, 1, 1),
        ("move the bar to the top right", {**SOURCE, 1: ("bar", "blue")}, 0.5, 1),
        ("keep only the bar", {3: ("bar", "blue")}, 1, 1),
        ("make the ring green and remove the bar", {0: ("ring", "green"), 3: ("bar", "blue")}, 0.5, 1),
    ],
)
def test_known_edits_have_known_shares(
    instruction: str, after: dict[int, tuple[str, str]], done: float, kept: float
) -> None:
    found = of(instruction, after)
    assert (found.done, found.kept) == pytest.approx((done, kept))


@pytest.mark.parametrize(
    "instruction",
    ["remove the moon", "add a red bar in the top left", "paint the sky", "move the ring to the bottom right", ""],
)
def test_instructions_that_do_not_fit_are_refused(instruction: str) -> None:
    with pytest.raises(BadInput):
        apply_edits(parse_instruction(instruction), SOURCE)


def reply(folder: Path, question: str, after: Image.Image) -> str:
    render(scene_of(SOURCE), SIZE).save(folder / "source.png")
    after.save(folder / "edited.png")
    sample = Sample(prompt_id="0", seed=0, text="", image_path="edited.png", sha256="")
    prompt = Prompt(prompt_id="0", text="", seeds=[0], outputs=["edited.png"])
    asked = Question(key="marks", kind="text", text=question, parts=["text", "source", "sample"])
    (found,) = ShapeworldJudge().answer(
        [JudgeTask(prompt, sample, folder / "edited.png", folder / "source.png", asked)]
    )
    return found.text


def test_imgedit_marks_come_on_lines_and_never_exceed_the_first(tmp_path: Path) -> None:
    question = marks_question("remove the ring", LABELS)
    good, untouched = render(scene_of({3: ("bar", "blue")}), SIZE), render(scene_of(SOURCE), SIZE)
    assert reply(tmp_path, question, good) == "Done: 5\nClean: 5\nKept: 5"
    assert reply(tmp_path, question, untouched) == "Done: 1\nClean: 1\nKept: 1"
    assert reply(tmp_path, question, render(Scene(()), SIZE)) == "Done: 5\nClean: 5\nKept: 4"


def test_gedit_scores_come_as_json(tmp_path: Path) -> None:
    question = edit_scores_question("remove the ring")
    good, empty = render(scene_of({3: ("bar", "blue")}), SIZE), render(Scene(()), SIZE)
    assert json.loads(reply(tmp_path, question, good))["score"] == [10, 10]
    assert json.loads(reply(tmp_path, question, empty))["score"] == [10, 7]


def test_quality_falls_with_damage(tmp_path: Path) -> None:
    good = render(Scene((Thing("ring", "red", 0), Thing("bar", "blue", 3))), SIZE)
    smudged = np.asarray(good).copy()
    smudged[:8, 20:28] = COLOURS["red"]
    pictures = [good, good.filter(ImageFilter.GaussianBlur(1.5)), Image.fromarray(smudged)]
    scores = [json.loads(reply(tmp_path, PICTURE_SCORES_FORM, picture))["score"] for picture in pictures]
    assert scores[0] == [10, 10]
    assert scores[1][0] < 10
    assert scores[2][1] < scores[2][0] < 10


def test_a_plain_ground_is_clean_and_empty() -> None:
    readings = read_cells(Image.new("RGB", (SIZE, SIZE), BACKGROUND))
    assert [(reading.finding, reading.cleanness()) for reading in readings] == [(None, 1.0)] * 4
