"""The reader of the rendered world: which shape of which colour is in which cell of a picture, and how surely.

Every cell is compared with every shape, shifted by up to a sixteenth of the picture, in the colour that fits best in
the least-squares sense. What counts is the rivalry of shapes, because absolute misfit cannot tell a noisy ring from a
blurred square: with R1 the squared misfit of the best shape and R2 that of the best other shape,
``rivalry = R1 / R2`` is 0 on a clean picture and 1 where nothing speaks for one shape. ``score`` falls from 1 to 0 with
it through two fixed points, chosen before any model was judged (docs/shapeworld.md has the measurements):

- CLEAR_RIVALRY scores 0.9, GenEval's threshold for counting: whole, hardly damaged objects reach it;
- DOUBTFUL_RIVALRY scores 0.3, GenEval's threshold for everything else: random patches of the world stay below it.

numpy only. Below 32 pixels pictures are read as they are, larger ones after averaging down to 32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from PIL import Image

from evaluation.records import Box, Finding
from reca_core.contracts.world import BACKGROUND, COLOURS, GRID, SHAPES, SMALLEST_PIXELS
from reca_core.contracts.world_raster import SAMPLES, coverage

READER_VERSION = 1
"""Raised by whoever changes what the reader says about any picture: part of the judge's identity."""
WORKING_PIXELS = 32
SHIFT_FRACTION = 16
"""An object may lie off its place by the side divided by this."""
CLEAR_RIVALRY, CLEAR_SCORE = 0.2, 0.9
DOUBTFUL_RIVALRY, DOUBTFUL_SCORE = 0.7, 0.3
LOWEST_SCORE = 0.05
"""Findings below are not reported."""
SMALLEST_ENERGY = 1e-6
"""In squared colour steps: keeps an empty cell from dividing by zero."""
FULL_COVERAGE = 0.99
"""Pixels with at least so much of a shape show its colour."""

CELLS = GRID * GRID
GROUND = np.array(BACKGROUND, dtype=np.float64)
PALETTE = np.array(list(COLOURS.values()), dtype=np.float64) - GROUND
"""[colours, 3], as differences from the ground."""
FAINT = float(np.linalg.norm(PALETTE, axis=1).min()) / 2
"""Contrast with the ground below which the score fades: half that of the palest colour."""


