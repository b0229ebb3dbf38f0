"""Every tensor and loss that DeepSeek's Janus code produced, reproduced by our code paths.

A set is a folder of RECA_GOLDENS/models whose name begins with the word ``janus``; all sizes come from its config.json.
Field descriptions: the README beside each set. Rule: |a - b| <= 1e-4 max(1, max|expected|), integers equal, gradient
norms within 1e-3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import JanusConfig, JanusForConditionalGeneration, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from reca_core.models.janus import sampler, sequence, vq
from reca_core.models.janus.chat import TokenIds
from reca_core.models.janus.checkpoint import build, export_deepseek, to_deepseek, to_native
from reca_core.models.unified import Condition
from reca_core.objectives import next_token
from reca_core.objectives.loss_sum import LossSum
from tests.conftest import golden_folder

pytestmark = pytest.mark.goldens

TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
NO_END = -1
LOSSES = ("derived_i2t", "derived_t2i", "derived_recon")


def janus_sets() -> list[Path]:
    """Folders whose first word is janus; one absent folder, so that the marker can say so, where there is no data."""
    models = golden_folder() / "models"
    if not golden_folder().is_dir():
        return [models / "janus"]
    return sorted(path for path in models.iterdir() if re.split(r"[^a-z0-9]", path.name.lower())[0] == "janus")


@pytest.fixture(scope="module", params=janus_sets(), ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def configuration(sizes: dict[str, Any]) -> JanusConfig:
    """A set's config.json as transformers' configuration."""
    vision, codes, text = sizes["vision"], sizes["vq"], sizes["llm"]
    return JanusConfig(
        text_config=LlamaConfig(**text),
        vision_config=JanusVisionConfig(
            hidden_size=vision["width"],
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["heads"],
            mlp_ratio=vision["mlp_ratio"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            projection_dim=text["hidden_size"],
            num_image_tokens=sizes["num_und_tokens"],
        ),
        vq_config=JanusVQVAEConfig(
            num_embeddings=codes["codebook_size"],
            embed_dim=codes["codebook_embed_dim"],
            base_channels=codes["ch"],
            channel_multiplier=codes["ch_mult"],
            num_res_blocks=codes["num_res_blocks"],
            latent_channels=codes["z_channels"],
            projection_dim=text["hidden_size"],
            image_token_embed_dim=sizes["image_token_embed"],
        ),
        tie_word_embeddings=text["tie_word_embeddings"],
    )


class Golden:
    """One set: its tensors, and what our code makes of its inputs."""

    def __init__(self, folder: Path) -> None:
        self.sizes = json.loads((folder / "config.json").read_text())
        self.weights = load_file(folder / "weights.safetensors")
        self.inputs = load_file(folder / "inputs.safetensors")
        self.expected = load_file(folder / "expected.safetensors")
        self.network = build(configuration(self.sizes), to_native(self.weights), folder).eval()
        self.computed = self._compute()

    def rows(self, prefix: str) -> list[list[int]]:
        """Unpadded rows of ids; picture positions hold an id that no text uses."""
        ids, attention = self.inputs[f"{prefix}input_ids"].clone(), self.inputs[f"{prefix}attention_mask"]
        ids[ids < 0] = self.image_id
        return [row[seen.bool()].tolist() for row, seen in zip(ids, attention, strict=True)]

    @property
    def image_id(self) -> int:
        used = {int(i) for name, ids in self.inputs.items() if "ids" in name for i in ids.flatten()}
        return next(i for i in range(self.sizes["llm"]["vocab_size"]) if i not in used | {self.sizes["pad_id"]})

    @property
    def ids(self) -> TokenIds:
        return TokenIds(self.sizes["pad_id"], NO_END, NO_END, NO_END, NO_END, self.image_id)

    @property
    def understanding(self) -> Tensor:
        return self.features.pooler_output

    @property
    def features(self) -> Any:
        return self.network.model.get_image_features(self.inputs["pixel_values_und"].flatten(0, 1))

    def condition(self, prefix: str, picture: bool) -> Condition:
        seen = self.understanding if picture else None
        return sequence.embed_rows(self.network, self.rows(prefix), self.ids, seen)

    def _compute(self) -> dict[str, Tensor]:
        """Our value for every forward tensor."""
        with torch.no_grad():
            return self._tokenizer() | self._understood() | self._drawn("t2i") | self._drawn("recon") | self._sampled()

    def _tokenizer(self) -> dict[str, Tensor]:
        model, pixels = self.network.model.vqmodel, self.inputs["pixel_values_gen"]
        codes, raw = vq.encode_pixels(model, pixels), vq.pre_quantised(model, pixels)
        return {
            "vq.pre_quant": raw,
            "vq.codes": codes,
            "vq.quant": vq.quantised(model, codes, raw.shape[2]),
            "vq.decoded": vq.decode_codes(model, codes),
        }

    def _understood(self) -> dict[str, Tensor]:
        whole = self.condition("", picture=True)
        states = sequence.hidden_states(self.network, whole)
        first = whole.embeddings[:1, whole.attention[0].bool()]
        count = self.expected["gen_text.tokens"].shape[1]
        replies = sampler.greedy_text(self.network, first, end=NO_END, max_tokens=count)
        return {
            "und.siglip": self.features.last_hidden_state,
            "und.embeddings": self.understanding,
            "und.inputs_embeds": whole.embeddings,
            "und.lm_logits": self.network.lm_head(states),
            "gen_text.tokens": torch.tensor(replies),
        }

    def _drawn(self, kind: str) -> dict[str, Tensor]:
        codes = vq.encode_pixels(self.network.model.vqmodel, self.inputs["pixel_values_gen"])
        condition = self.condition(f"{kind}.", picture=kind == "recon")
        whole = sequence.with_codes(self.network, condition, codes)
        return {
            f"{kind}.inputs_embeds": whole.embeddings,
            f"{kind}.position_ids": sequence.position_ids(whole.attention),
            f"{kind}.last_hidden_state": sequence.hidden_states(self.network, whole),
            f"{kind}.image_logits": sequence.image_logits(self.network, condition, codes),
        }

    def _sampled(self) -> dict[str, Tensor]:
        noise, settings = self.inputs["sample.exp_noise"], self.sizes["sample"]
        prompts = [self.inputs["sample.prompt_ids"].tolist()] * noise.shape[1]
        null = sequence.null_prompts(prompts, self.ids)
        steps, trace = iter(noise), list[Tensor]()
        codes = sampler.draw_tokens(
            self.network,
            sequence.embed_rows(self.network, prompts, self.ids).embeddings,
            sequence.embed_rows(self.network, null, self.ids).embeddings,
            tokens=len(noise),
            guidance_scale=settings["cfg_weight"],
            temperature=settings["temperature"],
            noise=lambda _: next(steps),
            observe=trace.append,
        )
        pairs = [row for pair in zip(prompts, null, strict=True) for row in pair]
        return {
            "sample.prompt_tokens": torch.tensor(pairs),
            "sample.logits": torch.stack(trace, dim=1),
            "sample.tokens": codes,
            "sample.image": vq.decode_codes(self.network.model.vqmodel, codes),
        }

    def answer_loss(self) -> LossSum:
        labels = self.inputs["labels"]
        answers = [row[row >= 0] for row in labels]
        logits = sequence.answer_logits(self.network, self.condition("", picture=True), [len(a) for a in answers])
        return next_token.cross_entropy(logits, torch.cat(answers))

    def drawing_loss(self, kind: str) -> LossSum:
        codes = vq.encode_pixels(self.network.model.vqmodel, self.inputs["pixel_values_gen"])
        condition = self.condition(f"{kind}.", picture=kind == "recon")
        return next_token.cross_entropy(sequence.image_logits(self.network, condition, codes), codes)

    @cache  # noqa: B019 (two or three sets live until the module ends)
    def loss(self, name: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss, and the gradient of every parameter under DeepSeek's names (zeros where there is none)."""
        kind = name.removeprefix("derived_")
        self.network.zero_grad(set_to_none=True)
        loss = (self.answer_loss() if kind == "i2t" else self.drawing_loss(kind)).mean()
        loss.backward()
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.network.named_parameters()}
        return loss.detach(), to_deepseek(gradients)


