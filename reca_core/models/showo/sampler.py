"""Drawing with Show-o: all image tokens at once, in a few rounds, keeping the most certain ones of each round.

MaskGIT decoding (arXiv 2202.04200, section 3.2) with guidance ``u + s (c - u)``; the published code writes it
``(1 + w) c - w u``, so its w is ``s - 1``. Certainty is ``log p`` plus Gumbel noise that falls every round.
Text is greedy, on a cache: what came before never looks at a new token.

A picture or an answer must not depend on its neighbours: matrix products of few rows take other kernels that round
differently, so a pass never has fewer than ``MIN_ROWS`` rows (measured on x86 with torch 2.13: equal bits from 16 on).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from reca_core.draws import DrawStream
from reca_core.models.grouping import filled_rows
from reca_core.models.showo.network import ShowoNetwork
from reca_core.models.showo.sequence import SpecialIds, image_part
from reca_core.objectives.masked_token import cosine_share, mask_count

TINY = 1e-20
"""Floor inside the logarithms of the Gumbel noise."""
MIN_ROWS = 16


@dataclass(frozen=True)
class Opening:
    """What a picture is drawn after: embeddings, and the mask of the whole sequence with soi, N image tokens, eoi."""

    embeddings: Float[Tensor, "batch opening width"]
    may_attend: Bool[Tensor, "batch 1 length length"]


@dataclass(frozen=True)
class Round:
    """What one round of drawing looked like, for traces and tests."""

    inputs: Int[Tensor, "batch tokens"]
    logits: Float[Tensor, "rows tokens codebook"]


class Chance(Protocol):
    """The random numbers of a batch of pictures, asked for once per round and in order."""

    def codes(self, probabilities: Float[Tensor, "batch tokens codebook"]) -> Int[Tensor, "batch tokens"]:
        """One draw per token."""
        ...

    def uniform(self, tokens: int) -> Float[Tensor, "batch tokens"]:
        """Uniform in [0, 1)."""
        ...


@dataclass(frozen=True)
class KeyedChance:
    """Draws of each picture from its own stream; a code is where the cumulated probabilities pass a uniform number.

    One number per token rather than one per token and code: 8192 times fewer, and they are drawn on the CPU.
    """

    stream: DrawStream

    def codes(self, probabilities: Float[Tensor, "batch tokens codebook"]) -> Int[Tensor, "batch tokens"]:
        """One draw per token."""
        cumulated = probabilities.cumsum(-1)
        at = self.uniform(probabilities.shape[1]).to(probabilities.device) * cumulated[..., -1]
        return torch.searchsorted(cumulated, at[..., None], right=True)[..., 0].clamp(max=cumulated.shape[-1] - 1)

    def uniform(self, tokens: int) -> Float[Tensor, "batch tokens"]:
        """Uniform in [0, 1)."""
        return torch.stack([torch.rand(tokens, generator=generator) for generator in self.stream.generators])


@torch.no_grad()
def draw_tokens(
    network: ShowoNetwork,
    given: Opening,
    null: Opening,
    special: SpecialIds,
    *,
    tokens: int,
    rounds: int,
    guidance_scale: float,
    temperature: float,
    chance: Chance,
    observe: Callable[[Round], None] = lambda _: None,
) -> Int[Tensor, "batch tokens"]:
    """Image codes [B, N] after each opening. ``null`` is read only if ``guidance_scale`` is not 1."""
    batch, openings = len(given.embeddings), [given] if guidance_scale == 1.0 else [given, null]
    canvas = torch.full((batch, tokens), special.mask, device=given.embeddings.device)
    heat = temperature
    for step in range(rounds):
        logits = torch.cat([code_logits(network, opening, canvas, special) for opening in openings])
        observe(Round(canvas, logits))
        probabilities = guided(logits, batch, guidance_scale).softmax(-1)
        unknown = canvas == special.mask
        drawn = torch.where(unknown, chance.codes(probabilities) + special.image, canvas)
        if step == rounds - 1:
            return drawn - special.image
        progress = (step + 1) / rounds
        heat *= 1.0 - progress
        chosen = probabilities.gather(-1, (drawn - special.image)[..., None])[..., 0]
        certainty = chosen.log() + heat * _gumbel(chance.uniform(tokens).to(chosen.device))
        certainty = torch.where(unknown, certainty, torch.finfo(certainty.dtype).max)
        canvas = _mask_again(drawn, certainty, unknown, progress, special.mask)
    return canvas


def guided(
    logits: Float[Tensor, "rows tokens codebook"], batch: int, scale: float
) -> Float[Tensor, "batch tokens codebook"]:
    """With guidance the second half of the rows is unconditional."""
    if scale == 1.0:
        return logits
    given, null = logits[:batch], logits[batch:]
    return null + scale * (given - null)


def code_logits(
    network: ShowoNetwork, opening: Opening, canvas: Int[Tensor, "batch tokens"], special: SpecialIds
) -> Float[Tensor, "batch tokens codebook"]:
    """Logits over the image codes at every place of the picture, float32."""
    after = network.embed(image_part(canvas, special))
    states = network.states(torch.cat([opening.embeddings, after], dim=1), opening.may_attend)
    return network.code_logits(states[:, -1 - canvas.shape[1] : -1], special).float()


def _gumbel(uniform: Float[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens"]:
    return -(-(uniform.clamp(min=TINY)).log()).clamp(min=TINY).log()


def _mask_again(
    drawn: Tensor, certainty: Tensor, unknown: Tensor, progress: float, mask: int
) -> Int[Tensor, "batch tokens"]:
    """Which tokens stay masked; how many is float32 arithmetic, as published."""
    rows, wanted = [], int((drawn.shape[1] * cosine_share(torch.tensor(progress))).floor())
    for ids, sure, open_ in zip(drawn, certainty, unknown, strict=True):
        again = mask_count(int(open_.sum()), wanted)
        threshold = sure.sort().values[again]
        rows.append(ids.masked_fill(sure < threshold, mask))
    return rearrange(rows, "b n -> b n")


@torch.no_grad()
def greedy_text(
    network: ShowoNetwork,
    prefix: Float[Tensor, "batch length width"],
    may_attend: Bool[Tensor, "batch 1 length length"],
    *,
    end: int,
    max_tokens: int,
) -> list[list[int]]:
    """The likeliest continuation of every row, up to but without ``end``; rows of equal length.

    A new token sees what the last one saw, and itself.
    """
    batch, cache = len(prefix), DynamicCache()
    inputs, allowed = filled_rows(prefix, MIN_ROWS), filled_rows(may_attend, MIN_ROWS)
    chosen: list[Tensor] = []
    running = torch.ones(batch, dtype=torch.bool, device=prefix.device)
    for _ in range(max_tokens):
        tokens = network.logits(network.states(inputs, allowed, cache)[:, -1]).argmax(-1)
        chosen.append(tokens[:batch])
        running = running & (chosen[-1] != end)
        if not bool(running.any()):
            break
        inputs, allowed = network.embed(tokens[:, None]), F.pad(allowed[:, :, -1:], (0, 1), value=True)
    return [_until(row, end) for row in torch.stack(chosen, dim=1).tolist()]


def _until(row: Sequence[int], end: int) -> list[int]:
    return list(row[: row.index(end)]) if end in row else list(row)