@dataclass(frozen=True)
class _Cell:
    """What one cell of a picture of one size is compared with. n pixels, s shapes."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    templates: Float64[np.ndarray, "s n"]
    """Coverage 0 to 1."""
    energies: Float64[np.ndarray, " s"]
    boxes: tuple[tuple[int, int, int, int], ...]
    """Of every shape, in pixels: where it covers at least half a pixel; corners exclusive at the far side."""


@functools.cache
def _cell(cell: int, size: int) -> _Cell:
    row, column = divmod(cell, GRID)
    rows, columns = _span(row, size), _span(column, size)
    covers = np.stack([coverage(shape, cell, size) / SAMPLES for shape in SHAPES])
    templates = covers[:, rows[0] : rows[1], columns[0] : columns[1]].reshape(len(SHAPES), -1)
    boxes = tuple(_bounds(cover) for cover in covers)
    return _Cell(rows, columns, templates, (templates**2).sum(axis=1), boxes)


def _span(index: int, size: int) -> tuple[int, int]:
    """First and last + 1 pixel that a row or column of cells touches."""
    return index * size // GRID, -(-(index + 1) * size // GRID)


def _bounds(cover: Float64[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(cover >= cover.max() / 2)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


@dataclass(frozen=True)
class CellReading:
    """What the reader makes of one cell."""

    finding: Finding | None
    """The object in it, or None."""
    ink: float
    """Root mean square difference from the ground, in units of FAINT: 0 for an empty cell."""

    def cleanness(self) -> float:
        """How sure an object is, or how empty an empty cell, 0 to 1."""
        return self.finding.score if self.finding else max(0.0, 1.0 - self.ink)


def read_picture(image: Image.Image) -> list[Finding]:
    """Every object that the reader sees, at most one per cell, in the order of the cells; possibly none.

    Args:
        image: any mode and size. A picture that is not square or is smaller than SMALLEST_PIXELS shows nothing.
    Returns: findings with box in pixels of ``image``, score 0 to 1, and the nearest colour word of the world.
    """
    return [reading.finding for reading in read_cells(image) if reading.finding]


def read_cells(image: Image.Image) -> list[CellReading]:
    """One reading per cell, in the order of the cells; see ``read_picture``. A picture of another form is all ink."""
    width, height = image.size
    if width != height or width < SMALLEST_PIXELS:
        return [CellReading(None, 1.0)] * CELLS
    image = image.convert("RGB")
    if width > WORKING_PIXELS:
        image = image.resize((WORKING_PIXELS, WORKING_PIXELS), Image.Resampling.BOX)
    size = image.width
    differences = np.asarray(image, dtype=np.float64) - GROUND
    reach = _reach(size)
    padded = np.pad(differences, ((reach, reach), (reach, reach), (0, 0)))
    return [_read_cell(padded, _cell(cell, size), size, width / size) for cell in range(CELLS)]


def _reach(size: int) -> int:
    return max(1, round(size / SHIFT_FRACTION))


@functools.cache
def _shifts(reach: int) -> tuple[tuple[int, int], ...]:
    """(dy, dx), the smallest first."""
    steps = sorted(range(-reach, reach + 1), key=abs)
    return tuple((dy, dx) for dy in steps for dx in steps)


def _read_cell(padded: Float64[np.ndarray, "h w 3"], known: _Cell, size: int, scale: float) -> CellReading:
    shifts = _shifts(_reach(size))
    windows = _windows(padded, known, _reach(size))
    # [shifts, shapes, 3]: the least-squares colour is this divided by the shape's energy
    projections = np.matmul(known.templates, windows)
    explained = (projections**2).sum(axis=2) / known.energies
    misfits = np.maximum(np.einsum("knc,knc->k", windows, windows)[:, None] - explained, 0.0)
    shift, shape = _best(misfits, explained)
    # the first window is the cell itself
    ink = float(np.sqrt((windows[0] ** 2).sum() / len(windows[0]))) / FAINT
    rivals = np.delete(misfits, shape, axis=1).min()
    if rivals <= 0:
        return CellReading(None, ink)
    contrast = np.sqrt(explained[shift, shape] / known.energies[shape])
    score = _score(misfits[shift, shape] / rivals) * min(1.0, contrast / FAINT)
    if score < LOWEST_SCORE:
        return CellReading(None, ink)
    dy, dx = shifts[shift]
    box = _moved(known.boxes[shape], dx, dy, size, scale)
    colour = _colour(windows[shift], known.templates[shape])
    return CellReading(Finding(label=SHAPES[shape], box=box, score=float(score), colour=colour), ink)


def _windows(padded: Float64[np.ndarray, "h w 3"], known: _Cell, reach: int) -> Float64[np.ndarray, "k n 3"]:
    """The pixels of a cell under every shift."""
    (top, bottom), (left, right) = known.rows, known.columns
    return np.stack(
        [
            padded[reach + top + dy : reach + bottom + dy, reach + left + dx : reach + right + dx].reshape(-1, 3)
            for dy, dx in _shifts(reach)
        ]
    )


def _best(misfits: Float64[np.ndarray, "k s"], explained: Float64[np.ndarray, "k s"]) -> tuple[int, int]:
    """Shift and shape with the smallest misfit relative to what the shape explains; the smallest shift on a tie."""
    relative = misfits / np.maximum(explained, SMALLEST_ENERGY)
    shift, shape = np.unravel_index(int(relative.argmin()), relative.shape)
    return int(shift), int(shape)


def _score(rivalry: float) -> float:
    known = (0.0, CLEAR_RIVALRY, DOUBTFUL_RIVALRY, 1.0)
    return float(np.interp(rivalry, known, (1.0, CLEAR_SCORE, DOUBTFUL_SCORE, 0.0)))


def _colour(window: Float64[np.ndarray, "n 3"], template: Float64[np.ndarray, " n"]) -> str:
    """Nearest colour word to the mean of the shape's full pixels, without the half of them that is nearest the ground.

    Leaving out that half makes a missing part or a blurred edge harmless.
    """
    full = window[template >= min(FULL_COVERAGE, template.max())]
    order = np.argsort((full**2).sum(axis=1), kind="stable")
    shown = full[order[len(full) // 2 :]].mean(axis=0)
    return tuple(COLOURS)[int(((PALETTE - shown) ** 2).sum(axis=1).argmin())]


def _moved(bounds: tuple[int, int, int, int], dx: int, dy: int, size: int, scale: float) -> Box:
    """Bounds under a shift, inside the picture, in pixels of the picture that was given."""
    x1, y1, x2, y2 = bounds
    corners = (x1 + dx, y1 + dy, x2 + dx, y2 + dy)
    left, top, right, bottom = (scale * min(max(corner, 0), size) for corner in corners)
    return left, top, right, bottom
