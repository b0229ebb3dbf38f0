"""Pictures inside a page: ``data:`` addresses, so that the report loads nothing, at a size that a page can carry."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from tasks.report_page import Picture

LONGEST_SIDE = 384
"""Larger pictures are reduced to this many pixels; smaller ones stay as they are and the page enlarges them."""
SMALL_SIDE = 128
"""Up to here single pixels carry the content, and enlarging must not smooth them away."""


def embed(path: Path, note: str = "", verdict: str = "none") -> Picture:
    """A picture file as part of the page; where it cannot be read the note says so."""
    tone = {"good": "good", "bad": "bad"}.get(verdict, "none")
    try:
        with Image.open(path) as picture:
            reduced = picture.convert("RGB")
    except OSError as error:
        return Picture("", f"{path.name} cannot be read: {error}")
    small = max(reduced.size) <= SMALL_SIDE
    if not small:
        reduced.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return Picture(data_address(reduced), note, tone, small)  # type: ignore[arg-type]


def data_address(picture: Image.Image) -> str:
    """A picture as a ``data:image/png`` address."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
