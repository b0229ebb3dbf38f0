"""Every tensor and loss that DeepSeek's Janus code produced, reproduced by our code paths.

A set is a folder of RECA_GOLDENS/models whose name begins with the word ``janus``; all sizes come from its config.json.
Field descriptions: the README beside each set; tolerances: golden_models.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import JanusForConditionalGeneration

from reca_core.models.janus import sampler, sequence, upstream, vq
from reca_core.models.janus.chat import TokenIds
from reca_core.models.janus.checkpoint import UNUSED, build, to_deepseek, to_native
from reca_core.models.unified import Condition
from reca_core.objectives import next_token
from reca_core.objectives.loss_sum import LossSum
from tests.parity.golden_models import GRADIENT_TOLERANCE, ZERO_GRADIENT, Expected, GoldenSet, golden_sets

pytestmark = pytest.mark.goldens

NO_TOKEN = -1
LOSSES = {"derived_i2t": "i2t", "derived_t2i": "t2i", "derived_recon": "recon"}


@pytest.fixture(scope="module", params=golden_sets("janus"))
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


class Golden:
    """One set: its tensors, and what our code makes of its inputs."""

    def __init__(self, golden: GoldenSet) -> None:
        self.sizes = golden.config
        self.weights, self.inputs = golden.tensors("weights"), golden.tensors("inputs")
        self.expected = Expected(golden)
        self.network = build(upstream.recorded_configuration(self.sizes), to_native(self.weights), golden.folder).eval()

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
        return TokenIds(self.sizes["pad_id"], NO_TOKEN, NO_TOKEN, NO_TOKEN, NO_TOKEN, self.image_id)

    @property
    def understanding(self) -> Tensor:
        return self.features.pooler_output

    @property
    def features(self) -> Any:
        return self.network.model.get_image_features(self.inputs["pixel_values_und"].flatten(0, 1))

    def condition(self, prefix: str, picture: bool) -> Condition:
        seen = self.understanding if picture else None
        return sequence.embed_rows(self.network, self.rows(prefix), self.ids, seen)

    def computed(self) -> dict[str, Tensor]:
        """Our value for every forward tensor."""
        with torch.no_grad():
            drawn = self._drawn("t2i") | self._drawn("recon")
            return self._tokenizer() | self._understood() | drawn | self._sampled()

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
        replies = sampler.greedy_text(self.network, first, end=NO_TOKEN, max_tokens=count)
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

    def loss(self, kind: str) -> LossSum:
        """Through the text head for i2t, through the image head otherwise."""
        if kind == "i2t":
            return self._answer_loss()
        codes = vq.encode_pixels(self.network.model.vqmodel, self.inputs["pixel_values_gen"])
        condition = self.condition(f"{kind}.", picture=kind == "recon")
        return next_token.cross_entropy(sequence.image_logits(self.network, condition, codes), codes)

    def _answer_loss(self) -> LossSum:
        """Labels that end their row are an answer, our only case; others are scored over the whole sequence."""
        labels, whole = self.inputs["labels"], self.condition("", picture=True)
        lengths = [int((row >= 0).sum()) for row in labels]
        if all((row[len(row) - length :] >= 0).all() for row, length in zip(labels, lengths, strict=True)):
            return next_token.cross_entropy(sequence.answer_logits(self.network, whole, lengths), labels[labels >= 0])
        logits = self.network.lm_head(sequence.hidden_states(self.network, whole))
        shifted = labels[:, 1:]
        return next_token.cross_entropy(logits[:, :-1], shifted.masked_fill(shifted < 0, next_token.IGNORED))

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """Of every parameter, under DeepSeek's names; zeros where there is none."""
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        named = self.network.named_parameters()
        return to_deepseek({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named})

    def visible(self, name: str, ours: Tensor) -> Tensor:
        """Ours, with the recorded values where a row is padding: language-model outputs there mean nothing."""
        kind, _, what = name.partition(".")
        if what not in ("lm_logits", "last_hidden_state"):
            return ours
        mask = self.inputs["attention_mask" if kind == "und" else f"{kind}.attention_mask"]
        mask = F.pad(mask, (0, ours.shape[1] - mask.shape[1]), value=1)
        return torch.where(mask.bool().unsqueeze(-1), ours, self.expected[name])


def test_every_recorded_tensor_is_reproduced(golden: Golden) -> None:
    recorded = {name for name in golden.expected.tensors if name.partition(".")[0] not in LOSSES}
    computed = golden.computed()
    assert recorded <= computed.keys()
    for name in sorted(recorded):
        golden.expected.agree(name, golden.visible(name, computed[name]).to(golden.expected[name].dtype))


@pytest.mark.parametrize("name", LOSSES)
def test_every_recorded_loss_and_gradient_norm_is_reproduced(golden: Golden, name: str) -> None:
    loss = golden.loss(LOSSES[name]).mean()
    if f"{name}.loss" in golden.expected:
        golden.expected.agree(f"{name}.loss", loss.detach())
    gradients = golden.gradients(loss)
    for key, theirs in golden.expected.tensors.items():
        prefix, _, parameter = key.partition(".grad_norm/")
        if prefix == name:
            limit = pytest.approx(theirs.item(), rel=GRADIENT_TOLERANCE, abs=ZERO_GRADIENT)
            assert gradients[parameter].norm().item() == limit, key


def test_renaming_to_native_and_back_is_the_identity(golden: Golden) -> None:
    back = to_deepseek(to_native(golden.weights))
    assert {name for name in golden.weights if not UNUSED.fullmatch(name)} == set(back)
    assert all(torch.equal(back[name], golden.weights[name]) for name in back)


def test_the_network_holds_exactly_the_renamed_weights(golden: Golden) -> None:
    native = to_native(golden.weights)
    network: JanusForConditionalGeneration = golden.network
    assert network.state_dict().keys() == native.keys()
    assert all(torch.equal(tensor, native[name]) for name, tensor in network.state_dict().items())
