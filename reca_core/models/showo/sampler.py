"""Drawing with Show-o: all image tokens at once, in a few rounds, keeping the most certain ones of each round.

MaskGIT decoding (arXiv 2202.04200, section 3.2) with guidance ``(1 + w) c - w u``. A categorical draw is
``argmax(p / E)`` with exponential E; certainty is ``log p`` plus Gumbel noise whose temperature falls every round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from reca_core.models.showo.network import ShowoNetwork
from reca_core.models.showo.sequence import SpecialIds, TokenSequence
from reca_core.objectives.masked_token import mask_count

TINY = 1e-20
"""Floor inside the logarithms of the Gumbel noise."""


@dataclass(frozen=True)
class Round:
    """What one round of drawing looked like, for traces and tests."""

    inputs: Int[Tensor, "batch tokens"]
    logits: Float[Tensor, "rows tokens codebook"]


@dataclass(frozen=True)
class RoundDraws:
    """Random numbers of one round: exponentials of every token and code, uniforms of every token."""

    exponential: Float[Tensor, "batch tokens codebook"]
    uniform: Float[Tensor, "batch tokens"]


Draws = Callable[[int], RoundDraws]
"""Round number -> its random numbers."""


@torch.no_grad()
def draw_tokens(
    network: ShowoNetwork,
    conditional: TokenSequence,
    unconditional: TokenSequence | None,
    special: SpecialIds,
    *,
    rounds: int,
    guidance: float,
    temperature: float,
    draws: Draws,
    observe: Callable[[Round], None] = lambda _: None,
) -> Int[Tensor, "batch tokens"]:
    """Image codes [B, N] (without the vocabulary offset) of sequences whose image places all hold the mask."""
    image = conditional.image
    tokens = conditional.ids[:, image].clone()
    batch, count = tokens.shape
    heat = temperature
    for step in range(rounds):
        logits = _round_logits(network, conditional, unconditional, tokens, special)
        observe(Round(tokens.clone(), logits))
        guided = logits[:batch]
        if unconditional is not None:
            guided = (1 + guidance) * logits[:batch] - guidance * logits[batch:]
        probabilities = guided.softmax(-1)
        random = draws(step)
        unknown = tokens == special.mask
        drawn = torch.where(unknown, (probabilities / random.exponential).argmax(-1) + special.image, tokens)
        if step == rounds - 1:
            tokens = drawn
            break
        progress = (step + 1) / rounds
        heat *= 1.0 - progress
        chosen = probabilities.gather(-1, (drawn - special.image)[..., None])[..., 0]
        certainty = chosen.log() + heat * _gumbel(random.uniform)
        certainty = torch.where(unknown, certainty, torch.finfo(certainty.dtype).max)
        tokens = _mask_again(drawn, certainty, unknown, count, progress, special.mask)
    return tokens - special.image


def _round_logits(
    network: ShowoNetwork,
    conditional: TokenSequence,
    unconditional: TokenSequence | None,
    tokens: Int[Tensor, "batch tokens"],
    special: SpecialIds,
) -> Float[Tensor, "rows tokens codebook"]:
    sequences = [conditional] if unconditional is None else [conditional, unconditional]
    ids = torch.cat([sequence.ids for sequence in sequences])
    ids[:, conditional.image] = tokens.repeat(len(sequences), 1)
    allowed = torch.cat([sequence.may_attend for sequence in sequences])
    logits = network.logits(network.embed(ids), allowed)
    return logits[:, conditional.image, special.image : special.mask]


def _gumbel(uniform: Float[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens"]:
    return -(-(uniform.clamp(min=TINY)).log()).clamp(min=TINY).log()


def _mask_again(
    drawn: Tensor, certainty: Tensor, unknown: Tensor, count: int, progress: float, mask: int
) -> Int[Tensor, "batch tokens"]:
    rows = []
    for ids, sure, open_ in zip(drawn, certainty, unknown, strict=True):
        again = mask_count(int(open_.sum()), count, progress)
        threshold = sure.sort().values[again]
        rows.append(ids.masked_fill(sure < threshold, mask))
    return rearrange(rows, "b n -> b n")


@torch.no_grad()
def greedy_text(
    network: ShowoNetwork,
    prefix: Float[Tensor, "1 length width"],
    may_attend: Tensor,
    *,
    end: int,
    max_tokens: int,
) -> list[int]:
    """Most likely continuation of one prefix. A new token sees what the last one saw, and itself."""
    embeddings, allowed = prefix, may_attend
    reply: list[int] = []
    while len(reply) < max_tokens:
        token = int(network.logits(embeddings, allowed)[0, -1].argmax())
        if token == end:
            break
        reply.append(token)
        new = network.embed(torch.tensor([[token]], device=prefix.device))
        embeddings = torch.cat([embeddings, new], dim=1)
        allowed = _grown(allowed)
    return reply


def _grown(allowed: Tensor) -> Tensor:
    length = allowed.shape[-1]
    bigger = torch.zeros(*allowed.shape[:-2], length + 1, length + 1, dtype=torch.bool, device=allowed.device)
    bigger[..., :length, :length] = allowed
    bigger[..., length, :length] = allowed[..., -1, :]
    bigger[..., length, length] = True
    return bigger
