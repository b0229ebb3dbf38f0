"""Between pictures and tensors, Harmon's way: squashed to a square, whatever the aspect (reference 1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from reca_core.models.pictures import resized, stack
from reca_core.models.unified import Images


@dataclass(frozen=True)
class SquashTransform:
    """``side`` in pixels. The understanding path may see a picture ``downscale`` times smaller, blown up again."""

    side: int
    downscale: int = 1

    def __call__(self, pictures: Sequence[Image.Image]) -> Images:
        """Both views, values in [-1, 1]; one and the same tensor where nothing is scaled down."""
        squashed = [resized(picture, self.side) for picture in pictures]
        target = stack(squashed) * 2 - 1
        if self.downscale == 1:
            return Images(target, target)
        small = [resized(resized(picture, self.side // self.downscale), self.side) for picture in squashed]
        return Images(stack(small) * 2 - 1, target)
