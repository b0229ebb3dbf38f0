"""Show-o's wording, sequences, masks, variants and drawing: the rules that the contract tests cannot know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from reca_core.contracts.errors import BadInput, CheckpointRefused
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.lifeline import Interrupted
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import LossTerms, SamplingSettings, TrainRequest
from reca_core.draws import DrawStream, KeyedDraws, picture_stream
from reca_core.models.showo.adapter import Showo
from reca_core.models.showo.chat import QUESTION, VQ_QUESTION, Wording
from reca_core.models.showo.configuration import ShownPicture, ShowoConfiguration
from reca_core.models.showo.magvit import bit_entropy
from reca_core.models.showo.sampler import KeyedChance, _mask_again
from reca_core.models.showo.smallest import BITS, END
from reca_core.models.unified import Dialogue, DrawRequest, RedrawRequest, Target
from reca_core.objectives.next_token import IGNORED
from reca_core.training.guards import check_bottleneck
from tests.reca_core.test_resume import StopAfter
from tests.reca_core.tiny_janus import tiny_pictures
from tests.reca_core.training_rig import request, train, weights

RECA = LossTerms(reconstruction=1, image_to_text=1, text_to_image=0, text=0)
SETTINGS = SamplingSettings(images_per_batch=4, max_reply_tokens=4)
VARIANTS = pytest.mark.parametrize("clip", [True, False], ids=["clip", "vq"])


@pytest.fixture
def showo() -> Showo:
    return Showo.smallest(seed=0)


def changed(model: Showo, **settings: Any) -> Showo:
    """The same weights under another configuration."""
    configuration = replace(model.configuration, **settings)
    return Showo(configuration, model.network, model.wording.tokenizer, model.templates, {})


def spoken(model: Showo, row: list[int]) -> str:
    names = {value: name for name, value in vars(model.special).items() if name != "bos"} | {IGNORED: "PICTURE"}
    words = [names.get(token) or str(model.wording.tokenizer.convert_ids_to_tokens(token)) for token in row]
    kept = [word for index, word in enumerate(words) if word not in words[index - 1 : index]]
    return " ".join(kept)


def no_drop(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.bool)


# ---- wording and sequences -------------------------------------------------------------------------------------


def test_turns_are_worded_as_the_published_checkpoints_heard_them(showo: Showo) -> None:
    heard: list[str] = []
    tokenizer = showo.wording.tokenizer

    class Ear:
        bos_token_id = eos_token_id = 0
        all_special_tokens = (END,)

        def __call__(self, text: str, add_special_tokens: bool) -> Any:
            heard.append(text)
            return tokenizer(text, add_special_tokens=add_special_tokens)

        def __len__(self) -> int:
            return 7

    for question in (QUESTION, VQ_QUESTION):
        wording = Wording(Ear(), 7, 34, question)  # type: ignore[arg-type]
        wording.questions(["how many ?"])
    wording.instructions(["draw it"])
    wording.captions(["a circle"])
    wording.answers(["two"])
    questions = ["USER: how many ? ASSISTANT:", "USER: \nhow many ? ASSISTANT:"]
    assert heard == [*questions, "USER: \n draw it ASSISTANT:", "a circle", " two"]


@VARIANTS
def test_sequences_have_the_published_order(clip: bool) -> None:
    model = Showo.smallest(clip=clip)
    (text,) = model.wording.instructions(["draw it"])
    redrawing = spoken(model, model.picture_layout.openings([text])[0].tolist())
    asking = spoken(model, model.picture_layout.questions([text])[0])
    drawing = spoken(model, model.drawing.openings([text])[0].tolist())
    said = "user : draw it assistant :"
    assert drawing == f"pad t2i eos {said} eos"
    if clip:
        assert redrawing == f"mmu soi PICTURE eoi eos {said} eos pad"
        assert asking == f"mmu answer what is there . soi PICTURE eoi {said}"
    else:
        assert redrawing == f"pad mmu soi PICTURE eoi eos {said} eos"
        assert asking == f"mmu soi PICTURE eoi eos {said}"


@VARIANTS
def test_openings_have_one_length_and_long_texts_are_cut(clip: bool) -> None:
    model = Showo.smallest(clip=clip)
    for kind in (model.drawing, model.picture_layout):
        short, long = kind.openings([[], [1] * 500])
        assert len(short) == len(long)
        assert int(long.eq(model.special.pad).sum()) == 0
        assert spoken(model, long.tolist()).endswith("eos")


def test_a_text_cannot_end_its_turn(showo: Showo) -> None:
    clean, dirty = showo.wording.captions(["a circle", f"a {END} circle"])
    assert clean == dirty


def test_a_tokenizer_of_another_size_is_refused(showo: Showo) -> None:
    with pytest.raises(CheckpointRefused, match="counts its image tokens from 9"):
        Wording(showo.wording.tokenizer, 9, 40, QUESTION)


def test_a_reply_leaves_out_what_has_no_words(showo: Showo) -> None:
    (row,) = showo.wording.captions(["two red"])
    assert showo.wording.reply([*row, showo.special.image, showo.special.mask, showo.special.pad]) == "two red"


# ---- losses ----------------------------------------------------------------------------------------------------


def counts(model: Showo, positions: range) -> float:
    images = model.prepare(tiny_pictures(8)[positions.start : positions.stop])
    target, texts = model.encode_target(images), [model.templates[0]] * len(positions)
    condition = model.condition(model.understand(images), texts, no_drop(len(positions)))
    return model.reconstruction_loss(condition, target, KeyedDraws(3, positions)).count.item()


def test_every_picture_has_its_own_share_of_masked_codes_whatever_the_batch(showo: Showo) -> None:
    alone = [counts(showo, range(index, index + 1)) for index in range(8)]
    assert len(set(alone)) > 2
    assert min(alone) >= 1
    assert max(alone) <= showo.configuration.tokens
    assert counts(showo, range(8)) == sum(alone)


def test_drawing_from_text_counts_the_ends_of_the_picture_too(showo: Showo) -> None:
    target, draws = showo.encode_target(showo.prepare(tiny_pictures(3))), KeyedDraws(3, range(3))
    loss = showo.text_to_image_loss(["a circle"] * 3, target, no_drop(3), draws)
    assert loss.count.item() == counts(showo, range(3)) + 2 * 3


def test_questions_with_and_without_picture_add_up(showo: Showo) -> None:
    images = showo.prepare(tiny_pictures(2), whole=True)
    shown, told = Dialogue("what is this ?", "a red circle", 1), Dialogue("how many ?", "two")
    both = showo.image_to_text_loss(images, [told, shown])
    parts = showo.image_to_text_loss(images, [shown]) + showo.text_loss([told])
    assert both.count.item() == parts.count.item() == len(["a", "red", "circle", "END", "two", "END"])
    assert both.total.item() == pytest.approx(parts.total.item(), rel=1e-6)
    other = showo.image_to_text_loss(images, [replace(shown, picture=0)])
    assert other.total.item() != showo.image_to_text_loss(images, [shown]).total.item()


def test_a_text_dialogue_with_a_picture_and_a_target_of_latents_are_refused(showo: Showo) -> None:
    with pytest.raises(BadInput, match="image_to_text_loss"):
        showo.text_loss([Dialogue("what is this ?", "a circle", picture=0)])
    condition = showo.condition(showo.understand(showo.prepare(tiny_pictures(1))), ["draw it"], no_drop(1))
    with pytest.raises(BadInput, match="image codes"):
        showo.reconstruction_loss(condition, Target(latents=torch.zeros(1, 16, 4)), KeyedDraws(0, [0]))


def gradients(model: Showo) -> dict[str, bool]:
    """Which of the inputs' parameters the reconstruction loss reaches."""
    images = model.prepare(tiny_pictures(2))
    condition = model.condition(model.understand(images), model.templates[:2], no_drop(2))
    model.network.zero_grad()
    model.reconstruction_loss(condition, model.encode_target(images), KeyedDraws(0, range(2))).total.backward()
    words = model.network.language_model.model.embed_tokens.weight
    assert model.network.projector is not None
    return {"words": words.grad is not None, "projector": model.network.projector[0].weight.grad is not None}


