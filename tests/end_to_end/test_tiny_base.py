"""The bundled tiny Janus is what it says: it understands the rendered world, and lags in drawing it.

The three bounds are those of docs/tiny.md. Everything is measured on seeds that neither training nor tuning used.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.benchmark import PromptPlan
from evaluation.records import JudgeResult, ScoreRow
from reca_core.contracts.registry import BUNDLED_MODELS
from reca_core.contracts.requests import SamplingSettings
from reca_core.data.shapeworld import questions, render, scene_from_seed
from reca_core.models.janus.adapter import Janus
from tests.end_to_end.measuring import draw_and_judge, janus_at

ROOT = Path(__file__).parents[2]
TINY = ROOT / BUNDLED_MODELS["tiny-janus"]
LARGEST_BYTES = 3_000_000
REPORTING_SCENES = range(1_000, 1_256)
UNDERSTANDS, DRAWS_ONE_OBJECT, LAGS = 0.95, 0.90, 0.70
SIDE_PIXELS = 16


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> JudgeResult:
    plan = PromptPlan(prompts_per_tag=24, pictures_per_prompt=2, first_seed=1000)
    return draw_and_judge(janus_at(TINY), tmp_path_factory.mktemp("base"), plan, SamplingSettings(images_per_batch=128))


def value(row: ScoreRow) -> float:
    assert row.value is not None
    assert row.n_scored == row.n_expected
    return row.value


def test_the_weights_are_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in TINY.glob("*.safetensors")) <= LARGEST_BYTES


def test_it_answers_questions_about_scenes_it_never_saw() -> None:
    adapter = Janus.load(TINY)
    scenes = [(scene_from_seed(seed), seed) for seed in REPORTING_SCENES]
    asked = [(render(scene, SIDE_PIXELS), *pair) for scene, seed in scenes for pair in questions(scene, seed)[:3]]
    replies = adapter.describe(
        [picture for picture, _, _ in asked], [question for _, question, _ in asked], SamplingSettings()
    )
    exact = [reply == answer for reply, (_, _, answer) in zip(replies, asked, strict=True)]
    assert sum(exact) / len(exact) >= UNDERSTANDS


def test_it_draws_a_single_object(scores: JudgeResult) -> None:
    assert value(scores.tables["corrected"].rows["single_object"]) >= DRAWS_ONE_OBJECT


def test_it_lags_in_drawing(scores: JudgeResult) -> None:
    assert value(scores.tables["corrected"].rows["overall"]) <= LAGS
