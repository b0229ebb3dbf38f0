"""Any decoded picture as 8-bit RGB: what each of Pillow's pixel modes means here. The rules are listed in docs/data.md.

No library has a rule for all of these: Pillow's own ``convert("RGB")`` clips 16-bit values to white and turns
transparent pixels into whatever colour lies below them. Colour profiles are ignored, as in every published RecA recipe.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reca_core.contracts.records import QuarantineKind

WHITE = (255, 255, 255)
SIXTEEN_BIT_MAXIMUM = 65535
EIGHT_BIT_MAXIMUM = 255
EIGHT_BIT_STEP = 257
"""65535 / 255: one 8-bit step in 16-bit values."""
PLAIN_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "RGBA", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr", "HSV"})
SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})


class PixelsUnusable(ValueError):
    """The picture decodes but has no meaning as colours."""

    def __init__(self, kind: QuarantineKind, reason: str) -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(reason)


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, same size; transparent pixels are laid on white.

    Raises PixelsUnusable for a mode without a rule and for float pictures that hold NaN or infinities.
    """
    if image.mode in SIXTEEN_BIT_MODES:
        return _grey(_from_sixteen_bit(np.asarray(image)))
    if image.mode == "I":
        return _grey(_from_integers(np.asarray(image)))
    if image.mode == "F":
        return _grey(_from_floats(np.asarray(image)))
    if image.mode not in PLAIN_MODES:
        raise PixelsUnusable("unsupported", f"colour mode {image.mode} has no rule for RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    straight = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, WHITE)
    canvas.paste(straight, mask=straight.getchannel("A"))
    return canvas


def _grey(values: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")


def _from_sixteen_bit(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    rounded = (values.astype(np.uint32) + EIGHT_BIT_STEP // 2) // EIGHT_BIT_STEP
    return rounded.astype(np.uint8)


def _from_integers(values: NDArray[np.int32]) -> NDArray[np.uint8]:
    """32-bit integers are nearly always a 16-bit picture in a wider type; anything beyond that range is stretched."""
    if values.min() >= 0 and values.max() <= SIXTEEN_BIT_MAXIMUM:
        return _from_sixteen_bit(values.astype(np.uint16))
    return _stretched(values.astype(np.float64))


def _from_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Floats up to 1 are fractions, up to 255 8-bit values; anything beyond is stretched."""
    if not np.isfinite(values).all():
        raise PixelsUnusable("damaged", "the float picture holds values that are not numbers")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > EIGHT_BIT_MAXIMUM:
        return _stretched(values)
    scale = EIGHT_BIT_MAXIMUM if high <= 1 else 1
    return np.rint(values * scale).astype(np.uint8)


def _stretched(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Darkest value to black, brightest to white: all that can be said about a scale nobody wrote down."""
    low, high = float(values.min()), float(values.max())
    span = high - low if high > low else 1.0
    return np.rint((values - low) / span * EIGHT_BIT_MAXIMUM).astype(np.uint8)
