"""Pictures of docs/families.md: every family's sequence with its attention mask, from reca_core.models.portraits.

Rows look, columns are looked at. A cell has the colour of what is looked at; a white cell is hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from reca_core.models.portraits import Portrait

COLOURS = {
    "text and marks": (120, 144, 156),
    "picture, as understood": (46, 125, 190),
    "picture, to be made": (230, 126, 34),
    "learned queries": (142, 68, 173),
    "padding": (205, 205, 205),
}
CELL, BAR, MARGIN, LINE, LEGEND = 9, 12, 14, 20, 250
"""Pixels: of a cell, the coloured bars beside the mask, the border, a line of words, the words' column."""
INK, PAPER, GRID = (40, 40, 40), (255, 255, 255), (236, 236, 236)
FONT_PIXELS = 13


def families(output: Path) -> Iterator[Path]:
    """Draw them all; yields each file as it is written."""
    from reca_core.models.portraits import portraits  # torch: only where figures are made

    for portrait in portraits():
        path = output / f"sequence-{portrait.name}.png"
        draw(portrait).save(path, optimize=True)
        yield path


def draw(portrait: Portrait) -> Image.Image:
    """One mask with its bars and the names of its segments."""
    length = len(portrait.kinds)
    side, origin = length * CELL, MARGIN + BAR + 2
    height = max(origin + side + MARGIN, MARGIN + (len(portrait.segments) + 4) * LINE)
    picture = Image.new("RGB", (origin + side + 2 * MARGIN + LEGEND, height), PAPER)
    pen = ImageDraw.Draw(picture)
    for place, kind in enumerate(portrait.kinds):
        at = origin + place * CELL
        pen.rectangle((at, MARGIN, at + CELL - 1, MARGIN + BAR - 1), fill=COLOURS[kind])
        pen.rectangle((MARGIN, at, MARGIN + BAR - 1, at + CELL - 1), fill=COLOURS[kind])
    for row, seen in enumerate(portrait.allowed.tolist()):
        for column, looks in enumerate(seen):
            left, top = origin + column * CELL, origin + row * CELL
            fill = COLOURS[portrait.kinds[column]] if looks else PAPER
            pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=fill, outline=GRID)
    _legend(pen, portrait, (origin + side + MARGIN, MARGIN))
    return picture


def _legend(pen: ImageDraw.ImageDraw, portrait: Portrait, at: tuple[int, int]) -> None:
    font = ImageFont.load_default(FONT_PIXELS)
    left, top = at
    pen.text((left, top), portrait.name, fill=INK, font=font)
    pen.text((left, top + LINE), "rows look, columns are looked at", fill=INK, font=font)
    for number, (kind, count) in enumerate(portrait.segments, 2):
        line = top + number * LINE + LINE // 2
        pen.rectangle((left, line + 2, left + BAR, line + 2 + BAR), fill=COLOURS[kind])
        pen.text((left + BAR + 6, line), f"{count} x {kind}", fill=INK, font=font)
