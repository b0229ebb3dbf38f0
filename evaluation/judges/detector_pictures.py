"""Pictures for detectors: upright RGB pixels, decoded in processes of their own if wanted."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from evaluation.subjects import UNDECODABLE
from reca_core.contracts.lifeline import PARENT_VARIABLE, die_with_parent

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


class PictureReader:
    """Decodes many pictures, in ``processes`` helpers or, with 0, right here."""

    def __init__(self, processes: int = 0) -> None:
        self._pool: ProcessPoolExecutor | None = None
        if processes:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(processes, context, _tie, (os.getpid(),))

    def read(self, paths: Sequence[Path]) -> list[Pixels | str]:
        """One array or reason per path, in order."""
        if self._pool is None:
            return [pixels(path) for path in paths]
        return list(self._pool.map(pixels, paths))

    def close(self) -> None:
        """End the helpers."""
        if self._pool is not None:
            self._pool.shutdown()


def _tie(parent: int) -> None:
    os.environ[PARENT_VARIABLE] = str(parent)
    die_with_parent()
