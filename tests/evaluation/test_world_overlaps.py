"""The overlaps are counted by content: a scene that is trained on is found, a prompt that is said is heard."""

from __future__ import annotations

from evaluation.understanding.scenes import WORLD_PICTURES, _objects
from reca_core.contracts.requests import CaptionSource, ImageSource
from reca_core.contracts.world import Draws
from reca_core.data.captions import ShapeworldCaptions
from reca_core.data.shapeworld import scene_from_seed, scene_of
from tests.evaluation.world_overlaps import ANY_SIDE, also_trained, prompts, said

SPLIT_SEED = 1000


def test_a_prompt_is_heard_where_a_question_holds_it() -> None:
    captions = CaptionSource(seed=500_000)
    question = ShapeworldCaptions(captions, ANY_SIDE).told(3).question
    assert said(captions, 4, {question, "a prompt that nobody says"}) == {question}
    assert said(captions, 3, {question}) == set()


def test_scenes_that_are_asked_about_are_found_among_the_training_pictures() -> None:
    every = (scene_of(_objects(Draws(SPLIT_SEED, f"scenes/{number}"))) for number in range(WORLD_PICTURES))
    asked = next(scene for scene in every if len(scene.objects) == 1)  # of which there are few, so a seed is soon found
    seed = next(seed for seed in range(20_000, 200_000) if scene_from_seed(seed).objects == asked.objects)
    assert also_trained(ImageSource(source="shapeworld", scene_seed=seed, scenes=1), SPLIT_SEED) >= 1


def test_held_back_prompts_are_a_part_of_all() -> None:
    assert prompts(SPLIT_SEED, "position") < prompts(SPLIT_SEED)
