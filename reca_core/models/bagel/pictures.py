"""Between pictures and tensors, BAGEL's way: the aspect is kept, sides are multiples of a stride (reference 1.4).

Pictures of a batch have different sizes. They travel padded with zeros on the right and below, with their sizes beside
them, and are cut out again before anything is computed: a picture never sees another one's padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from reca_core.models.bagel.configuration import Bounds, PicturePlan
from reca_core.models.bagel.packing import Grids
from reca_core.models.pictures import stack
from reca_core.models.unified import Images

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class VariedImages(Images):
    """Images of different sizes, padded; ``*_sizes`` say how much of each is the picture."""

    understanding_sizes: tuple[Size, ...] = ()
    target_sizes: tuple[Size, ...] = ()

    def picture(self, index: int) -> VariedImages:
        """One of them, as a batch of one without padding."""
        at = slice(index, index + 1)
        return VariedImages.of(
            cut(self.understanding[at], self.understanding_sizes[at]), cut(self.target[at], self.target_sizes[at])
        )

    @classmethod
    def joined(cls, parts: Sequence[Images]) -> VariedImages:
        """Batches one after another, padded anew. Raises TypeError for pictures without sizes."""
        seen: list[Tensor] = []
        targets: list[Tensor] = []
        for part in parts:
            if not isinstance(part, VariedImages):
                raise TypeError("pictures without their sizes cannot be joined to such with sizes")
            seen += cut(part.understanding, part.understanding_sizes)
            targets += cut(part.target, part.target_sizes)
        return cls.of(seen, targets)

    @classmethod
    def of(cls, seen: Sequence[Float[Tensor, "3 h w"]], targets: Sequence[Float[Tensor, "3 h w"]]) -> VariedImages:
        """Single pictures as a batch."""
        return cls(_padded(seen), _padded(targets), _sizes(seen), _sizes(targets))


@dataclass(frozen=True)
class AspectTransform:
    """The two transforms: for the ViT by its patch, for the autoencoder by the stride of a token."""

    plan: PicturePlan
    grids: Grids

    def __call__(self, pictures: Sequence[Image.Image], whole: bool) -> VariedImages:
        """Values in [-1, 1]. ``whole`` shows the understanding path as much as questions are asked about."""
        bounds = self.plan.questions if whole else self.plan.understanding
        seen = [as_pixels(picture, bounds, self.grids.vit_patch) for picture in pictures]
        targets = [as_pixels(picture, self.plan.target, self.grids.vae_stride) for picture in pictures]
        return VariedImages.of(seen, targets)


def as_pixels(picture: Image.Image, bounds: Bounds, stride: int) -> Float[Tensor, "3 height width"]:
    """One picture at the size that the bounds give it, bicubic."""
    height, width = fitted_size((picture.height, picture.width), bounds, stride)
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return stack([resized])[0] * 2 - 1


def fitted_size(size: Size, bounds: Bounds, stride: int) -> Size:
    """Height and width after scaling, the aspect kept up to the rounding to multiples of ``stride``.

    Too long is scaled down, too short up; where both cannot be had, the long side stays within its bound.
    """
    short, long = min(size), max(size)
    scale = max(min(bounds.longest / long, 1.0), bounds.shortest / short)
    scale = min(scale, bounds.longest / long)
    most = bounds.longest // stride
    height, width = (min(max(round(side * scale / stride), 1), most) * stride for side in size)
    return height, width


def cut(padded: Float[Tensor, "batch 3 height width"], sizes: Sequence[Size]) -> list[Float[Tensor, "3 h w"]]:
    """The pictures without their padding."""
    return [picture[:, :height, :width] for picture, (height, width) in zip(padded, sizes, strict=True)]


def _padded(pictures: Sequence[Float[Tensor, "3 h w"]]) -> Float[Tensor, "batch 3 height width"]:
    height, width = max(p.shape[1] for p in pictures), max(p.shape[2] for p in pictures)
    return torch.stack([F.pad(p, (0, width - p.shape[2], 0, height - p.shape[1])) for p in pictures])


def _sizes(pictures: Sequence[Float[Tensor, "3 h w"]]) -> tuple[Size, ...]:
    return tuple((int(picture.shape[1]), int(picture.shape[2])) for picture in pictures)