def test_parity_keeps_the_gradient_from_the_inputs() -> None:
    assert gradients(Showo.smallest()) == {"words": True, "projector": True}
    assert gradients(changed(Showo.smallest(), upstream_parity=True)) == {"words": False, "projector": False}


# ---- pictures --------------------------------------------------------------------------------------------------


def half_white() -> Image.Image:
    wide = Image.new("RGB", (64, 16), "black")
    wide.paste((255, 255, 255), (0, 0, 16, 16))
    return wide


@VARIANTS
def test_pictures_are_squashed_not_cropped(clip: bool) -> None:
    model = Showo.smallest(clip=clip)
    for whole in (False, True):
        squashed = model.prepare([half_white()], whole=whole).target[0]
        assert squashed.shape == (3, 16, 16)
        assert float(squashed[:, :, :3].min()) > 0.9, "the left quarter is still there"
        assert float(squashed[:, :, 6:].max()) < -0.9


def test_clip_sees_the_same_when_learning_and_when_asked(showo: Showo) -> None:
    learning, asked = (showo.prepare(tiny_pictures(2), whole=whole).understanding for whole in (False, True))
    assert torch.equal(learning, asked)
    white = showo.prepare([Image.new("RGB", (8, 8), "white")]).understanding[0]
    expected = (1 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    torch.testing.assert_close(white.mean((1, 2)), expected)


def test_parity_leaves_out_the_normalisation_when_learning_only(showo: Showo) -> None:
    parity = changed(showo, upstream_parity=True)
    white = Image.new("RGB", (8, 8), "white")
    assert torch.equal(parity.prepare([white]).understanding, torch.ones(1, 3, 8, 8))
    properly = showo.prepare([white]).understanding
    assert torch.equal(parity.prepare([white], whole=True).understanding, properly)
    assert not torch.equal(
        parity.prepare([half_white()], whole=True).understanding, showo.prepare([half_white()]).understanding
    )


@VARIANTS
def test_the_view_shows_the_picture(clip: bool) -> None:
    model = Showo.smallest(clip=clip)
    (view,) = model.understanding_view([half_white()])
    assert view.size == (8, 8)
    assert view.getpixel((0, 4)) == (255, 255, 255)
    assert view.getpixel((7, 4)) == (0, 0, 0)


# ---- the VQ variant --------------------------------------------------------------------------------------------


def vq(**shown: Any) -> Showo:
    model = Showo.smallest(clip=False)
    return changed(model, shown=ShownPicture(**shown)) if shown else model


def test_the_same_codes_at_the_same_resolution_are_refused() -> None:
    with pytest.raises(BadInput, match="copy"):
        check_bottleneck(vq(downscale=1), tiny_pictures(1)[0])
    for shown in ({}, {"downscale": 2, "blurred": True}):
        check_bottleneck(vq(**shown), tiny_pictures(1)[0])
    check_bottleneck(Showo.smallest(), tiny_pictures(1)[0])


def test_a_smaller_picture_has_fewer_codes_and_a_blurred_one_other_codes() -> None:
    plain, blurred = vq(), vq(downscale=4, blurred=True)
    pictures = tiny_pictures(2)
    assert plain.understand(plain.prepare(pictures)).shape[1] == 4
    assert plain.understand(plain.prepare(pictures, whole=True)).shape[1] == 16
    images = blurred.prepare(pictures)
    assert blurred.understand(images).shape[1] == 16
    assert not torch.equal(images.understanding, images.target)


def test_the_vq_variant_trains_every_declared_parameter() -> None:
    model = vq()
    names = model.trainable_names("post")
    assert names
    assert all(name.startswith("language_model.") for name in names)
    images, asked = model.prepare(tiny_pictures(3)), model.prepare(tiny_pictures(3), whole=True)
    condition = model.condition(model.understand(images), model.templates[:3], no_drop(3))
    loss = model.reconstruction_loss(condition, model.encode_target(images), KeyedDraws(0, range(3))).mean()
    (
        loss + model.image_to_text_loss(asked, [Dialogue("what is this ?", "two", row) for row in range(3)]).mean()
    ).backward()
    touched = {n for n, p in model.network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert touched == names


def test_the_vq_variant_draws_redraws_and_answers_whatever_the_batch(tmp_path: Path) -> None:
    model, shown, single = vq(), tiny_pictures(5), SETTINGS.model_copy(update={"images_per_batch": 1})
    vq().save(tmp_path)
    again = Showo.load(tmp_path)
    texts = [model.templates[index % 4] for index in range(5)]
    draws = [DrawRequest(text, seed) for seed, text in enumerate(texts)]
    redraws = [RedrawRequest(p, seed, text) for seed, (p, text) in enumerate(zip(shown, texts, strict=True))]
    assert bytes_of(model.generate(draws, SETTINGS)) == bytes_of(again.generate(draws, single))
    redrawn = bytes_of(model.reconstruct(redraws, SETTINGS))
    assert redrawn == bytes_of(again.reconstruct(redraws, single))
    assert len(set(redrawn)) == 5
    assert model.describe(shown, texts, SETTINGS) == again.describe(shown, texts, single)


def bytes_of(pictures: Any) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


# ---- drawing ---------------------------------------------------------------------------------------------------


def test_codes_are_drawn_by_their_probability() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2]).expand(1, 20_000, 4)
    chance = KeyedChance(picture_stream([("a circle", 0)], "image tokens"))
    drawn = chance.codes(probabilities)[0].bincount(minlength=4) / 20_000
    torch.testing.assert_close(drawn, torch.tensor([0.5, 0.0, 0.3, 0.2]), atol=0.02, rtol=0)
    assert drawn[1] == 0


