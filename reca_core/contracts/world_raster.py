"""The one rasteriser of the rendered world: which part of each pixel a shape covers. numpy, no torch.

Renderer and reader both use it, so a clean picture is exactly what the reader expects. Points are compared in float64
with one rounding per operation and counted in integers: the same on every machine.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from reca_core.contracts.errors import BadInput
from reca_core.contracts.world import BACKGROUND, COLOURS, GRID, SMALLEST_PIXELS, SUPERSAMPLE, inside

SAMPLES = SUPERSAMPLE * SUPERSAMPLE
"""Sample points per pixel: a coverage of SAMPLES is a full pixel."""


def check_size(size_pixels: int) -> None:
    """Raises BadInput for a side below SMALLEST_PIXELS."""
    if size_pixels < SMALLEST_PIXELS:
        raise BadInput(
            f"{size_pixels} pixels", field="scene_size_pixels", remedy=f"render at {SMALLEST_PIXELS} or more"
        )


def cell_coordinates(size_pixels: int, index: int) -> npt.NDArray[np.float64]:
    """Coordinate, in one axis and in units of cell ``index``, of every sample point: [-1, 1] lies inside the cell.

    Returns: [size_pixels * SUPERSAMPLE].
    """
    points = size_pixels * SUPERSAMPLE
    twice = 2 * np.arange(points, dtype=np.int64) + 1
    return (GRID * twice - (2 * index + 1) * points) / np.float64(points)


@functools.lru_cache(maxsize=256)
def coverage(shape: str, cell: int, size_pixels: int) -> npt.NDArray[np.int64]:
    """Sample points of every pixel that a shape in a cell covers, 0 to SAMPLES.

    Args:
        shape: one of SHAPES.
        cell: GRID * row + column.
        size_pixels: side of the picture.
    Returns: [size_pixels, size_pixels], read-only.
    """
    check_size(size_pixels)
    row, column = divmod(cell, GRID)
    x = cell_coordinates(size_pixels, column)
    y = cell_coordinates(size_pixels, row).reshape(size_pixels, SUPERSAMPLE)
    counts = np.zeros((size_pixels, size_pixels), dtype=np.int64)
    for pixel_row in range(size_pixels):
        if abs(y[pixel_row]).min() <= 1:
            hit = inside(shape, x[None, :], y[pixel_row][:, None])
            counts[pixel_row] = hit.reshape(SUPERSAMPLE, size_pixels, SUPERSAMPLE).sum(axis=(0, 2))
    counts.setflags(write=False)
    return counts


def paint(objects: Mapping[int, tuple[str, str]], size_pixels: int) -> npt.NDArray[np.uint8]:
    """The picture of some objects on plain ground.

    Args:
        objects: cell -> (shape, colour word).
        size_pixels: side of the picture.
    Returns: RGB, [size_pixels, size_pixels, 3].
    Raises: BadInput for a side below SMALLEST_PIXELS or an unknown shape.
    """
    check_size(size_pixels)
    background = np.array(BACKGROUND, dtype=np.int64)
    summed = np.full((size_pixels, size_pixels, 3), SAMPLES, dtype=np.int64) * background
    for cell, (shape, colour) in objects.items():
        difference = np.array(COLOURS[colour], dtype=np.int64) - background
        summed += coverage(shape, cell, size_pixels)[:, :, None] * difference
    return ((summed + SAMPLES // 2) // SAMPLES).astype(np.uint8)
