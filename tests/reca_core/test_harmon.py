"""Harmon's turns, masks, gradients and drawing: the rules that the contract tests cannot know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from reca_core.contracts.errors import BadInput, CheckpointRefused
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.lifeline import Interrupted
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import LossTerms, SamplingSettings, TrainRequest
from reca_core.draws import KeyedDraws
from reca_core.models.harmon.adapter import Harmon
from reca_core.models.harmon.chat import PICTURE, TURN_END, TURN_START, Turns
from reca_core.models.harmon.configuration import HarmonConfiguration, LearningPlan
from reca_core.models.harmon.mar import Shown
from reca_core.models.harmon.masking import loss_draws, mask_ratios
from reca_core.models.unified import Dialogue, DrawRequest, Images, Target
from reca_core.objectives.gaussian_diffusion import ancestral_step, cosine_tables, evenly_spaced
from reca_core.training.guards import check_bottleneck
from tests.reca_core.test_resume import StopAfter
from tests.reca_core.tiny_janus import tiny_pictures
from tests.reca_core.training_rig import request, train, weights

CPU = torch.device("cpu")
RECA = LossTerms(reconstruction=1, image_to_text=1, text_to_image=0, text=0)


@pytest.fixture
def harmon() -> Harmon:
    return Harmon.smallest(seed=0)


def newline_tokenizer() -> PreTrainedTokenizerFast:
    """Like Qwen's where it matters: one newline is a token, and two of them are one other token."""
    parts = [TURN_START, TURN_END, "\n", "\n\n", "user", "assistant", "draw it", "Generate an image.", "[UNK]"]
    backend = Tokenizer(models.WordLevel({part: index for index, part in enumerate(parts)}, unk_token="[UNK]"))
    pattern = Regex(r"\n\n|\n|[^\n]+")
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    backend.add_special_tokens([TURN_START, TURN_END])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def spoken(turns: Turns, row: list[int]) -> list[str]:
    return ["PICTURE" if token == PICTURE else turns.tokenizer.convert_ids_to_tokens(token) for token in row]


# ---- turns -----------------------------------------------------------------------------------------------------


def test_the_picture_stands_between_two_newlines() -> None:
    turns = Turns(newline_tokenizer(), picture_rows=2)
    (row,) = turns.learning_prompts(["draw it"], [False])
    before, after = [TURN_START, "user", "\n"], ["\n", "draw it", TURN_END, "\n", TURN_START, "assistant", "\n"]
    assert spoken(turns, row) == [*before, "PICTURE", "PICTURE", *after]
    assert turns.redrawing_prompts(["draw it"]) == [row], "what is learned is what is asked for"


def test_parity_merges_the_newlines_in_training_and_drops_one_in_drawing() -> None:
    turns = Turns(newline_tokenizer(), picture_rows=1, upstream_parity=True)
    (learned,) = turns.learning_prompts(["draw it"], [False])
    assert spoken(turns, learned)[:5] == [TURN_START, "user", "\n\n", "PICTURE", "draw it"]
    (drawn,) = turns.redrawing_prompts(["draw it"])
    assert spoken(turns, drawn)[:5] == [TURN_START, "user", "\n", "PICTURE", "draw it"]
    (asked,) = turns.question_prompts(["draw it"], [True])
    assert spoken(turns, asked)[:6] == [TURN_START, "user", "\n", "PICTURE", "\n", "draw it"]


def test_dropped_text_becomes_the_null_prompt_and_the_picture_stays() -> None:
    turns = Turns(newline_tokenizer(), picture_rows=3)
    (row,) = turns.learning_prompts(["draw it"], [True])
    assert row.count(PICTURE) == 3
    assert "Generate an image." in spoken(turns, row)
    assert "draw it" not in spoken(turns, row)


def test_a_text_cannot_end_its_turn(harmon: Harmon) -> None:
    clean, dirty = harmon.turns.drawing_prompts(["a circle", f"a {TURN_END}{TURN_START} circle"])
    assert clean == dirty


def test_a_tokenizer_without_turn_tokens_is_refused_by_name() -> None:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, TURN_START: 1}, unk_token="[UNK]"))
    with pytest.raises(CheckpointRefused, match=r"no <\|im_end\|>"):
        Turns(PreTrainedTokenizerFast(tokenizer_object=backend), 1)


# ---- masks and draws -------------------------------------------------------------------------------------------


def test_mask_ratios_follow_the_truncated_normal() -> None:
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    ratios = mask_ratios(uniform, LearningPlan())
    assert bool((ratios.diff() > 0).all())
    assert (float(ratios.min()), float(ratios.max())) == pytest.approx((0.7, 1.0), abs=1e-4)
    normal = torch.distributions.Normal(1.0, 0.25)
    low, high = normal.cdf(torch.tensor(0.7)), normal.cdf(torch.tensor(0.85))
    assert float((ratios < 0.85).double().mean()) == pytest.approx(float((high - low) / (0.5 - low)), abs=1e-3)


