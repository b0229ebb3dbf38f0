"""What the colour classifier is shown: the object on grey, cut out of the picture (djghosh13/geneval @ af4902f).

Published weights: CLIP ViT-L/14 of OpenAI through its own 224-pixel preprocessing, which is not done here.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageColor, ImageOps

from evaluation.records import Box

GREY = "#999"
"""Replaces everything outside the object's mask."""
ORIGINAL = "original"
"""Background choice that leaves the picture as it is."""


def colour_crop(
    picture: Image.Image,
    box: Box,
    mask: Bool[np.ndarray, "height width"] | None = None,
    background: str = GREY,
    crop: bool = True,
) -> Image.Image:
    """The object of ``box`` as an RGB picture.

    Args:
        mask: true on the object's pixels, in the orientation that EXIF asks for; None where the detector gives none.
        background: a colour in CSS notation for the pixels outside the mask, or ``original``.
        crop: cut to the box, its corners rounded half to even; what lies outside the picture is black.
    """
    upright = ImageOps.exif_transpose(picture).convert("RGB")
    if mask is not None and background != ORIGINAL:
        backdrop = Image.new("RGB", upright.size, ImageColor.getrgb(background)[:3])
        upright = Image.composite(upright, backdrop, Image.fromarray(mask.astype(np.uint8) * np.uint8(255)))
    if not crop:
        return upright
    x1, y1, x2, y2 = (round(corner) for corner in box)
    return upright.crop((x1, y1, x2, y2))
