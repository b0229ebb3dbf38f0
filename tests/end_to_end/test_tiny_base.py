"""The bundled tiny bases are what their cards say: they understand the rendered world, and lag in drawing it.

The bounds are those of docs/tiny.md. Everything is measured on seeds that neither training nor tuning used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from evaluation.benchmark import PromptPlan
from evaluation.records import JudgeResult, ScoreRow
from reca_core.contracts.registry import BUNDLED_MODELS
from reca_core.contracts.requests import SamplingSettings
from reca_core.data.shapeworld import questions, render, scene_from_seed
from reca_core.models.load import adapter_class
from reca_core.models.unified import AnswersInText
from tests.end_to_end.measuring import draw_and_judge, model_at

ROOT = Path(__file__).parents[2]
REPORTING_SCENES = range(1_000, 1_256)
QUESTIONS_PER_SCENE, SIDE_PIXELS = 3, 16


@dataclass(frozen=True)
class Bounds:
    """What a base must reach, and what it must stay below so that there is something to gain."""

    family: str
    understands: float
    draws_one_object: float
    lags: float
    largest_bytes: int


BOUNDS = {
    "tiny-janus": Bounds("janus", understands=0.95, draws_one_object=0.90, lags=0.70, largest_bytes=3_000_000),
    "tiny-harmon": Bounds("harmon", understands=0.80, draws_one_object=0.40, lags=0.40, largest_bytes=4_000_000),
    "tiny-openuni": Bounds("openuni", understands=0.70, draws_one_object=0.75, lags=0.40, largest_bytes=4_500_000),
    "tiny-showo": Bounds("showo", understands=0.90, draws_one_object=0.65, lags=0.60, largest_bytes=4_500_000),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=sorted(BUNDLED_MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def scores(name: str, tmp_path_factory: pytest.TempPathFactory) -> JudgeResult:
    plan = PromptPlan(prompts_per_tag=24, pictures_per_prompt=2, first_seed=1000)
    model = model_at(ROOT / BUNDLED_MODELS[name], BOUNDS[name].family)
    return draw_and_judge(model, tmp_path_factory.mktemp("base"), plan, SamplingSettings(images_per_batch=128))


def value(row: ScoreRow) -> float:
    assert row.value is not None
    assert row.n_scored == row.n_expected
    return row.value


def test_the_weights_are_small_enough_to_ship(name: str) -> None:
    assert (
        sum(file.stat().st_size for file in (ROOT / BUNDLED_MODELS[name]).glob("*.safetensors"))
        <= BOUNDS[name].largest_bytes
    )


def test_it_answers_questions_about_scenes_it_never_saw(name: str) -> None:
    adapter = adapter_class(BOUNDS[name].family).load(ROOT / BUNDLED_MODELS[name])
    assert isinstance(adapter, AnswersInText)
    scenes = [(scene_from_seed(seed), seed) for seed in REPORTING_SCENES]
    asked = [
        (render(scene, SIDE_PIXELS), *pair)
        for scene, seed in scenes
        for pair in questions(scene, seed)[:QUESTIONS_PER_SCENE]
    ]
    pictures, texts, answers = zip(*asked, strict=True)
    replies = adapter.describe(pictures, texts, SamplingSettings())
    exact = [reply == answer for reply, answer in zip(replies, answers, strict=True)]
    assert sum(exact) / len(exact) >= BOUNDS[name].understands


def test_it_draws_a_single_object(name: str, scores: JudgeResult) -> None:
    assert value(scores.tables["corrected"].rows["single_object"]) >= BOUNDS[name].draws_one_object


def test_it_lags_in_drawing(name: str, scores: JudgeResult) -> None:
    assert value(scores.tables["corrected"].rows["overall"]) <= BOUNDS[name].lags
