"""Drawing with Harmon: tokens appear in random order, a few more each round, each denoised by the head.

MAR decoding (arXiv 2406.11838, section 3.4) with the language model in the loop. The prefix (condition) is read once;
each round the visible tokens are appended and forgotten again. Guidance acts on the head's noise estimate.

The published code reads the prefix without a mask, so padding is computed with it and hidden only later;
recorded traces need the same, and it costs nothing because hidden rows are never seen.

A picture must not depend on its neighbours. Its rows of the head may be few, and matrix products of few rows take other
kernels that round differently, so the head never gets fewer than ``MIN_ROWS`` (measured on x86: equal bits from 16 on).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from reca_core.draws import DrawStream
from reca_core.models.grouping import filled_rows
from reca_core.models.harmon.mar import masked_by_order
from reca_core.models.harmon.network import HarmonNetwork
from reca_core.objectives.gaussian_diffusion import DiffusionTables, ancestral_step
from reca_core.objectives.masked_token import mask_count

MIN_ROWS = 16


@dataclass(frozen=True)
class HeadDraws:
    """Random numbers of one round: start [rows, C], and one [2 rows, C] per step, from the noisiest step on."""

    start: Float[Tensor, "rows channels"]
    steps: Float[Tensor, "steps rows2 channels"]


@dataclass(frozen=True)
class Round:
    """What one round looked like, for traces and tests."""

    guidance: float
    told: Float[Tensor, "rows2 decoder_width"]
    latents: Float[Tensor, "rows2 channels"]


Draws = Callable[[int, int], HeadDraws]
"""(round, number of tokens it draws) -> random numbers."""


def keyed_draws(stream: DrawStream, steps: int, channels: int, device: torch.device) -> Draws:
    """Draws of a batch of pictures, each from its own stream. Both halves of guidance get the same noise."""
    pictures = len(stream.generators)

    def of_round(_: int, tokens: int) -> HeadDraws:
        start = stream.normal(tokens // pictures, channels).to(device)
        noise = rearrange(stream.normal(steps, tokens // pictures, channels), "b k n c -> k (b n) c").to(device)
        return HeadDraws(rearrange(start, "b n c -> (b n) c"), torch.cat([noise, noise], dim=1))

    return of_round


def guided_output(
    network: HarmonNetwork,
    noisy: Float[Tensor, "rows2 channels"],
    step: int,
    told: Float[Tensor, "rows2 decoder_width"],
    guidance: float,
) -> Float[Tensor, "rows2 channels2"]:
    """Head output with guidance; the first half of the rows is conditional.

    Both halves look at the first half's noisy tokens; the variance stays each half's own.
    """
    half = noisy[: len(noisy) // 2]
    seen = torch.cat([half, half])
    rows, filled = len(seen), filled_rows(seen, MIN_ROWS)
    steps = torch.full((len(filled),), step, dtype=torch.long, device=noisy.device)
    output: Tensor = network.mar.diffloss.net(filled, steps, filled_rows(told, MIN_ROWS))[:rows]
    estimate, fraction = output.chunk(2, dim=-1)
    conditional, unconditional = estimate.chunk(2)
    guided = unconditional + guidance * (conditional - unconditional)
    return torch.cat([torch.cat([guided, guided]), fraction], dim=-1)


def denoise(
    network: HarmonNetwork,
    tables: DiffusionTables,
    told: Float[Tensor, "rows2 decoder_width"],
    draws: HeadDraws,
    guidance: float,
    temperature: float,
    largest: float = 0.0,
) -> Float[Tensor, "rows2 channels"]:
    """Tokens from noise, along all steps of ``tables``; ``largest``: limit of clean estimates, 0 for none."""
    x = torch.cat([draws.start, draws.start])
    last = len(tables.steps) - 1
    for count, noise in enumerate(draws.steps):
        step = last - count
        output = guided_output(network, x, int(tables.steps[step]), told, guidance)
        x, _ = ancestral_step(tables, x, output, step, noise, temperature, largest)
    return x


class PrefixReader:
    """The language model with its condition read once."""

    def __init__(
        self, network: HarmonNetwork, prefix: Float[Tensor, "rows length width"], attention: Int[Tensor, "rows length"]
    ) -> None:
        self.network = network
        self.attention = attention
        self.cache = DynamicCache()
        network.llm.model(inputs_embeds=prefix, past_key_values=self.cache, use_cache=True)

    def read(self, shown: Float[Tensor, "rows visible width"]) -> Float[Tensor, "rows visible width"]:
        """States of the shown rows after the prefix; they are forgotten again."""
        mask = torch.cat([self.attention, self.attention.new_ones(shown.shape[:2])], dim=1)
        positions = (mask.cumsum(1) - 1)[:, -shown.shape[1] :]
        states: Tensor = self.network.llm.model(
            inputs_embeds=shown,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.cache.crop(-shown.shape[1])
        return states


@torch.no_grad()
def draw_tokens(
    network: HarmonNetwork,
    tables: DiffusionTables,
    prefix: Float[Tensor, "rows2 length width"],
    attention: Int[Tensor, "rows2 length"],
    orders: Int[Tensor, "rows tokens"],
    grid: tuple[int, int],
    *,
    rounds: int,
    guidance: float,
    temperature: float,
    draws: Draws,
    linear_guidance: bool = False,
    largest: float = 0.0,
    observe: Callable[[Round], None] = lambda _: None,
) -> Float[Tensor, "rows2 m n channels"]:
    """Latents of pictures; the first half of the prefix rows is conditional, the second half their null prompts."""
    tokens = grid[0] * grid[1]
    both = torch.cat([orders, orders])
    reader = PrefixReader(network, prefix, attention)
    canvas = prefix.new_zeros(len(both), tokens, network.sizes.mar.latent_channels)
    masked = torch.ones(len(both), tokens, dtype=torch.bool, device=prefix.device)
    for index in range(rounds):
        wanted = math.floor(tokens * math.cos(math.pi / 2 * (index + 1) / rounds))
        remaining = mask_count(int(masked[0].sum()), wanted)
        following = masked_by_order(both, remaining)
        chosen = masked if index == rounds - 1 else masked ^ following
        told = _told(network, reader, canvas, masked, grid)[chosen]
        share = (tokens - remaining) / tokens
        scale = 1 + (guidance - 1) * share if linear_guidance else guidance
        latents = denoise(network, tables, told, draws(index, len(told) // 2), scale, temperature, largest)
        observe(Round(scale, told, latents))
        half = latents[: len(latents) // 2]
        canvas = canvas.masked_scatter(chosen[..., None], torch.cat([half, half]))
        masked = following
    return rearrange(canvas, "b (m n) c -> b m n c", m=grid[0])


def _told(
    network: HarmonNetwork,
    reader: PrefixReader,
    canvas: Float[Tensor, "rows tokens channels"],
    masked: Bool[Tensor, "rows tokens"],
    grid: tuple[int, int],
) -> Float[Tensor, "rows tokens decoder_width"]:
    encoded = network.mar.encode(canvas, ~masked, grid)
    states = reader.read(network.to_language(encoded))
    return network.mar.decode(encoded + network.from_language(states), ~masked, grid)


@torch.no_grad()
def greedy_text(
    network: HarmonNetwork,
    prefix: Float[Tensor, "rows length width"],
    *,
    end: int,
    max_tokens: int,
    observe: Callable[[Tensor], None] = lambda _: None,
) -> list[list[int]]:
    """Most likely continuations of prefixes of equal length."""
    cache, rows = DynamicCache(), prefix
    replies: list[list[int]] = [[] for _ in prefix]
    open_rows = set(range(len(prefix)))
    for _ in range(max_tokens):
        states = network.llm.model(inputs_embeds=rows, past_key_values=cache, use_cache=True).last_hidden_state
        logits = network.llm.lm_head(states[:, -1])
        observe(logits)
        tokens = logits.argmax(-1)
        open_rows -= {row for row in open_rows if int(tokens[row]) == end}
        for row in open_rows:
            replies[row].append(int(tokens[row]))
        if not open_rows:
            break
        rows = network.embed(tokens[:, None])
    return replies


def null_attention(lengths: Sequence[int], total: int) -> Int[Tensor, "rows length"]:
    """Attention of right-padded rows."""
    return (torch.arange(total)[None] < torch.tensor(list(lengths))[:, None]).long()