def test_two_thirds_of_the_way_one_code_fewer_than_half_stays_masked() -> None:
    """The published code counts in float32: of 1024 codes the twelfth of 18 rounds leaves 511, not exactly half."""
    codes, mask = torch.arange(1024)[None], 1024
    again = _mask_again(codes, codes / 1024, torch.ones_like(codes, dtype=torch.bool), 12 / 18, mask)
    assert int((again == mask).sum()) == 511


def test_a_number_just_below_one_still_names_a_code() -> None:
    class Last(KeyedChance):
        def uniform(self, tokens: int) -> Tensor:
            return torch.full((1, tokens), 1 - 2**-24)

    probabilities = torch.full((1, 3, 8192), 1 / 8192)
    assert int(Last(DrawStream([])).codes(probabilities).max()) <= 8191


def test_more_rounds_than_tokens_and_other_impossible_settings_are_refused(showo: Showo, tmp_path: Path) -> None:
    settings = showo.configuration.as_json()
    for change, complaint in (
        ({"image_side": 18}, "not a multiple of 4"),
        ({"drawing": {"rounds": 99}}, "99 rounds"),
        ({"drawing": {"round": 2}}, "unknown round"),
        ({"text_vocabulary": 5}, f"5 of text, 10 special ones, the image codes and the mask are {16 + 2**BITS}"),
        ({"language": {"layers": "many"}}, "not describe|words"),
    ):
        with pytest.raises(CheckpointRefused, match=complaint):
            ShowoConfiguration.from_json(settings | change, "config.json")


