"""Drawing with OpenUni: DPM-Solver++ steps on SANA's velocity with classifier-free guidance.

The scheduler is diffusers'; guidance is ``u + scale (c - u)`` with the unconditional rows first, as SANA's pipeline has
it. The pipeline itself needs a text encoder of its own, so the loop is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reca_core.models.openuni.network import OpenUniNetwork


@dataclass(frozen=True)
class Step:
    """One step of drawing, for traces and tests."""

    velocity: Float[Tensor, "batch channels h w"]
    before: Float[Tensor, "batch channels h w"]
    after: Float[Tensor, "batch channels h w"]


@torch.no_grad()
def draw_latents(
    network: OpenUniNetwork,
    conditional: Float[Tensor, "batch queries caption"],
    unconditional: Float[Tensor, "batch queries caption"],
    start: Float[Tensor, "batch channels h w"],
    scheduler: Any,
    *,
    steps: int,
    guidance: float,
    observe: Callable[[Step], None] = lambda _: None,
) -> Float[Tensor, "batch channels h w"]:
    """Scaled latents from noise. ``scheduler`` is a diffusers scheduler of its own for this drawing: it has state."""
    scheduler.set_timesteps(steps, device=start.device)
    told = torch.cat([unconditional, conditional])
    everything = torch.ones(told.shape[:2], dtype=told.dtype, device=told.device)
    latents = start * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        times = time.expand(2 * len(latents)) * network.transformer.config.timestep_scale
        output = network.transformer(
            torch.cat([latents, latents]),
            encoder_hidden_states=told,
            encoder_attention_mask=everything,
            timestep=times,
        ).sample.float()
        without, given = output.chunk(2)
        velocity = without + guidance * (given - without)
        following = scheduler.step(velocity, time, latents, return_dict=False)[0]
        observe(Step(velocity, latents, following))
        latents = following
    return latents