def visible(golden: Golden, name: str) -> Callable[[Tensor], Tensor]:
    """Language-model outputs are compared where the attention mask is 1: padded positions mean nothing."""
    masks = {"und.lm_logits": golden.inputs["attention_mask"]}
    for kind in ("t2i", "recon"):
        tokens = golden.expected[f"{kind}.image_logits"].shape[1] - 1
        masks[f"{kind}.last_hidden_state"] = F.pad(golden.inputs[f"{kind}.attention_mask"], (0, tokens), value=1)
    return (lambda tensor: tensor[masks[name].bool()]) if name in masks else (lambda tensor: tensor)


def test_every_expected_tensor_is_reproduced(golden: Golden) -> None:
    wrong = []
    for name, expected in golden.expected.items():
        if name.startswith(LOSSES):
            continue
        select = visible(golden, name)
        ours, theirs = select(golden.computed[name]), select(expected)
        if theirs.is_floating_point():
            limit = TOLERANCE * max(1.0, theirs.abs().max().item())
            fits = ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= limit)
        else:
            fits = torch.equal(ours.long(), theirs.long())
        wrong += [] if fits else [name]
    assert not wrong


def test_every_loss_is_reproduced(golden: Golden) -> None:
    names = [name for name in golden.expected if name.startswith(LOSSES) and "grad_norm" not in name]
    assert names
    for name in names:
        loss, _ = golden.loss(name.removesuffix(".loss"))
        limit = TOLERANCE * max(1.0, abs(golden.expected[name].item()))
        assert abs(loss.item() - golden.expected[name].item()) <= limit, name


def test_every_gradient_norm_is_reproduced(golden: Golden) -> None:
    names = [name for name in golden.expected if "grad_norm" in name]
    assert names
    for name in names:
        kind, _, parameter = name.partition(".grad_norm/")
        norm = golden.loss(kind)[1][parameter].norm().item()
        assert norm == pytest.approx(golden.expected[name].item(), rel=GRADIENT_TOLERANCE), name


def test_renaming_to_native_and_back_is_the_identity(golden: Golden) -> None:
    back = export_deepseek(to_native(golden.weights), golden.weights)
    assert list(back) == list(golden.weights)
    assert all(torch.equal(back[name], golden.weights[name]) for name in back)


def test_the_network_holds_exactly_the_renamed_weights(golden: Golden) -> None:
    native = to_native(golden.weights)
    network: JanusForConditionalGeneration = golden.network
    assert network.state_dict().keys() == native.keys()
    assert all(torch.equal(tensor, native[name]) for name, tensor in network.state_dict().items())
