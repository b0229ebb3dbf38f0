"""Between pictures and tensors: what every family's transform is made of. Values in [0, 1] unless said otherwise.

Which geometry a family uses (squash, crop, keep aspect) is its own explicit transform (reference "reca_recipe", 1.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from reca_core.objectives.loss_sum import LossSum

WHITE = 255.0


def centre_square(picture: Image.Image) -> Image.Image:
    """The largest centred square."""
    side = min(picture.size)
    if picture.size == (side, side):
        return picture
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def resized(picture: Image.Image, side: int) -> Image.Image:
    """A square of ``side`` pixels, bicubic; other aspects are squashed. Untouched where it already has that size."""
    if picture.size == (side, side):
        return picture
    return picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def stack(pictures: Sequence[Image.Image]) -> Float[Tensor, "batch 3 height width"]:
    """RGB pictures of one size as values in [0, 1]."""
    pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return rearrange(torch.from_numpy(pixels), "b h w c -> b c h w").float() / WHITE


def to_pictures(pixels: Float[Tensor, "batch 3 height width"]) -> list[Image.Image]:
    """Values in [-1, 1] (clamped) as RGB pictures, rounded to the nearest of 256 levels."""
    levels = ((pixels.float().clamp(-1, 1) + 1) * (WHITE / 2)).round().to(torch.uint8)
    return [Image.fromarray(array) for array in rearrange(levels, "b c h w -> b h w c").cpu().numpy()]


def channels(values: Sequence[float]) -> Float[Tensor, "3 1 1"]:
    """One number per colour channel, to be broadcast over pixels."""
    return rearrange(torch.tensor(values), "c -> c 1 1")


def pixel_error(made: Float[Tensor, "batch 3 height width"], wanted: Float[Tensor, "batch 3 height width"]) -> LossSum:
    """Absolute plus squared error, one count per value: what an autoencoder learns from."""
    error = made - wanted
    return LossSum((error.abs() + error.square()).sum(), torch.tensor(float(error.numel()), device=error.device))