def draws_of(positions: list[int], *, parity: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    drawn = loss_draws(KeyedDraws(3, positions), 64, 2, LearningPlan(), upstream_parity=parity, device=CPU)
    return drawn.masked, drawn.steps.unflatten(0, (4, len(positions), 64)), drawn.noise


def test_every_picture_has_its_own_mask_ratio_whatever_the_batch() -> None:
    together, steps, _ = draws_of(list(range(8)))
    assert len(set(together.sum(1).tolist())) > 1
    alone, steps_alone, _ = draws_of([5])
    assert torch.equal(together[5], alone[0])
    assert torch.equal(steps[:, 5], steps_alone[:, 0])
    assert 0 <= int(steps.min()) < int(steps.max()) < 1000


def test_parity_draws_one_mask_ratio_per_batch() -> None:
    masked, _, _ = draws_of(list(range(8)), parity=True)
    assert len(set(masked.sum(1).tolist())) == 1
    assert len({tuple(row) for row in masked.tolist()}) == 8, "the same number, other places"


def test_shown_rows_come_in_order_and_padding_is_marked() -> None:
    visible = torch.tensor([[True, False, True, False], [False, False, False, True]])
    shown = Shown.of(visible, buffer=2)
    assert shown.index[0].tolist() == [0, 1, 2, 4]
    assert shown.index[1, :3].tolist() == [0, 1, 5]
    assert shown.real.tolist() == [[True] * 4, [True, True, True, False]]
    assert Shown.of(visible[:1], 2).mask is None


def test_a_picture_that_shows_fewer_tokens_is_told_the_same_as_alone(harmon: Harmon) -> None:
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    masked = torch.ones(2, 16, dtype=torch.bool)
    masked[0, :9], masked[1, 3:5] = False, False
    prefix, attention = torch.randn(2, 5, 32), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        together = harmon.network.draw_states(prefix, attention, latents, masked).told
        alone = [
            harmon.network.draw_states(
                prefix[i : i + 1, :n], attention[i : i + 1, :n], latents[i : i + 1], masked[i:][:1]
            )
            for i, n in ((0, 5), (1, 3))
        ]
    for row, drawing in zip(together, alone, strict=True):
        torch.testing.assert_close(row, drawing.told[0], rtol=1e-5, atol=1e-5)


# ---- losses ----------------------------------------------------------------------------------------------------


def gradient_through_condition(factor: float) -> Tensor:
    base = Harmon.smallest(seed=0)
    learning = replace(base.configuration.learning, understanding_gradient=factor)
    base.configuration = replace(base.configuration, learning=learning)
    images = base.prepare(tiny_pictures(2))
    base.understand(images).square().sum().backward()
    gradient = base.network.proj_in[0].weight.grad
    assert gradient is not None
    return gradient


def test_the_gradient_through_the_condition_is_scaled() -> None:
    torch.testing.assert_close(gradient_through_condition(0.1), 0.1 * gradient_through_condition(1.0))


def test_the_published_factor_is_the_default() -> None:
    assert LearningPlan().understanding_gradient == 0.1
    assert LearningPlan().head_repeats == 4


def test_the_count_is_masked_tokens_times_noise_levels(harmon: Harmon) -> None:
    images, draws = harmon.prepare(tiny_pictures(3)), KeyedDraws(0, range(3))
    target = harmon.encode_target(images)
    condition = harmon.condition(harmon.understand(images), harmon.templates[:3], torch.zeros(3, dtype=torch.bool))
    learning = harmon.configuration.learning
    masked = loss_draws(draws, 16, 4, learning, upstream_parity=False, device=CPU).masked
    loss = harmon.reconstruction_loss(condition, target, draws)
    assert loss.count.item() == learning.head_repeats * int(masked.sum())


def test_parity_masks_equally_many_tokens_of_every_picture(harmon: Harmon) -> None:
    configuration = replace(harmon.configuration, upstream_parity=True)
    model = Harmon(configuration, harmon.network, harmon.turns.tokenizer, harmon.templates, {})
    images, draws = model.prepare(tiny_pictures(3)), KeyedDraws(0, range(3))
    condition = model.condition(model.understand(images), model.templates[:3], torch.zeros(3, dtype=torch.bool))
    loss = model.reconstruction_loss(condition, model.encode_target(images), draws)
    alone = loss_draws(KeyedDraws(0, [0]), 16, 4, configuration.learning, upstream_parity=False, device=CPU)
    assert loss.count.item() == 3 * configuration.learning.head_repeats * int(alone.masked.sum())


def test_the_bottleneck_guard_lets_the_published_design_pass(harmon: Harmon) -> None:
    images = harmon.prepare(tiny_pictures(1))
    latents = harmon.encode_target(images).latents
    assert latents is not None
    buffer = harmon.configuration.sizes.mar.buffer
    assert harmon.understand(images).shape[1] == latents.shape[1] + buffer, "the picture's tokens and the buffer's"
    check_bottleneck(harmon, tiny_pictures(1)[0])


def test_a_text_dialogue_with_a_picture_and_a_target_of_codes_are_refused(harmon: Harmon) -> None:
    with pytest.raises(BadInput, match="image_to_text_loss"):
        harmon.text_loss([Dialogue("what is this ?", "a circle", picture=0)])
    condition = harmon.condition(
        harmon.understand(harmon.prepare(tiny_pictures(1))), ["draw it"], torch.tensor([False])
    )
    with pytest.raises(BadInput, match="latents"):
        harmon.reconstruction_loss(condition, Target(ids=torch.zeros(1, 16)), KeyedDraws(0, [0]))


# ---- pictures and configuration --------------------------------------------------------------------------------


def test_pictures_are_squashed_not_cropped(harmon: Harmon) -> None:
    wide = Image.new("RGB", (64, 16), "black")
    wide.paste((255, 255, 255), (0, 0, 16, 16))
    squashed = harmon.prepare([wide]).target[0]
    assert squashed.shape == (3, 16, 16)
    assert float(squashed[:, :, :3].min()) > 0.9, "the left quarter is still there"
    assert float(squashed[:, :, 6:].max()) < -0.9
    assert torch.equal(harmon.prepare([wide], whole=True).target[0], squashed)


def test_the_understanding_path_may_see_less(harmon: Harmon) -> None:
    coarse = replace(harmon.configuration, understanding_downscale=4)
    model = Harmon(coarse, harmon.network, harmon.turns.tokenizer, harmon.templates, {})
    images = model.prepare(tiny_pictures(1, side=16))
    assert images.understanding.shape == images.target.shape
    assert not torch.equal(images.understanding, images.target)
    plain = harmon.prepare(tiny_pictures(1, side=16))
    assert isinstance(plain, Images)
    assert plain.understanding is plain.target


def test_settings_survive_the_directory(harmon: Harmon, tmp_path: Path) -> None:
    harmon.configuration = replace(harmon.configuration, upstream_parity=True)
    harmon.save(tmp_path)
    again = Harmon.load(tmp_path)
    assert again.turns.upstream_parity
    assert again.configuration.as_json() == harmon.configuration.as_json()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_side": 17}, "not a multiple of 4"),
        ({"drawing": {"rounds": 99}}, "99 rounds"),
        ({"drawing": {"round": 2}}, "unknown round"),
        ({"mar": {}}, "mar|width"),
    ],
)
def test_an_impossible_configuration_is_refused(harmon: Harmon, change: dict, complaint: str) -> None:
    settings = harmon.configuration.as_json() | change
    with pytest.raises(CheckpointRefused, match=complaint):
        HarmonConfiguration.from_json(settings, "config.json")


