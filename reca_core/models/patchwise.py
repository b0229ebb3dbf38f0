"""A convolutional image encoder that sees one patch at a time: where the autoencoders of tiny models begin, and stay.

Encoders of published autoencoders look at the whole picture (3x3 taps, group norm, attention), so one and the same
patch gets other codes in another picture, and a small model cannot learn to write those (docs/tiny.md). Here

- convolutions keep the taps of their own cell, strided ones those of the cells that become one;
- branches that end in zero (residual, attention) begin, and stay, no branch at all;
- the four channels of a group before the last norm are c, -c, s and -s with c constant and large: their mean is 0 and
  their variance hardly depends on the signal s, so the norm is a constant factor (``fill_groups``);
- the last convolution is set from patches: ``whitening`` for latents, ``separating_planes`` for sign codes.

All of it is ordinary weights of an ordinary network. Only the decoder is then trained (stage "decoder").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

STEADY = 100.0
"""The constant c of a group, beside a signal of variance 1."""
OWN_TAP, STRIDED_TAPS = slice(1, 2), slice(0, 2)
"""Of 3x3 convolutions: the cell itself, and the cells that become one where the padding is on the right and bottom."""
SMALLEST_VARIANCE = 1e-8
PLANES = 400
"""Random planes among which every bit's is chosen."""
POINTS_PER_PLANE = 2
"""Patches whose difference is a plane's direction: such a plane lies between patches that exist."""


@dataclass(frozen=True)
class Affine:
    """x -> weight x + bias, of C channels from K."""

    weight: Float[Tensor, "channels width"]
    bias: Float[Tensor, " channels"]


@torch.no_grad()
def start_convolution(convolution: nn.Conv2d, *, patchwise: bool, zeroed: bool, own: slice = OWN_TAP) -> None:
    """Random weights of unit gain and no bias, from torch's global generator.

    Args:
        patchwise: only the taps of ``own``, in both directions, are not zero.
        zeroed: all weights are zero: the end of a branch.
        own: taps that belong to the cell that is computed.
    """
    weight = convolution.weight
    taps = torch.ones_like(weight[0, 0])
    if patchwise and taps.shape[0] > 1:
        taps = torch.zeros_like(taps)
        taps[own, own] = 1.0
    weight.normal_(0, float(weight.shape[1] * taps.sum()) ** -0.5).mul_(taps)
    if zeroed:
        weight.zero_()
    if convolution.bias is not None:
        convolution.bias.zero_()


@torch.no_grad()
def start_encoder(encoder: nn.Module, *, zeroed: tuple[str, ...], strided: str) -> None:
    """Start every convolution of an encoder patch by patch.

    Args:
        zeroed: endings of the names of layers, convolutions or not, that end a branch.
        strided: ending of the names of convolutions of stride 2.
    """
    for name, module in encoder.named_modules():
        ends = name.endswith(zeroed)
        if isinstance(module, nn.Conv2d):
            taps = STRIDED_TAPS if name.endswith(strided) else OWN_TAP
            start_convolution(module, patchwise=True, zeroed=ends, own=taps)
        elif ends:
            for parameter in module.parameters():
                parameter.zero_()


@torch.no_grad()
def fill_groups(widening: nn.Conv2d, norm: nn.GroupNorm, signal: Affine) -> None:
    """Let a 1x1 convolution give every group of the norm that follows c, -c, s and -s; the norm keeps the scale of s.

    Args:
        signal: one channel s per group, of mean 0 and variance 1.
    """
    nothing = torch.zeros_like(signal.bias)
    weight = torch.stack([0 * signal.weight, 0 * signal.weight, signal.weight, -signal.weight], dim=1)
    bias = torch.stack([nothing + STEADY, nothing - STEADY, signal.bias, -signal.bias], dim=1)
    set_convolution(widening, Affine(rearrange(weight, "g four k -> (g four) k"), bias.flatten()))
    norm.weight.fill_(((STEADY**2 + 1) / 2) ** 0.5)
    norm.bias.zero_()


@torch.no_grad()
def as_shipped(module: nn.Module) -> None:
    """Round every weight to what half precision can say: tiny bases are stored so, and a code's bit must not turn."""
    for parameter in module.parameters():
        parameter.copy_(parameter.half().float())


@torch.no_grad()
def inputs_of(module: nn.Module, run: Callable[[], object]) -> Float[Tensor, "cells width"]:
    """What reaches ``module`` while ``run`` runs, one row per cell of every picture."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        run()
    finally:
        handle.remove()
    return torch.cat([rearrange(part, "b c h w -> (b h w) c") for part in seen])


def whitening(rows: Float[Tensor, "cells width"], channels: int) -> Affine:
    """The ``channels`` directions in which the rows vary most, uncorrelated, each of mean 0 and variance 1."""
    mean, (variances, axes) = rows.mean(0), torch.linalg.eigh(torch.cov(rows.T))
    weight = (axes[:, -channels:] / variances[-channels:].clamp(min=SMALLEST_VARIANCE).sqrt()).T
    return Affine(weight, -(weight @ mean))


def means_of_equal(
    rows: Float[Tensor, "cells width"], patches: Float[Tensor, "cells values"]
) -> Float[Tensor, "patches width"]:
    """The mean row of every different patch."""
    _, kind, counts = torch.unique(patches, dim=0, return_inverse=True, return_counts=True)
    return rows.new_zeros(len(counts), rows.shape[1]).index_add(0, kind, rows) / counts[:, None]


def separating_planes(points: Float[Tensor, "points width"], bits: int) -> Affine:
    """Planes whose sides, ``bits`` of them, tell the points apart as well as chosen one by one they can.

    Each is the one of PLANES random planes that leaves the fewest pairs of points on the same sides of all planes so
    far; its direction is the difference of two points, and it lies halfway between two others.
    """
    codes = torch.zeros(len(points), dtype=torch.long)
    weights, biases = [], []
    for _ in range(bits):
        weight, bias = _random_planes(points)
        sides = (points @ weight.T + bias > 0).long()
        together = [_pairs(2 * codes + side) for side in sides.T]
        best = min(range(len(together)), key=together.__getitem__)
        codes = torch.unique(2 * codes + sides[:, best], return_inverse=True)[1]
        weights.append(weight[best])
        biases.append(bias[best])
    return Affine(torch.stack(weights), torch.stack(biases))


def set_convolution(convolution: nn.Conv2d, affine: Affine) -> None:
    """Make the first channels of a convolution this map of its own cell, and zero the others."""
    channels, middle = len(affine.weight), convolution.weight.shape[-1] // 2
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[:channels, :, middle, middle] = affine.weight
        assert convolution.bias is not None  # the last convolution of every autoencoder here has one
        convolution.bias.zero_()
        convolution.bias[:channels] = affine.bias


def _random_planes(points: Float[Tensor, "points width"]) -> tuple[Tensor, Tensor]:
    """Unit normals and offsets of PLANES planes."""

    def pick() -> Tensor:
        return points[torch.randint(len(points), (PLANES,))]

    direction = pick() - pick()
    weight = direction / direction.norm(dim=1, keepdim=True).clamp(min=SMALLEST_VARIANCE**0.5)
    return weight, -(weight * (pick() + pick()) / POINTS_PER_PLANE).sum(1)


def _pairs(codes: Tensor) -> int:
    counts = torch.unique(codes, return_counts=True)[1]
    return int((counts * (counts - 1)).sum())
