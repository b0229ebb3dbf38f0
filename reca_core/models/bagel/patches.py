"""Pictures as rows of patches, and where each patch is: BAGEL, arXiv 2505.14683, section 3.

Patches are row-major; inside a patch the order is (row, column, channel). A patch's position id is
``row * per_side + column`` on a grid of ``per_side`` columns, whatever the picture's own width: no interpolation.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

WAVELENGTH = 10_000.0


def patchify(grid: Float[Tensor, "channels height width"], side: int) -> Float[Tensor, "patches features"]:
    """[C, H, W] -> [patches, side*side*C]; H and W are multiples of ``side``."""
    return rearrange(grid, "c (h p) (w q) -> (h w) (p q c)", p=side, q=side)


def unpatchify(
    rows: Float[Tensor, "patches features"], height: int, width: int, side: int
) -> Float[Tensor, "channels height width"]:
    """The inverse; ``height`` and ``width`` count patches."""
    return rearrange(rows, "(h w) (p q c) -> c (h p) (w q)", h=height, w=width, p=side, q=side)


def position_ids(height: int, width: int, per_side: int) -> Int[Tensor, " patches"]:
    """Position ids of a height x width grid of patches."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (rows * per_side + columns).flatten()


def sine_table(per_side: int, width: int) -> Float[Tensor, "positions width"]:
    """Fixed position embeddings: first half of the channels is the column, second half the row, each [sin | cos]."""
    quarter = width // 4
    frequencies = WAVELENGTH ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    index = torch.arange(per_side * per_side)
    halves = []
    for coordinate in (index % per_side, index // per_side):
        angles = coordinate[:, None].double() * frequencies
        halves.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    return torch.cat(halves, dim=1).float()
