"""Pictures that this project makes: PNG files that are whole or not there."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

STRIP_PIXELS = 256
"""Side of a column in a strip; small model pictures are enlarged to it without smoothing."""
GAP_PIXELS = 8
GROUND = (255, 255, 255)


def write_png(path: Path, picture: Image.Image) -> str:
    """Write a picture as PNG under a temporary name and rename it; returns the SHA-256 of the file.

    Not synced to disk one by one: who relies on a picture after a power cut compares its recorded hash.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return hashlib.sha256(data).hexdigest()


def strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side in squares of ``STRIP_PIXELS``: enlarged without smoothing, shrunk with it."""
    canvas = Image.new("RGB", (len(pictures) * (STRIP_PIXELS + GAP_PIXELS) - GAP_PIXELS, STRIP_PIXELS), GROUND)
    for column, picture in enumerate(pictures):
        shown = _fitted(picture)
        left = column * (STRIP_PIXELS + GAP_PIXELS) + (STRIP_PIXELS - shown.width) // 2
        canvas.paste(shown, (left, (STRIP_PIXELS - shown.height) // 2))
    return canvas


def _fitted(picture: Image.Image) -> Image.Image:
    scale = STRIP_PIXELS / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
