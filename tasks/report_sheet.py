"""A contact sheet of reconstructions: photograph, what the encoder saw, the tokenizer's ceiling, the reconstruction.

Read from left to right it says where detail is lost: between the first two columns by the encoder's resolution, in
the third by the image tokenizer alone, in the fourth by everything. The rows are the strips that the sampler wrote;
few pixels are enlarged there without smoothing, so the sheet cannot flatter the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from reca_core.data.png import GAP_PIXELS, STRIP_PIXELS

HEADINGS = ("photograph", "what the encoder saw", "the tokenizer's own ceiling", "reconstruction")
MARGIN = 24
HEADING_HEIGHT = 52
LINE_HEIGHT = 24
FONT_SIZE = 18
PAPER, INK, QUIET = "#ffffff", "#1d2230", "#5f6678"
CHARACTERS_PER_LINE = 112


def write_sheet(strips: Sequence[Path], caption: str, output: Path) -> Path:
    """Stack strips of four columns under their headings, the caption below all, as a PNG; returns ``output``.

    Raises OSError for a strip that cannot be read.
    """
    lines = wrapped(caption, CHARACTERS_PER_LINE)
    pitch = STRIP_PIXELS + GAP_PIXELS
    width = len(HEADINGS) * pitch - GAP_PIXELS + 2 * MARGIN
    below = HEADING_HEIGHT + len(strips) * pitch
    sheet = Image.new("RGB", (width, below + (len(lines) + 1) * LINE_HEIGHT), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for column, heading in enumerate(HEADINGS):
        pen.text((MARGIN + column * pitch, MARGIN - FONT_SIZE // 2), heading, INK, font)
    for row, path in enumerate(strips):
        with Image.open(path) as strip:
            sheet.paste(strip.convert("RGB"), (MARGIN, HEADING_HEIGHT + row * pitch))
    for number, line in enumerate(lines):
        pen.text((MARGIN, below + number * LINE_HEIGHT), line, QUIET, font)
    sheet.save(output, "PNG", optimize=True)
    return output


def wrapped(text: str, characters: int) -> list[str]:
    """Words in lines of at most this many characters; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= characters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
