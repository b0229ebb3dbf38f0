"""The scenes benchmark asks what a picture decides, in the world's words, about scenes of its own."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from evaluation.benchmark import PromptPlan
from evaluation.judges.shapeworld_reader import read_picture
from evaluation.records import Finding
from evaluation.understanding.scenes import KINDS, Scenes, world_questions
from reca_core.contracts.errors import BadInput
from reca_core.contracts.world import CELL_NAMES, COUNT_WORDS, GRID, NOTHING, VOCABULARY, words_of

PICTURES = 60


def cell_name(found: Finding, side: float) -> str:
    x, y = ((found.box[axis] + found.box[axis + 2]) / 2 for axis in (0, 1))
    return CELL_NAMES[GRID * int(y / side) + int(x / side)]


def test_questions_and_answers_are_in_the_words_of_the_world_and_of_every_kind() -> None:
    items, sources = world_questions(1000, PICTURES)
    assert {item.tag for item in items} == set(KINDS)
    assert {item.picture for item in items} == set(sources)
    assert {word for item in items for word in words_of(f"{item.question} {item.answer}")} <= set(VOCABULARY)
    assert len({item.prompt_id for item in items}) == len(items)


def test_the_reader_of_pictures_gives_the_same_answers() -> None:
    items, sources = world_questions(1000, PICTURES)
    checked = 0
    for item in items:
        picture = Image.open(io.BytesIO(sources[item.picture].content)).convert("RGB")
        found = [finding for finding in read_picture(picture) if finding.score > 0.9]
        if item.tag == "total":
            assert item.answer == COUNT_WORDS[len(found)]
            checked += 1
        if item.tag == "place":
            cells = {cell_name(one, picture.width / GRID): one for one in found}
            cell = next(name for name in CELL_NAMES if name in item.question)
            expected = f"a {cells[cell].colour} {cells[cell].label}" if cell in cells else NOTHING
            assert item.answer == expected
            checked += 1
    assert checked >= PICTURES


def test_other_seeds_ask_about_other_scenes_and_the_same_seed_about_the_same() -> None:
    first, again, other = (
        [prompt.text for prompt in Scenes.open("scenes.shapeworld", PromptPlan(first_seed=seed), None, "w").prompts()]
        for seed in (1000, 1000, 5)
    )
    assert first == again != other


def test_there_is_no_scenes_benchmark_of_photographs() -> None:
    with pytest.raises(BadInput, match=r"scenes\.shapeworld"):
        Scenes.open("scenes", PromptPlan(), None)
