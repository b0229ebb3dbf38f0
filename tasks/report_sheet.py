"""A contact sheet of reconstructions: photograph, what the encoder saw, the tokenizer's ceiling, the reconstruction.

Read from left to right it says where detail is lost: between the first two columns by the encoder's resolution, in the
third by the image tokenizer alone, in the fourth by everything. Few pixels are enlarged without smoothing, so that the
sheet cannot flatter the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("photograph", "what the encoder saw", "tokenizer's own ceiling", "reconstruction")
CELL = 200
"""Side of a picture on the sheet, in pixels."""
GAP = 12
HEADER = 34
LINE = 20
FONT_SIZE = 14
PAPER, INK, QUIET = "#ffffff", "#1d2230", "#5f6678"
CHARACTERS_PER_LINE = 118


@dataclass(frozen=True)
class SheetRow:
    """One picture through the model."""

    photograph: Path
    seen: Path
    ceiling: Path
    reconstruction: Path


def write_sheet(rows: Sequence[SheetRow], caption: str, output: Path) -> Path:
    """Draw the rows below their headings, the caption below all, as a PNG. Raises OSError for unreadable pictures."""
    lines = wrapped(caption, CHARACTERS_PER_LINE)
    width = len(COLUMNS) * (CELL + GAP) + GAP
    height = HEADER + len(rows) * (CELL + GAP) + GAP + len(lines) * LINE
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for column, heading in enumerate(COLUMNS):
        pen.text((GAP + column * (CELL + GAP), GAP - 2), heading, INK, font)
    for number, row in enumerate(rows):
        top = HEADER + number * (CELL + GAP)
        for column, path in enumerate((row.photograph, row.seen, row.ceiling, row.reconstruction)):
            sheet.paste(cell(path), (GAP + column * (CELL + GAP), top))
    for number, line in enumerate(lines):
        pen.text((GAP, height - GAP // 2 - (len(lines) - number) * LINE), line, QUIET, font)
    sheet.save(output, "PNG", optimize=True)
    return output


def cell(path: Path) -> Image.Image:
    """A picture as a square cell: cropped to its centre, enlarged without smoothing or reduced with it."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    smooth = Image.Resampling.NEAREST if side < CELL else Image.Resampling.LANCZOS
    return square.resize((CELL, CELL), smooth)


def wrapped(text: str, characters: int) -> list[str]:
    """Words in lines of at most this many characters."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= characters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
