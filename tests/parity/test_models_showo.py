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
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, PhiConfig

from reca_core.models.showo import checkpoint, sampler, sequence
from reca_core.models.showo.magvit import MagvitConfiguration
from reca_core.models.showo.network import ShowoNetwork
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
    special: sequence.SpecialIds
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
            checkpoint.upstream_name(name)[1]: parameter
            for name, parameter in named.items()
            if name.startswith(("language_model.", "projector."))
        }

    def understanding(self) -> Tensor:
        pixels = self.network.clip_pixels(self.inputs["pixel_values"], upstream_parity=True)
        assert self.network.projector is not None
        return self.network.projector(self.network.clip_features(pixels))

    def logits(self, name: str, built: sequence.TokenSequence, pictures: Tensor | None = None) -> Tensor:
        """Logits of a sequence whose ids, labels and mask are compared on the way, as far as they are recorded."""
        for key, ours in (("input_ids", built.ids), ("labels", built.labels), ("attn_allowed", built.may_attend)):
            if f"{name}.{key}" in self.expected:
                self.expected.agree(f"{name}.{key}", ours)
        embeddings = self.network.embed(built.ids, pictures)
        if f"{name}.inputs_embeds" in self.expected:
            self.expected.agree(f"{name}.inputs_embeds", embeddings)
        logits = self.network.logits(embeddings, built.may_attend)
        self.expected.agree(f"{name}.logits", logits)
        return logits