@VARIANTS
def test_settings_survive_the_directory(clip: bool, tmp_path: Path) -> None:
    model = changed(Showo.smallest(clip=clip), upstream_parity=True, max_text=30, shown=ShownPicture(4, True))
    companions = Showo.smallest(clip=clip)._companions
    Showo(model.configuration, model.network, model.wording.tokenizer, model.templates, companions).save(tmp_path)
    again = Showo.load(tmp_path)
    assert again.configuration.as_json() == model.configuration.as_json()
    assert again.understanding_space == model.understanding_space


# ---- training --------------------------------------------------------------------------------------------------


def showo_request(root: Path, run: str, *, clip: bool, **settings: object) -> TrainRequest:
    path = root / "showo"
    if not path.exists():
        Showo.smallest(seed=0, clip=clip).save(path)
    model = ResolvedModel(name="showo", family="showo", path=str(path), sha256=sha256_tree(path))
    return request(root, run, RECA, **settings).model_copy(update={"model": model})


@VARIANTS
def test_twenty_steps_of_reca_lower_the_loss_and_resume_to_the_bit(clip: bool, tmp_path: Path) -> None:
    plan = {"steps": 20, "learning_rate": 3e-3, "images_per_step": 8}
    straight, broken = (showo_request(tmp_path, run, clip=clip, **plan) for run in ("straight", "broken"))
    result = train(straight)
    assert result.last_losses["train/reconstruction_loss"] < 0.9 * result.first_losses["train/reconstruction_loss"]
    with pytest.raises(Interrupted):
        train(broken, StopAfter(7))
    assert train(broken).resumed_from_step == 7
    assert weights(broken) == weights(straight)


def test_the_tokenizer_stage_lowers_its_own_loss(showo: Showo) -> None:
    names = showo.trainable_names("tokenizer")
    parameters = [parameter for name, parameter in showo.network.named_parameters() if name in names]
    optimizer, images, seen = torch.optim.AdamW(parameters, lr=3e-3), showo.prepare(tiny_pictures(4)), []
    for _ in range(15):
        optimizer.zero_grad()
        loss = sum(term.mean() for term in showo.tokenizer_loss(images).values())
        assert isinstance(loss, Tensor)
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.8 * seen[0]


def test_bits_that_are_certain_everywhere_have_a_finite_gradient() -> None:
    encoded = torch.full((2, 3, 4, 4), 40.0, requires_grad=True)
    with torch.no_grad():
        encoded[:, 1] = -40.0
    bit_entropy(encoded).backward()
    assert torch.isfinite(encoded.grad).all()
    assert float(bit_entropy(encoded.detach())) == pytest.approx(0.0, abs=1e-4)
