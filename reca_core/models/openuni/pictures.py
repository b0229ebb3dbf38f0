"""Between pictures and tensors, OpenUni's way: a centre square is shown and redrawn (reference "reca_recipe", 1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from PIL import Image

from reca_core.models.pictures import centre_square, resized, stack, to_pictures
from reca_core.models.unified import Images


@dataclass(frozen=True)
class CropTransform:
    """``side`` of the target and ``understanding_side`` of what the encoder sees, in pixels."""

    side: int
    understanding_side: int

    def __call__(self, pictures: Sequence[Image.Image], whole: bool) -> Images:
        """Both views in [-1, 1]: one and the same square, which the network resizes for its encoder.

        ``whole``: squashed instead of cropped, at the encoder's own size, as InternVL sees single pictures.
        """
        if whole:
            shown = stack([resized(picture, self.understanding_side) for picture in pictures]) * 2 - 1
            return Images(shown, stack([resized(picture, self.side) for picture in pictures]) * 2 - 1)
        target = stack([resized(centre_square(picture), self.side) for picture in pictures]) * 2 - 1
        return Images(target, target)

    def view(self, images: Images) -> list[Image.Image]:
        """What the encoder saw."""
        side = self.understanding_side
        return to_pictures(F.interpolate(images.understanding, (side, side), mode="bilinear", align_corners=False))
