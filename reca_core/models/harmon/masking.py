"""Random draws of Harmon's generation loss, keyed per picture: what is masked, at which noise level, with which noise.

The share of masked tokens follows a normal around 1 truncated to [0.7, 1] (MAR, arXiv 2406.11838, section 4.1), drawn
per picture. The published training draws it once per batch (reference "reca_recipe", section 3.2, H2):
``upstream_parity`` does so with the first picture's draw, and the loss then depends on how a step is split.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reca_core.draws import KeyedDraws
from reca_core.models.harmon.configuration import DIFFUSION_STEPS, LearningPlan
from reca_core.models.harmon.mar import masked_by_counts


@dataclass(frozen=True)
class LossDraws:
    """``masked`` [B, N]; ``steps`` and ``noise`` in the row order of ``network.DiffusionRows``."""

    masked: Bool[Tensor, "batch tokens"]
    steps: Int[Tensor, " rows"]
    noise: Float[Tensor, "rows channels"]


def loss_draws(
    draws: KeyedDraws, tokens: int, channels: int, plan: LearningPlan, *, upstream_parity: bool, device: torch.device
) -> LossDraws:
    """Everything random about one pass."""
    repeats = plan.head_repeats
    levels = (draws.uniform("noise level", repeats, tokens) * DIFFUSION_STEPS).long()
    noise = draws.normal("noise", repeats, tokens, channels)
    return LossDraws(
        _masked(draws, tokens, plan, upstream_parity).to(device),
        rearrange(levels, "b r n -> (r b n)").to(device),
        rearrange(noise, "b r n c -> (r b n) c").to(device),
    )


def _masked(draws: KeyedDraws, tokens: int, plan: LearningPlan, upstream_parity: bool) -> Bool[Tensor, "batch tokens"]:
    uniform = draws.uniform("mask ratio")
    if upstream_parity:
        uniform = uniform[:1].expand(len(uniform))
    counts = (tokens * mask_ratios(uniform, plan)).ceil().long()
    return masked_by_counts(draws.uniform("mask order", tokens).argsort(dim=1), counts)


def mask_ratios(uniform: Float[Tensor, " batch"], plan: LearningPlan) -> Float[Tensor, " batch"]:
    """Quantiles of the truncated normal, float64."""
    low = torch.special.ndtr(torch.tensor((plan.smallest_mask_ratio - 1) / plan.mask_ratio_deviation).double())
    middle = 0.5  # the normal's own mean, 1, is where it is cut off
    quantile = torch.special.ndtri(low + uniform.double() * (middle - low))
    return (1 + plan.mask_ratio_deviation * quantile).clamp(plan.smallest_mask_ratio, 1.0)