@lru_cache
def bench(golden: GoldenSet) -> Bench:
    config = golden.config
    sizes = config["vq"]
    magvit = MagvitConfiguration(
        sizes["ch"],
        tuple(sizes["enc_ch_mult"]),
        tuple(sizes["enc_num_res_blocks"]),
        tuple(sizes["dec_ch_mult"]),
        tuple(sizes["dec_num_res_blocks"]),
        sizes["z_channels"],
    )
    phi = PhiConfig(**{**config["phi"], "vocab_size": config["showo"]["vocab_size"], "qk_layernorm": True})
    network = ShowoNetwork(phi, magvit, CLIPVisionConfig(**config["clip"])).eval()
    parts = {part: golden.tensors(part) for part in (checkpoint.WEIGHTS, checkpoint.TOKENIZER, checkpoint.CLIP)}
    network.load_state_dict(checkpoint.from_upstream(parts), strict=True)
    inputs = golden.tensors("inputs")
    special = sequence.SpecialIds.from_sizes(
        config["showo"]["llm_vocab_size"], config["showo"]["vocab_size"], config["bos"]
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


def test_the_picture_reaches_the_language_model(case: Bench) -> None:
    pixels = case.network.clip_pixels(case.inputs["pixel_values"], upstream_parity=True)
    case.expected.agree("clip.resized", pixels)
    case.expected.agree("clip.features", case.network.clip_features(pixels))
    case.expected.agree("und.embeddings", case.understanding())


def test_drawing_and_asking_losses_and_their_gradients(case: Bench) -> None:
    shown, labels = case.masked("t2i")
    dropped = case.inputs["t2i.cond_drop_rand"] < DROP_BELOW
    texts = [[] if drop else text for text, drop in zip(case.texts("t2i"), dropped.tolist(), strict=True)]
    built = sequence.drawing(texts, shown, labels, case.special, case.max_text)
    start = case.max_text + 1
    drawn = next_token.cross_entropy(case.logits("t2i", built)[:, start:], built.labels[:, start:]).mean()
    case.expected.agree("t2i.loss", drawn)

    patches = case.expected["und.embeddings"].shape[1]
    words = (case.inputs["mmu.system_ids"], case.inputs["mmu.input_ids"], case.inputs["mmu.labels"])
    question = sequence.asking_clip(*words, patches, case.special)
    case.expected.agree("mmu.labels_full", question.labels)
    assert case.network.projector is not None
    pictures = case.network.projector(case.network.clip_features(case.inputs["mmu.clip_pixels"]))
    logits = case.logits("mmu", question, pictures)
    asked = next_token.cross_entropy(logits[:, :-1], question.labels[:, 1:]).mean()
    case.expected.agree("mmu.loss", asked)
    case.expected.agree_gradients("t2i_plus_mmu", drawn + asked, case.parameters())


def test_reconstruction_from_clip_and_its_gradients(case: Bench) -> None:
    shown, labels = case.masked("recon_clip")
    pictures = case.understanding()
    built = sequence.redrawing_clip(
        pictures.shape[1], case.texts("recon_clip"), shown, labels, case.special, case.max_text
    )
    logits = case.logits("recon_clip", built, pictures)
    loss = next_token.cross_entropy(logits[:, built.image], built.labels[:, built.image]).mean()
    case.expected.agree("recon_clip.loss", loss)
    case.expected.agree_gradients("recon_clip_full", loss, case.parameters())
    with torch.no_grad():
        frozen = case.network.embed(built.ids, pictures)
    logits = case.network.logits(frozen, built.may_attend)
    detached = next_token.cross_entropy(logits[:, built.image], built.labels[:, built.image]).mean()
    case.expected.agree_gradients("recon_clip", detached, case.parameters())


def test_reconstruction_from_smaller_image_ids_and_its_gradients(case: Bench) -> None:
    shown, labels = case.masked("recon_vq")
    small = F.interpolate(case.inputs["pixel_values"], scale_factor=0.5, mode="bilinear")
    given = case.network.tokenizer.encode(small) + case.special.image
    case.expected.agree("recon_vq.given_tokens", given)
    built = sequence.redrawing_vq(given, case.texts("recon_vq"), shown, labels, case.special, case.max_text)
    logits = case.logits("recon_vq", built)
    loss = next_token.cross_entropy(logits[:, built.image], built.labels[:, built.image]).mean()
    case.expected.agree("recon_vq.loss", loss)
    case.expected.agree_gradients("recon_vq", loss, case.parameters())


def test_questions_about_image_ids_and_their_gradients(case: Bench) -> None:
    built = sequence.asking_vq(case.codes + case.special.image, case.texts("mmu_vq"), case.special, case.max_text)
    logits = case.logits("mmu_vq", built)
    loss = next_token.cross_entropy(logits[:, :-1], built.labels[:, 1:]).mean()
    case.expected.agree("mmu_vq.loss", loss)
    case.expected.agree_gradients("mmu_vq", loss, case.parameters())


def test_drawing_traces(case: Bench) -> None:
    tokens = case.codes.shape[1]
    settings = case.config["sample"]
    blank = torch.full((len(case.texts("sample")), tokens), case.special.mask)
    given = sequence.drawing(case.texts("sample"), blank, blank, case.special, case.max_text)
    empty = sequence.drawing([[] for _ in blank], blank, blank, case.special, case.max_text)
    case.expected.agree("sample.cond_ids", given.ids)
    case.expected.agree("sample.uncond_ids", empty.ids)
    case.expected.agree("sample.attn_allowed", torch.cat([given.may_attend, empty.may_attend]))
    noise, uniform = case.inputs["sample.exp_noise"], case.inputs["sample.uniform"]
    rounds: list[sampler.Round] = []
    codes = sampler.draw_tokens(
        case.network,
        given,
        empty,
        case.special,
        rounds=settings["timesteps"],
        guidance=settings["guidance_scale"],
        temperature=settings["temperature"],
        draws=lambda step: sampler.RoundDraws(noise[step].view(len(blank), tokens, -1), uniform[step]),
        observe=rounds.append,
    )
    case.expected.agree("sample.step_inputs", torch.stack([trace.inputs for trace in rounds]))
    case.expected.agree("sample.step_logits", torch.stack([trace.logits for trace in rounds]))
    case.expected.agree("sample.tokens", codes)
    rows = math.isqrt(tokens)
    case.expected.agree("sample.image", case.network.tokenizer.decode(codes, rows))


def test_greedy_text(case: Bench) -> None:
    prefix = case.expected["gen_text.inputs_embeds"]
    allowed = case.expected["mmu.attn_allowed"][:1, :, : prefix.shape[1], : prefix.shape[1]]
    tokens = case.expected["gen_text.tokens"]
    reply = sampler.greedy_text(case.network, prefix, allowed, end=-1, max_tokens=len(tokens))
    assert reply == tokens.tolist()