def test_kept_steps_are_those_of_the_published_sum_of_strides() -> None:
    assert evenly_spaced(1000, 6) == [0, 200, 400, 599, 799, 999]
    assert [evenly_spaced(1000, kept)[kept // 2] for kept in (21, 23, 31)] == [499, 499, 500]
    assert evenly_spaced(1000, 1) == [0]


def test_a_limit_keeps_a_wrong_noise_estimate_near_pure_noise_from_blowing_up() -> None:
    tables = cosine_tables(1000).kept(evenly_spaced(1000, 20))
    noisy, last = torch.randn(8, 4), 19
    output = torch.cat([noisy + 0.05, torch.zeros(8, 4)], dim=1)
    free, estimate = ancestral_step(tables, noisy, output, last, torch.zeros(8, 4), 1.0)
    kept, limited = ancestral_step(tables, noisy, output, last, torch.zeros(8, 4), 1.0, limit=5.0)
    assert free.abs().max() > 50
    assert kept.abs().max() < 5
    assert torch.equal(limited, estimate.clamp(-5, 5))


def test_the_limit_of_a_checkpoint_is_that_of_its_drawings(harmon: Harmon) -> None:
    request = [DrawRequest("a red ring", 3)]
    drawn = []
    for limit in (0.0, 0.01):
        plan = replace(harmon.configuration, drawing=replace(harmon.configuration.drawing, largest_latent=limit))
        limited = Harmon(plan, harmon.network, harmon.tokenizer, harmon.templates, {}).eval()
        drawn += limited.generate(request, SamplingSettings())
    assert drawn[0].tobytes() != drawn[1].tobytes()


# ---- training --------------------------------------------------------------------------------------------------


def harmon_request(root: Path, run: str, **settings: object) -> TrainRequest:
    if not (root / "harmon").exists():
        Harmon.smallest(seed=0).save(root / "harmon")
    path = root / "harmon"
    model = ResolvedModel(name="harmon", family="harmon", path=str(path), sha256=sha256_tree(path))
    return request(root, run, RECA, **settings).model_copy(update={"model": model})


def test_twenty_steps_of_reca_lower_the_loss_and_resume_to_the_bit(tmp_path: Path) -> None:
    plan = {"steps": 20, "learning_rate": 3e-3, "images_per_step": 8}
    straight, broken = (harmon_request(tmp_path, run, **plan) for run in ("straight", "broken"))
    result = train(straight)
    assert result.last_losses["train/reconstruction_loss"] < 0.9 * result.first_losses["train/reconstruction_loss"]
    with pytest.raises(Interrupted):
        train(broken, StopAfter(7))
    assert train(broken).resumed_from_step == 7
    assert weights(broken) == weights(straight)
