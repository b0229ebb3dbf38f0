"""Show-o equals the original in every recorded tensor: tokenizer, embeddings, sequences, masks, losses, drawing.

Order of operations and names: the README beside the recorded numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reca_core.models.showo import checkpoint, sampler, upstream
from reca_core.models.showo.magvit import bit_entropy, commitment
from reca_core.models.showo.network import ShowoNetwork
from reca_core.models.showo.pictures import smaller
from reca_core.models.showo.sequence import (
    ClipLayout,
    DrawingLayout,
    RedrawingLayout,
    SpecialIds,
    VqLayout,
    image_part,
    padded_right,
)
from reca_core.objectives import masked_token, next_token
from tests.parity.golden_models import Expected, GoldenSet, golden_sets

pytestmark = pytest.mark.goldens
DROP_BELOW = 0.1


@dataclass(frozen=True)
class Bench:
    """One recorded set, built and loaded."""

    config: dict[str, Any]
    network: ShowoNetwork
    inputs: dict[str, Tensor]
    expected: Expected
    special: SpecialIds
    max_text: int
    codes: Tensor

    def texts(self, name: str) -> list[list[int]]:
        return [self.inputs[f"{name}.text.{row}"].tolist() for row in range(self.config["B"])]

    def masked(self, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the image places, compared with the recorded ones."""
        share = masked_token.cosine_share(self.inputs[f"{name}.t"])
        self.expected.agree(f"{name}.mask_prob", share)
        chosen = masked_token.choose_masked(self.inputs[f"{name}.rand"], share, upstream_parity=True)
        image_ids = self.codes + self.special.image
        shown = image_ids.masked_fill(chosen, self.special.mask)
        self.expected.agree(f"{name}.masked_tokens", shown)
        return shown, image_ids.masked_fill(~chosen, next_token.IGNORED)

    def parameters(self) -> dict[str, nn.Parameter]:
        named = dict(self.network.named_parameters())
        return {
            checkpoint.upstream_name(name): parameter
            for name, parameter in named.items()
            if name.startswith(("language_model.", "projector."))
        }

    def understanding(self) -> Tensor:
        assert self.network.projector is not None
        return self.network.projector(self.network.clip_features(self.seen()))

    def seen(self) -> Tensor:
        """What CLIP sees of the target in the published training."""
        return smaller(self.inputs["pixel_values"], self.network.sizes.clip_side)

    def logits(self, name: str, ids: Tensor, may_attend: Tensor, pictures: Tensor | None = None) -> Tensor:
        """Logits of a sequence whose ids and mask are compared on the way, as far as they are recorded."""
        for key, ours in (("input_ids", ids), ("attn_allowed", may_attend)):
            if f"{name}.{key}" in self.expected:
                self.expected.agree(f"{name}.{key}", ours)
        embeddings = self.network.embed(ids, pictures)
        if f"{name}.inputs_embeds" in self.expected:
            self.expected.agree(f"{name}.inputs_embeds", embeddings)
        logits = self.network.logits(self.network.states(embeddings, may_attend))
        self.expected.agree(f"{name}.logits", logits)
        return logits

    def opened(self, layout: RedrawingLayout, texts: list[list[int]], shown: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask of an opening with the image after it."""
        opening = layout.openings(texts)
        allowed = layout.mask((opening != self.special.pad).long(), shown.shape[1])
        return torch.cat([opening, image_part(shown, self.special)], dim=1), allowed


def without(ids: Tensor, value: int) -> Tensor:
    """Labels of ids: everything but padding."""
    return ids.masked_fill(ids == value, next_token.IGNORED)


def given(ids: Tensor, codes: Tensor) -> Tensor:
    """A sequence with the picture's own ids in its place."""
    return ids.masked_scatter(ids == next_token.IGNORED, codes)


@lru_cache
def bench(golden: GoldenSet) -> Bench:
    config = golden.config
    found = upstream.find(golden.folder)
    network = ShowoNetwork(found.configuration.sizes).eval()
    network.load_state_dict(checkpoint.from_upstream(found.state), strict=True)
    inputs = golden.tensors("inputs")
    special = SpecialIds.from_sizes(
        config["showo"]["llm_vocab_size"], config["showo"]["vocab_size"], config["bos"], config["bos"]
    )
    with torch.no_grad():
        codes = network.tokenizer.encode(inputs["pixel_values"])
    return Bench(config, network, inputs, Expected(golden), special, config["max_seq_length"], codes)


@pytest.fixture(params=golden_sets("showo"))
def case(request: pytest.FixtureRequest) -> Bench:
    return bench(request.param)


def test_special_ids_follow_the_published_vocabulary(case: Bench) -> None:
    ids = case.special
    ours = [ids.pad, ids.soi, ids.eoi, ids.t2i, ids.mmu, ids.bos, ids.eos, ids.mask, ids.image]
    case.expected.agree("special_ids", torch.tensor(ours))


def test_the_image_tokenizer_encodes_and_decodes(case: Bench) -> None:
    tokenizer = case.network.tokenizer
    encoded = tokenizer.encoder(case.inputs["pixel_values"])
    case.expected.agree("vq.encoder_out", encoded)
    case.expected.agree("vq.z_q", tokenizer.signs(encoded))
    case.expected.agree("vq.codes", case.codes)
    case.expected.agree("vq.decoded", tokenizer.decode(case.codes, encoded.shape[-2]))


def test_the_quantiser_has_its_two_terms(case: Bench) -> None:
    encoded = case.network.tokenizer.encoder(case.inputs["pixel_values"])
    case.expected.agree("vq.quantizer_loss", commitment(encoded).mean())
    case.expected.agree("vq.entropy_loss", bit_entropy(encoded))


def test_the_picture_reaches_the_language_model(case: Bench) -> None:
    if case.network.projector is None:  # a set of the VQ variant, which has no tower
        assert "und.embeddings" not in case.expected
        return
    case.expected.agree("clip.resized", case.seen())
    case.expected.agree("clip.features", case.network.clip_features(case.seen()))
    case.expected.agree("und.embeddings", case.understanding())


def test_drawing_and_asking_losses_and_their_gradients(case: Bench) -> None:
    drawn = drawing_loss(case)
    case.expected.agree("t2i.loss", drawn)
    if "mmu.loss" not in case.expected:
        return
    asked = asking_loss(case)
    case.expected.agree("mmu.loss", asked)
    case.expected.agree_gradients("t2i_plus_mmu", drawn + asked, case.parameters())


def drawing_loss(case: Bench) -> Tensor:
    shown, labels = case.masked("t2i")
    dropped = case.inputs["t2i.cond_drop_rand"] < DROP_BELOW
    texts = [[] if drop else text for text, drop in zip(case.texts("t2i"), dropped.tolist(), strict=True)]
    ids, allowed = case.opened(DrawingLayout(case.special, case.max_text), texts, shown)
    start = ids.shape[1] - shown.shape[1] - 2
    counted = image_part(labels, case.special)
    case.expected.agree("t2i.labels", torch.cat([without(ids[:, :start], case.special.pad), counted], dim=1))
    return next_token.cross_entropy(case.logits("t2i", ids, allowed)[:, start:], counted).mean()


def asking_loss(case: Bench) -> Tensor:
    patches = case.expected["und.embeddings"].shape[1]
    systems, texts = case.inputs["mmu.system_ids"].tolist(), case.inputs["mmu.input_ids"].tolist()
    layouts = [ClipLayout(case.special, case.max_text, patches, system) for system in systems]
    ids = torch.tensor([layout.questions([text])[0] for layout, text in zip(layouts, texts, strict=True)])
    labels = torch.full_like(ids, next_token.IGNORED)
    labels[:, -len(texts[0]) :] = case.inputs["mmu.labels"]
    case.expected.agree("mmu.labels_full", labels)
    assert case.network.projector is not None
    pictures = case.network.projector(case.network.clip_features(case.inputs["mmu.clip_pixels"]))
    logits = case.logits("mmu", ids, layouts[0].question_mask(*ids.shape), pictures)
    return next_token.cross_entropy(logits[:, :-1], labels[:, 1:]).mean()


def image_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return next_token.cross_entropy(logits[:, -1 - labels.shape[1] : -1], labels).mean()


def test_reconstruction_from_clip_and_its_gradients(case: Bench) -> None:
    if "recon_clip.loss" not in case.expected:
        return
    shown, labels = case.masked("recon_clip")
    pictures = case.understanding()
    layout = ClipLayout(case.special, case.max_text, pictures.shape[1])
    ids, allowed = case.opened(layout, case.texts("recon_clip"), shown)
    start = ids.shape[1] - shown.shape[1] - 2
    ours = torch.cat([without(ids[:, :start], case.special.pad), image_part(labels, case.special)], dim=1)
    case.expected.agree("recon_clip.labels", ours)
    loss = image_loss(case.logits("recon_clip", ids, allowed, pictures), labels)
    case.expected.agree("recon_clip.loss", loss)
    case.expected.agree_gradients("recon_clip_full", loss, case.parameters())
    frozen = case.network.embed(ids, pictures).detach()
    detached = image_loss(case.network.logits(case.network.states(frozen, allowed)), labels)
    case.expected.agree_gradients("recon_clip", detached, case.parameters())


def test_reconstruction_from_smaller_image_ids_and_its_gradients(case: Bench) -> None:
    shown, labels = case.masked("recon_vq")
    pixels = case.inputs["pixel_values"]
    seen = case.network.codes(smaller(pixels, pixels.shape[-1] // 2)) + case.special.image
    case.expected.agree("recon_vq.given_tokens", seen)
    layout = VqLayout(case.special, case.max_text, seen.shape[1], shown.shape[1])
    ids, allowed = case.opened(layout, case.texts("recon_vq"), shown)
    ours = torch.full_like(ids, next_token.IGNORED)
    ours[:, -1 - labels.shape[1] : -1] = labels
    case.expected.agree("recon_vq.labels", ours)
    loss = image_loss(case.logits("recon_vq", given(ids, seen), allowed), labels)
    case.expected.agree("recon_vq.loss", loss)
    case.expected.agree_gradients("recon_vq", loss, case.parameters())


def test_questions_about_image_ids_and_their_gradients(case: Bench) -> None:
    tokens, room = case.codes.shape[1], case.max_text
    layout = VqLayout(case.special, case.max_text, tokens, tokens)
    rows = layout.questions([[*text[: room - 2], case.special.eos] for text in case.texts("mmu_vq")])
    ids = given(padded_right(rows, tokens + 3 + room, case.special.pad), case.codes + case.special.image)
    labels = without(ids, case.special.pad)
    labels[:, : tokens + 3] = next_token.IGNORED
    case.expected.agree("mmu_vq.labels", labels)
    logits = case.logits("mmu_vq", ids, layout.question_mask(*ids.shape))
    loss = next_token.cross_entropy(logits[:, :-1], labels[:, 1:]).mean()
    case.expected.agree("mmu_vq.loss", loss)
    case.expected.agree_gradients("mmu_vq", loss, case.parameters())


@dataclass
class RecordedChance:
    """The recorded random numbers, round after round."""

    exponentials: Tensor
    uniforms: Tensor
    step: int = -1

    def codes(self, probabilities: Tensor) -> Tensor:
        self.step += 1
        return (probabilities / self.exponentials[self.step].view(probabilities.shape)).argmax(-1)

    def uniform(self, tokens: int) -> Tensor:
        assert tokens == self.uniforms.shape[-1]
        return self.uniforms[self.step]


def test_drawing_traces(case: Bench) -> None:
    settings, rounds = case.config["sample"], list[sampler.Round]()
    layout, tokens = DrawingLayout(case.special, case.max_text), case.codes.shape[1]
    blank = torch.full((len(case.texts("sample")), tokens), case.special.mask)
    empty: list[list[int]] = [[] for _ in blank]
    sides = [case.opened(layout, texts, blank) for texts in (case.texts("sample"), empty)]
    case.expected.agree("sample.cond_ids", sides[0][0])
    case.expected.agree("sample.uncond_ids", sides[1][0])
    case.expected.agree("sample.attn_allowed", torch.cat([allowed for _, allowed in sides]))
    drawn, null = [
        sampler.Opening(case.network.embed(ids[:, : ids.shape[1] - tokens - 2]), allowed) for ids, allowed in sides
    ]
    codes = sampler.draw_tokens(
        case.network,
        drawn,
        null,
        case.special,
        tokens=tokens,
        rounds=settings["timesteps"],
        guidance_scale=1 + settings["guidance_scale"],
        temperature=settings["temperature"],
        chance=RecordedChance(case.inputs["sample.exp_noise"], case.inputs["sample.uniform"]),
        observe=rounds.append,
    )
    case.expected.agree("sample.step_inputs", torch.stack([trace.inputs for trace in rounds]))
    case.expected.agree("sample.step_logits", torch.stack([trace.logits for trace in rounds]))
    case.expected.agree("sample.tokens", codes)
    rows = math.isqrt(tokens)
    case.expected.agree("sample.image", case.network.tokenizer.decode(codes, rows))


def test_greedy_text(case: Bench) -> None:
    if "gen_text.tokens" not in case.expected:
        return
    prefix = case.expected["gen_text.inputs_embeds"]
    allowed = case.expected["mmu.attn_allowed"][:1, :, : prefix.shape[1], : prefix.shape[1]]
    tokens = case.expected["gen_text.tokens"]
    replies = sampler.greedy_text(case.network, prefix, allowed, end=-1, max_tokens=len(tokens))
    assert replies == [tokens.tolist()]
