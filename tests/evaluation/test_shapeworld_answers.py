"""Questions in words: what the renderer's texts say and what the judge answers from the picture is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.benchmark import JudgeTask
from evaluation.judges.shapeworld import ShapeworldJudge
from evaluation.judges.shapeworld_answers import answer
from evaluation.judges.shapeworld_marks import objects_of
from evaluation.judges.shapeworld_reader import read_cells
from evaluation.records import Question
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world import COLOURS, DESCRIBE_QUESTION, NOTHING, SHAPES, VOCABULARY, YES, Draws, words_of
from reca_core.contracts.world_tasks import DenseItem, dense_items
from reca_core.data.shapeworld import (
    Scene,
    Thing,
    description,
    questions,
    render,
    scene_from_seed,
    scene_of,
    text_questions,
)
from reca_core.data.shapeworld_text import rich_captions

SIZE = 16
CAPTION_START = "the picture shows "


def test_the_judge_answers_every_question_about_a_picture_as_its_scene_does() -> None:
    for seed in range(300):
        scene = scene_from_seed(seed)
        shown = objects_of(read_cells(render(scene, SIZE)))
        pairs = [*questions(scene, seed), (DESCRIBE_QUESTION, description(scene))]
        assert [answer(question, shown) for question, _ in pairs] == [expected for _, expected in pairs]


def said_of(scene: Scene) -> set[str]:
    """Captions that could be made of a scene."""
    captions = {caption.text for seed in range(30) for caption in rich_captions(scene, Draws(seed, "said"))}
    return captions | {description(scene)}


def changed(scene: Scene, draws: Draws) -> Scene:
    """The same shapes, recoloured or moved."""
    recolour, move = draws.choice([(True, False), (False, True), (True, True)])
    cells = draws.sample(range(4), len(scene.objects))
    return Scene(
        tuple(
            Thing(
                thing.shape,
                draws.choice(tuple(COLOURS)) if recolour else thing.colour,
                cells[number] if move else thing.cell,
            )
            for number, thing in enumerate(scene.objects)
        )
    )


def test_a_caption_decides_every_question_that_is_asked_about_it() -> None:
    compared = 0
    for seed in range(60):
        scene = scene_from_seed(seed)
        others = [changed(scene, Draws(seed * 100 + k, "changed")) for k in range(20)]
        said = [(other, said_of(other)) for other in others]
        for text, expected in text_questions(scene, seed):
            caption, question = text.removeprefix(CAPTION_START).split(". ")
            assert answer(question, scene.cells()) == expected
            same = [other for other, captions in said if caption in captions]
            assert [answer(question, other.cells()) for other in same] == [expected] * len(same)
            compared += len(same)
    assert compared > 100


@pytest.fixture(scope="module")
def dense() -> list[DenseItem]:
    return dense_items(1000, 60)


def dense_scene(item: DenseItem) -> Scene:
    return scene_of({cell: (shape, colour) for cell, shape, colour in item.objects})


def test_the_scene_of_a_dense_prompt_answers_all_its_questions_with_yes(dense: list[DenseItem]) -> None:
    for item in dense:
        shown = objects_of(read_cells(render(dense_scene(item), SIZE)))
        assert {answer(row.question, shown) for row in item.rows} == {YES}


def test_another_colour_or_shape_answers_some_question_with_no(dense: list[DenseItem]) -> None:
    for item in dense:
        scene = dense_scene(item)
        thing = scene.objects[0]
        names = {other.colour for other in scene.objects}, {other.shape for other in scene.objects}
        colour = next(name for name in COLOURS if name not in names[0])
        shape = next(name for name in SHAPES if name not in names[1])
        for wrong in (Thing(thing.shape, colour, thing.cell), Thing(shape, thing.colour, thing.cell)):
            shown = Scene((wrong, *scene.objects[1:])).cells()
            said = [answer(row.question, shown) for row in item.rows]
            twins = sum((other.shape, other.colour) == (thing.shape, thing.colour) for other in scene.objects)
            assert "no" in said or twins > 1


def test_dense_prompts_differ_and_parents_stand_before_children(dense: list[DenseItem]) -> None:
    assert len({item.text for item in dense}) == len(dense)
    assert dense_items(1000, 60) == dense
    assert not {item.text for item in dense} & {item.text for item in dense_items(0, 60)}
    for item in dense:
        assert [row.proposition_id for row in item.rows] == list(range(1, len(item.rows) + 1))
        assert all(parent < row.proposition_id for row in item.rows for parent in row.dependency)
        words = {word for row in item.rows for word in words_of(f"{row.text} {row.question}")}
        assert words <= set(VOCABULARY)


@pytest.mark.parametrize("question", ["is there a dog?", "", "is there a ring", "how many ring are there?"])
def test_no_answer_is_invented_for_other_questions(question: str) -> None:
    with pytest.raises(StageFailed, match="no words"):
        answer(question, {})


def test_an_empty_picture_shows_nothing() -> None:
    assert answer(DESCRIBE_QUESTION, {}) == NOTHING
    assert answer("what colour is the ring?", {}) == NOTHING


def test_the_judge_answers_free_text_about_a_picture_file(tmp_path: Path) -> None:
    render(Scene((Thing("ring", "red", 0),)), SIZE).save(tmp_path / "0.png")
    sample = Sample(prompt_id="0", seed=0, text="", image_path="0.png", sha256="")
    prompt = Prompt(prompt_id="0", text="", seeds=[0], outputs=["0.png"])
    asked = [Question(key=text, kind="text", text=text) for text in ("Is there a red ring?", "is there a bar?")]
    tasks = [JudgeTask(prompt, sample, tmp_path / "0.png", None, question) for question in asked]
    assert [reply.text for reply in ShapeworldJudge().answer(tasks)] == ["yes", "no"]
