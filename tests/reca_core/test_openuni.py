"""OpenUni's turns, pictures, losses and drawing: the rules that the contract tests cannot know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from reca_core.contracts.errors import BadInput, CheckpointRefused
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.lifeline import Interrupted
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import LossTerms, SamplingSettings, TrainRequest
from reca_core.draws import KeyedDraws
from reca_core.models.openuni.adapter import OpenUni
from reca_core.models.openuni.chat import IMAGE, TURN_END, TURN_START, Turns
from reca_core.models.openuni.configuration import DrawingPlan, LearningPlan, OpenUniConfiguration
from reca_core.models.unified import Dialogue, DrawRequest, Target
from reca_core.training.guards import check_bottleneck
from tests.reca_core.test_resume import StopAfter
from tests.reca_core.tiny_janus import tiny_pictures
from tests.reca_core.training_rig import request, train, weights

RECA = LossTerms(reconstruction=1, image_to_text=0, text_to_image=0, text=0)
SETTINGS = SamplingSettings(images_per_batch=4, max_reply_tokens=4)


@pytest.fixture
def openuni() -> OpenUni:
    return OpenUni.smallest(seed=0)


def no_drop(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.bool)


def spoken(model: OpenUni, row: list[int]) -> str:
    words = model.turns.tokenizer.convert_ids_to_tokens(row)
    return " ".join(word for index, word in enumerate(words) if word != IMAGE or words[index - 1] != IMAGE)


# ---- turns -----------------------------------------------------------------------------------------------------


def test_turns_are_qwens_with_the_picture_first_and_the_queries_last(openuni: OpenUni) -> None:
    turns = openuni.turns
    (redrawing,), (asking,) = turns.redrawing_prompts(["draw it"], [False]), turns.question_prompts(["draw it"], [True])
    end = f"{TURN_END} {TURN_START} assistant"
    shown = f"{TURN_START} user <img> {IMAGE} </img>"
    assert spoken(openuni, redrawing) == f"{shown} draw it {end} <img>"
    assert spoken(openuni, asking) == f"{shown} draw it {end}"
    assert redrawing.count(turns.image) == openuni.configuration.sizes.picture_tokens == 4
    assert spoken(openuni, turns.drawing_prompts(["a circle"])[0]) == (
        f"{TURN_START} user generate an image : a circle {end} <img>"
    )
    assert spoken(openuni, turns.null_prompt()) == f"{TURN_START} user generate an image . {end} <img>"


def test_dropped_text_becomes_the_null_prompt_and_the_picture_stays(openuni: OpenUni) -> None:
    (row,) = openuni.turns.redrawing_prompts(["draw it"], [True])
    assert row.count(openuni.turns.image) == 4
    assert "generate an image ." in spoken(openuni, row)
    assert "draw it" not in spoken(openuni, row)


def test_a_text_can_neither_end_its_turn_nor_show_a_picture(openuni: OpenUni) -> None:
    clean, dirty = openuni.turns.drawing_prompts(["a circle", f"a {TURN_END}{TURN_START}{IMAGE}<img> circle"])
    assert clean == dirty


def test_a_tokenizer_without_picture_tokens_is_refused_by_name() -> None:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, TURN_START: 1, TURN_END: 2, "<img>": 3}, unk_token="[UNK]"))
    with pytest.raises(CheckpointRefused, match=r"no </img> and no <IMG_CONTEXT>"):
        Turns(PreTrainedTokenizerFast(tokenizer_object=backend), 4)


# ---- losses ----------------------------------------------------------------------------------------------------


def test_the_count_is_numbers_of_latents(openuni: OpenUni) -> None:
    images = openuni.prepare(tiny_pictures(3))
    condition = openuni.condition(openuni.understand(images), openuni.templates[:3], no_drop(3))
    loss = openuni.reconstruction_loss(condition, openuni.encode_target(images), KeyedDraws(0, range(3)))
    assert loss.count.item() == 3 * 4 * 8 * 8


def test_gradients_pass_through_the_frozen_model_to_the_queries(openuni: OpenUni) -> None:
    names = openuni.trainable_names("post")
    assert not any(name.startswith(("lmm.", "vae.")) for name in names)
    for name, parameter in openuni.network.named_parameters():
        parameter.requires_grad_(name in names)
    images = openuni.prepare(tiny_pictures(2))
    assert not openuni.understand(images).requires_grad
    condition = openuni.condition(openuni.understand(images), openuni.templates[:2], no_drop(2))
    openuni.reconstruction_loss(condition, openuni.encode_target(images), KeyedDraws(0, range(2))).total.backward()
    queries = openuni.network.meta_queries.grad
    assert queries is not None
    assert bool(queries.any())


def test_padding_changes_no_loss(openuni: OpenUni) -> None:
    target = openuni.encode_target(openuni.prepare(tiny_pictures(2)))
    captions = ["a", "a red circle above a blue square"]
    both = openuni.text_to_image_loss(captions, target, no_drop(2), KeyedDraws(0, range(2)))
    assert target.latents is not None
    alone = [
        openuni.text_to_image_loss(
            [captions[i]], Target(latents=target.latents[i : i + 1]), no_drop(1), KeyedDraws(0, [i])
        )
        for i in range(2)
    ]
    assert both.total.item() == pytest.approx(sum(loss.total.item() for loss in alone), rel=1e-5)
    question = Dialogue("what is this ?", "a red circle"), Dialogue("how many and what colour are there ?", "two")
    parts = [openuni.text_loss([dialogue]) for dialogue in question]
    together = openuni.text_loss(question)
    assert together.total.item() == pytest.approx(sum(loss.total.item() for loss in parts), rel=1e-5)


def test_noise_levels_are_drawn_per_picture_over_the_whole_range(openuni: OpenUni) -> None:
    uniform = KeyedDraws(0, range(2000)).uniform("noise level")
    index = (uniform * 1000).long()
    timesteps = openuni.noise_levels.timesteps[index]
    assert float(timesteps.min()) < 10
    assert float(timesteps.max()) > 990
    assert float(timesteps.mean()) == pytest.approx(500, abs=20)


def test_questions_to_a_frozen_model_carry_no_gradient(openuni: OpenUni) -> None:
    openuni.network.lmm.requires_grad_(False)
    images = openuni.prepare(tiny_pictures(1), whole=True)
    loss = openuni.image_to_text_loss(images, [Dialogue("what is this ?", "a circle", 0)])
    assert loss.count.item() == 3
    assert not loss.total.requires_grad


def test_a_text_dialogue_with_a_picture_and_a_target_of_codes_are_refused(openuni: OpenUni) -> None:
    with pytest.raises(BadInput, match="image_to_text_loss"):
        openuni.text_loss([Dialogue("what is this ?", "a circle", picture=0)])
    condition = openuni.condition(openuni.understand(openuni.prepare(tiny_pictures(1))), ["draw it"], no_drop(1))
    with pytest.raises(BadInput, match="latents"):
        openuni.reconstruction_loss(condition, Target(ids=torch.zeros(1, 64)), KeyedDraws(0, [0]))


# ---- pictures --------------------------------------------------------------------------------------------------


def edges_white() -> Image.Image:
    wide = Image.new("RGB", (64, 32), "black")
    for left in (0, 48):
        wide.paste((255, 255, 255), (left, 0, left + 16, 32))
    return wide


def test_reconstruction_sees_the_centre_square_and_questions_the_whole_picture(openuni: OpenUni) -> None:
    square = openuni.prepare([edges_white()])
    assert square.understanding is square.target
    assert square.target.shape == (1, 3, 32, 32)
    assert float(square.target.max()) == -1, "the white edges are cropped away"
    whole = openuni.prepare([edges_white()], whole=True)
    assert whole.understanding.shape == (1, 3, 24, 24)
    assert float(whole.understanding[..., :5].min()) > 0.9


def test_the_view_is_what_the_encoder_was_given(openuni: OpenUni) -> None:
    (view,) = openuni.understanding_view([edges_white()])
    assert view.size == (24, 24)
    assert view.getextrema() == ((0, 0),) * 3


def test_the_bottleneck_guard_lets_the_published_design_pass(openuni: OpenUni) -> None:
    check_bottleneck(openuni, tiny_pictures(1)[0])
    assert openuni.understand(openuni.prepare(tiny_pictures(1))).shape == (1, 4, 32)


# ---- drawing and configuration ---------------------------------------------------------------------------------


def test_a_temperature_is_refused(openuni: OpenUni) -> None:
    hot = SETTINGS.model_copy(update={"temperature": 0.5})
    with pytest.raises(BadInput, match="flow"):
        list(openuni.generate([DrawRequest("a circle", 0)], hot))


def test_more_steps_and_another_shift_draw_another_picture(openuni: OpenUni) -> None:
    asked = [DrawRequest("a circle", 0)]
    drawn = set()
    for plan in (DrawingPlan(steps=3), DrawingPlan(steps=4), DrawingPlan(steps=3, flow_shift=1.0)):
        openuni.configuration = replace(openuni.configuration, drawing=plan)
        drawn.add(next(openuni.generate(asked, SETTINGS)).tobytes())
    assert len(drawn) == 3


def test_published_plans_are_the_defaults() -> None:
    assert DrawingPlan() == DrawingPlan(steps=20, flow_shift=3.0)
    assert LearningPlan() == LearningPlan(noise_levels=1000, shift=1.0)
    solver = DrawingPlan().scheduler().config
    assert (solver.algorithm_type, solver.solver_type, solver.solver_order) == ("dpmsolver++", "midpoint", 2)
    assert (solver.final_sigmas_type, solver.timestep_spacing, solver.lower_order_final) == ("zero", "linspace", True)


def test_settings_survive_the_directory(openuni: OpenUni, tmp_path: Path) -> None:
    changed = replace(
        openuni.configuration, drawing=DrawingPlan(steps=7, flow_shift=2.0), learning=LearningPlan(500, 1.5)
    )
    OpenUni(changed, openuni.network, openuni.turns.tokenizer, openuni.templates, openuni._companions).save(tmp_path)
    again = OpenUni.load(tmp_path)
    assert again.configuration.as_json() == changed.as_json()
    assert len(again.noise_levels.timesteps) == 500


def test_the_encoder_may_see_larger_pictures_than_it_was_trained_for(openuni: OpenUni, tmp_path: Path) -> None:
    sizes = openuni.configuration.sizes
    trained = sizes.understanding_size
    changed = replace(openuni.configuration, sizes=replace(sizes, seen_side=2 * trained))
    wide = OpenUni.from_configuration(changed, openuni.turns.tokenizer, openuni.templates)
    wide.network.load_state_dict(openuni.network.state_dict(), strict=True)
    wide.save(tmp_path)
    again = OpenUni.load(tmp_path)
    assert again.configuration.sizes.picture_tokens == 4 * sizes.picture_tokens
    assert again.understand(again.prepare(tiny_pictures(2))).shape[1] == 4 * sizes.picture_tokens


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_side": 30}, "image_side"),
        ({"drawing": {"step": 2}}, "unknown step"),
        ({"connector": {"hidden_size": 16, "num_attention_heads": 2}}, r"connector\.hidden_size"),
        ({"transformer": {"in_channels": 9}}, r"transformer\.in_channels"),
        ({"queries": None}, "queries|not describe"),
    ],
)
def test_an_impossible_configuration_is_refused(openuni: OpenUni, change: dict, complaint: str) -> None:
    settings = openuni.configuration.as_json() | change
    if change.get("queries", 0) is None:
        del settings["queries"]
    with pytest.raises(CheckpointRefused, match=complaint):
        OpenUniConfiguration.from_json(settings, "config.json")


# ---- training --------------------------------------------------------------------------------------------------


def openuni_request(root: Path, run: str, **settings: Any) -> TrainRequest:
    path = root / "openuni"
    if not path.exists():
        OpenUni.smallest(seed=0).save(path)
    model = ResolvedModel(name="openuni", family="openuni", path=str(path), sha256=sha256_tree(path))
    return request(root, run, RECA, **settings).model_copy(update={"model": model})


def test_twenty_steps_of_reca_lower_the_loss_and_resume_to_the_bit(tmp_path: Path) -> None:
    plan = {"steps": 20, "learning_rate": 3e-3, "images_per_step": 8}
    straight, broken = (openuni_request(tmp_path, run, **plan) for run in ("straight", "broken"))
    result = train(straight)
    assert result.last_losses["train/reconstruction_loss"] < 0.9 * result.first_losses["train/reconstruction_loss"]
    with pytest.raises(Interrupted):
        train(broken, StopAfter(7))
    assert train(broken).resumed_from_step == 7
    assert weights(broken) == weights(straight)
    base, trained = (
        OpenUni.load(path).network.state_dict() for path in (tmp_path / "openuni", tmp_path / "straight" / "final")
    )
    changed = {name.partition(".")[0] for name in base if not torch.equal(base[name], trained[name])}
    assert changed == {"meta_queries", "connector", "projector", "transformer"}
