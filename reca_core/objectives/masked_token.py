"""Masked-token prediction: the loss of discrete-diffusion families such as Show-o.

A share of the image tokens is replaced by a mask token and predicted from the rest, all at once (MaskGIT,
arXiv 2202.04200, section 3; Show-o, arXiv 2408.12528, section 3.3). The share follows the cosine of a uniform time.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def cosine_share(time: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Share of tokens to mask at time t in [0, 1): ``cos(pi t / 2)``, all of them at 0."""
    return torch.cos(time * math.pi * 0.5)


def choose_masked(
    order_draws: Float[Tensor, "batch tokens"], share: Float[Tensor, " batch"], *, upstream_parity: bool = False
) -> Bool[Tensor, "batch tokens"]:
    """Which tokens are masked: at least one, ``round(tokens * share)`` of them, chosen by uniform draws.

    The original compares the *indices* that a sort returns with the count, not the ranks. As the draws are exchangeable
    the law is the same; ``upstream_parity`` reproduces which tokens it picks.
    """
    tokens = order_draws.shape[-1]
    count = (tokens * share).round().clamp(min=1)
    order = order_draws.argsort(dim=-1)
    ranks = order if upstream_parity else order.argsort(dim=-1)
    return ranks < count[:, None]


def mask_count(unknown: int, wanted: int) -> int:
    """How many tokens stay masked after a drawing step whose schedule wants ``wanted`` of them to.

    At least one and fewer than were unknown before, so every step settles something (MaskGIT, section 3.2). Families
    round the cosine themselves: two thirds of the way it is a half, and a last bit decides about a token.
    """
    return max(1, min(unknown - 1, wanted))
