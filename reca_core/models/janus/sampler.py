"""Drawing image tokens one after another with classifier-free guidance, and greedy text: both on a growing cache.

transformers' ``generate`` ignores pictures in image mode and refuses embeddings, so reconstruction needs this loop.
Guidance is ``u + scale (c - u)`` (DeepSeek's generation code); a token is ``argmax(p / E)`` with E exponential, the
same law as a multinomial draw, but keyed per picture.

A picture must not depend on its neighbours: rows of one pass have equal length, so nothing is padded, and a pass never
has fewer than ``MIN_ROWS`` rows, because matrix products of fewer rows take other kernels that round differently
(measured on x86 with torch 2.13: equal bits from 16 rows on).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, JanusForConditionalGeneration

from reca_core.models.grouping import filled_rows

MIN_ROWS = 16
MIN_PICTURES = 2
"""The convolutions of the image decoder: equal bits from 2 pictures on."""

Noise = Callable[[int], Float[Tensor, "batch codebook"]]
"""Exponential draws of one step, for every picture of the batch; called with the number of classes."""
Observer = Callable[[Float[Tensor, "batch codebook"]], None]
"""Sees the guided logits of every step, for tests and traces."""


class CachedDecoder:
    """A language model that remembers what it was fed: prefix first, then one embedding per row and step."""

    def __init__(self, network: JanusForConditionalGeneration) -> None:
        self.network = network
        self.cache = DynamicCache()

    def feed(self, embeddings: Float[Tensor, "rows length width"]) -> Float[Tensor, "rows width"]:
        """Hidden state after the last of the fed positions."""
        output = self.network.model.language_model(inputs_embeds=embeddings, past_key_values=self.cache, use_cache=True)
        state: Tensor = output.last_hidden_state[:, -1]
        return state


def guided_logits(
    network: JanusForConditionalGeneration, states: Float[Tensor, "rows width"], batch: int, scale: float
) -> Float[Tensor, "batch codebook"]:
    """Logits of the first ``batch`` rows; with guidance the second half of the rows is unconditional."""
    logits: Tensor = network.model.generation_head(states).float()
    if scale == 1.0:
        return logits[:batch]
    conditional, unconditional = rearrange(logits, "(two b) k -> two b k", two=2)[:, :batch]
    return unconditional + scale * (conditional - unconditional)


@torch.no_grad()
def draw_tokens(
    network: JanusForConditionalGeneration,
    prefix: Float[Tensor, "batch length width"],
    null_prefix: Float[Tensor, "batch length width"],
    *,
    tokens: int,
    guidance_scale: float,
    temperature: float,
    noise: Noise,
    observe: Observer | None = None,
) -> Int[Tensor, "batch tokens"]:
    """Draw ``tokens`` codes after each prefix. ``null_prefix`` is read only if ``guidance_scale`` is not 1."""
    batch, guided = len(prefix), guidance_scale != 1.0
    at_least = MIN_ROWS // 2 if guided else MIN_ROWS
    rows = filled_rows(prefix, at_least)
    inputs = torch.cat([rows, filled_rows(null_prefix, at_least)]) if guided else rows
    decoder, drawn = CachedDecoder(network), []
    for _ in range(tokens):
        logits = guided_logits(network, decoder.feed(inputs), batch, guidance_scale)
        if observe is not None:
            observe(logits)
        drawn.append(race(logits / temperature, noise(logits.shape[-1]).to(logits.device)))
        following = network.prepare_embeddings_for_image_generation(filled_rows(drawn[-1], at_least)[:, None])
        inputs = (torch.cat([following, following]) if guided else following).to(prefix.dtype)
    return torch.stack(drawn, dim=1)


def race(logits: Float[Tensor, "batch classes"], exponentials: Float[Tensor, "batch classes"]) -> Int[Tensor, " batch"]:
    """``argmax(softmax(logits) / E)``, in logarithms so that no probability underflows."""
    tiny = torch.finfo(exponentials.dtype).tiny
    return (logits - exponentials.clamp(min=tiny).log()).argmax(-1)


@torch.no_grad()
def greedy_text(
    network: JanusForConditionalGeneration,
    prefix: Float[Tensor, "batch length width"],
    *,
    end: int,
    max_tokens: int,
) -> list[list[int]]:
    """The likeliest continuation of every row, up to but without ``end``."""
    batch, decoder, inputs = len(prefix), CachedDecoder(network), filled_rows(prefix, MIN_ROWS)
    chosen: list[Tensor] = []
    running = torch.ones(batch, dtype=torch.bool, device=prefix.device)
    for _ in range(max_tokens):
        tokens = network.lm_head(decoder.feed(inputs)).argmax(-1)
        chosen.append(tokens[:batch])
        running = running & (chosen[-1] != end)
        if not bool(running.any()):
            break
        inputs = network.get_input_embeddings()(tokens)[:, None]
    return [_until(row, end) for row in torch.stack(chosen, dim=1).tolist()]


def _until(row: Sequence[int], end: int) -> list[int]:
    return list(row[: row.index(end)]) if end in row else list(row)
