"""Between pictures and tensors, Show-o's way: squashed to a square, whatever the aspect (reference "reca_recipe", 1.4).

What the understanding side sees depends on the variant. With CLIP it is CLIP's own picture; in the VQ variant it is the
target made smaller or blurred, because the same ids at the same resolution would be copied (reference, 1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from reca_core.models.pictures import centre_square, channels, resized, stack, to_pictures
from reca_core.models.unified import Images

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class PictureTransform(Protocol):
    """Pictures to both tensors, and back to what the understanding side saw."""

    def __call__(self, pictures: Sequence[Image.Image], whole: bool) -> Images:
        """``whole``: for questions about the picture, else for redrawing it."""
        ...

    def view(self, images: Images) -> list[Image.Image]:
        """The understanding side of pictures that are to be redrawn."""
        ...


@dataclass(frozen=True)
class ClipTransform:
    """``side`` of the target and ``clip_side`` of CLIP's picture, in pixels.

    The published training resizes the target for CLIP and leaves out CLIP's normalisation, while questions are asked
    about properly prepared centre squares (reference 3.4, S2): ``upstream_parity`` does both. Here CLIP always sees the
    squashed picture as it was trained to see pictures, so that what is learned from is what is asked about.
    """

    side: int
    clip_side: int
    upstream_parity: bool = False

    def __call__(self, pictures: Sequence[Image.Image], whole: bool) -> Images:
        """Both views; the target in [-1, 1]."""
        target = stack([resized(picture, self.side) for picture in pictures]) * 2 - 1
        if self.upstream_parity and not whole:
            return Images(smaller(target, self.clip_side), target)
        shown = [centre_square(picture) for picture in pictures] if self.upstream_parity else pictures
        values = stack([resized(picture, self.clip_side) for picture in shown])
        return Images((values - channels(CLIP_MEAN)) / channels(CLIP_STD), target)

    def view(self, images: Images) -> list[Image.Image]:
        """What CLIP saw; under parity the picture that its numbers were made from."""
        pixels = images.understanding
        return to_pictures(
            pixels if self.upstream_parity else (pixels * channels(CLIP_STD) + channels(CLIP_MEAN)) * 2 - 1
        )


@dataclass(frozen=True)
class CodesTransform:
    """``side`` in pixels; for redrawing, the given picture is ``downscale`` times smaller, or ``blurred``: up again."""

    side: int
    downscale: int = 2
    blurred: bool = False

    def __call__(self, pictures: Sequence[Image.Image], whole: bool) -> Images:
        """Both views in [-1, 1]; for questions they are one and the same tensor."""
        target = stack([resized(picture, self.side) for picture in pictures]) * 2 - 1
        if whole:
            return Images(target, target)
        small = smaller(target, self.side // self.downscale)
        return Images(smaller(small, self.side) if self.blurred else small, target)

    def view(self, images: Images) -> list[Image.Image]:
        """What the tokenizer was given."""
        return to_pictures(images.understanding)


def smaller(pixels: Float[Tensor, "batch 3 height width"], side: int) -> Float[Tensor, "batch 3 side side"]:
    """Another size, bilinear and without antialiasing, as the published training does it."""
    return F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
