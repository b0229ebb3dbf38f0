"""Pictures for detectors: upright RGB pixels, decoded in helpers ahead of need, so that the device does not wait."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from evaluation.helpers import Ahead
from evaluation.subjects import UNDECODABLE

Pixels = UInt8[np.ndarray, "height width 3"]
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")
TO_EIGHT_BIT = 1 / 256


def upright(path: Path) -> Image.Image:
    """The picture as people see it: EXIF orientation applied, RGB, 16-bit grey scaled; transparency is dropped.

    Raises one of ``UNDECODABLE`` for a file that is no picture.
    """
    with Image.open(path) as opened:
        picture: Image.Image = ImageOps.exif_transpose(opened)
        if picture.mode in SIXTEEN_BIT:
            grey = np.asarray(picture, dtype=np.float64) * TO_EIGHT_BIT
            picture = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
        return picture.convert("RGB")


def pixels(path: Path) -> Pixels | str:
    """The picture as an array, or why there is none: an exception would not say which picture it was."""
    try:
        return np.asarray(upright(path))
    except UNDECODABLE as error:
        return f"{path.name} cannot be decoded: {type(error).__name__}"


class PictureReader(Ahead[Path, "Pixels | str"]):
    """Decodes many pictures, in ``processes`` helpers or, with 0, right here."""

    def __init__(self, processes: int = 0) -> None:
        super().__init__(pixels, processes)

    def read(self, paths: Sequence[Path]) -> list[Pixels | str]:
        """One array or reason per path, in order. Raises StageFailed where a helper is gone."""
        return self.results(paths)
