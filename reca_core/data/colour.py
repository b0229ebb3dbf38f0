"""The colours of a picture set: mean and deviation per channel, and which way the set is tinted.

Why it is measured: RecA regenerates what it is shown, and a public report of RecA on a tinted data set found the
model's own pictures tinted afterwards (upstream issue 13: a yellow cast). Preparation records the statistics in
``prepared.json`` and says so when a set is tinted; the same function measures what a model draws, for comparison.

The cast is the mean colour's distance from grey in CIE L*a*b* (CIE 15, D65), which has the eye's own axes: a* runs from
green to red, b* from blue to yellow. Photographs of the world are slightly warm, so a limit above 0 is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image, ImageStat

from reca_core.contracts.base import Record

THUMBNAIL_SIDE = 64
"""Colours are measured on the picture shrunk to about this shorter side: what a small encoder sees of it."""
TINTED = 12.0
"""Chroma of a set's mean colour beyond which it is called tinted (docs/data.md has measured examples)."""
SURE_ERRORS = 2.0
"""Standard errors by which the chroma must exceed it: six photographs of warm things are no tinted set."""
FULL = 255.0
SUMS = 9
"""Running sums over pictures: three means, three mean squares, a*, b* and squared cast."""
HUES = ("pink", "orange", "yellow", "green", "turquoise", "sky blue", "blue", "purple")
"""Names of the directions in the a*b* plane, an eighth of a turn each, the first centred on +a*."""

SRGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
"""IEC 61966-2-1, D65."""
WHITE_XYZ = tuple(sum(row) for row in SRGB_TO_XYZ)


@dataclass(frozen=True)
class Colours:
    """One picture: means of R, G, B and of their squares, as fractions of full scale."""

    mean: tuple[float, float, float]
    mean_square: tuple[float, float, float]


class ColourStatistics(Record):
    """A set of pictures, each counted equally. R, G, B are fractions of full scale."""

    mean: list[float]
    """Mean of R, G, B."""
    deviation: list[float]
    """Standard deviation of R, G, B over all shrunk pixels of all pictures."""
    cast_a: float
    """a* of the mean colour: negative is green, positive is red."""
    cast_b: float
    """b* of the mean colour: negative is blue, positive is yellow."""
    cast: float
    """Distance of the mean colour from grey."""
    spread: float
    """How far single pictures' casts scatter around their mean: photographs have about 20, a tint moves all alike."""
    direction: str
    """The hue of the cast in a word; empty if the set is not tinted."""


def colours_of(picture: Image.Image) -> Colours:
    """Means of one RGB picture, shrunk first."""
    factor = max(1, min(picture.size) // THUMBNAIL_SIDE)
    statistics = ImageStat.Stat(picture.reduce(factor))
    pixels = statistics.count[0]
    mean = [total / pixels / FULL for total in statistics.sum]
    squares = [total / pixels / FULL**2 for total in statistics.sum2]
    return Colours((mean[0], mean[1], mean[2]), (squares[0], squares[1], squares[2]))


def statistics_of(pictures: Iterable[Colours]) -> ColourStatistics:
    """The statistics of a set, in one pass. Raises ValueError for an empty one."""
    count = 0
    sums = [0.0] * SUMS
    for picture in pictures:
        count += 1
        a, b = _lab_cast(picture.mean)
        values = (*picture.mean, *picture.mean_square, a, b, a * a + b * b)
        sums = [total + value for total, value in zip(sums, values, strict=True)]
    if count == 0:
        raise ValueError("no picture to measure")
    mean = (sums[0] / count, sums[1] / count, sums[2] / count)
    squares = [total / count for total in sums[3:6]]
    mean_a, mean_b, mean_square = (total / count for total in sums[6:])
    cast_a, cast_b = _lab_cast(mean)
    cast = math.hypot(cast_a, cast_b)
    spread = math.sqrt(max(0.0, mean_square - mean_a**2 - mean_b**2))
    tinted = cast - SURE_ERRORS * spread / math.sqrt(count) > TINTED
    return ColourStatistics(
        mean=[round(value, 6) for value in mean],
        deviation=[round(math.sqrt(max(0.0, s - m * m)), 6) for s, m in zip(squares, mean, strict=True)],
        cast_a=round(cast_a, 3),
        cast_b=round(cast_b, 3),
        cast=round(cast, 3),
        spread=round(spread, 3),
        direction=_hue(cast_a, cast_b) if tinted else "",
    )


def _lab_cast(rgb: tuple[float, float, float]) -> tuple[float, float]:
    """a*, b* of an sRGB colour."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
    xyz = [sum(weight * value for weight, value in zip(row, linear, strict=True)) for row in SRGB_TO_XYZ]
    x, y, z = (_compressed(value / white) for value, white in zip(xyz, WHITE_XYZ, strict=True))
    return 500 * (x - y), 200 * (y - z)


def _compressed(ratio: float) -> float:
    """CIE 15: cube root, linear below (6/29)^3."""
    limit = 6 / 29
    return ratio ** (1 / 3) if ratio > limit**3 else ratio / (3 * limit**2) + 4 / 29


def _hue(a: float, b: float) -> str:
    turn = math.atan2(b, a) / (2 * math.pi) % 1
    return HUES[round(turn * len(HUES)) % len(HUES)]
