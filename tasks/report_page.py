"""What stands on the report page, as plain values: the border between reading run directories and drawing HTML.

Everything is text or a ready-made picture; the template (tasks/pages/report.html.jinja) escapes all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["better", "worse", "unclear"]
"""What an interval says: wholly above zero, wholly below, or neither."""


@dataclass(frozen=True)
class Verdict:
    """The answer to "did it help?", true for any sign."""

    tone: Tone
    headline: str
    detail: str


@dataclass(frozen=True)
class TableRow:
    """One line of a comparison."""

    name: str
    base: str
    trained: str
    difference: str
    interval: str
    coverage: str
    complete: bool
    tone: Tone
    bar: str
    """SVG path data of the interval on a scale that all rows of the table share; empty where there is none."""
    dot: str
    """Horizontal position of the difference on that scale; empty where there is none."""
    headline: bool
    """True for the row that the benchmark is quoted by."""


@dataclass(frozen=True)
class ScoreSection:
    """One benchmark."""

    benchmark: str
    verdict: Verdict
    rows: tuple[TableRow, ...]
    caption: str
    refusal: str
    judge: str


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    source: str
    """``data:`` address; empty where the file is missing."""
    note: str
    """What is said below it."""
    tone: Literal["good", "bad", "none"] = "none"
    small: bool = True
    """Few pixels: enlarged without smoothing."""


@dataclass(frozen=True)
class Pair:
    """One prompt drawn by both models with the same seed."""

    prompt: str
    tag: str
    base: Picture
    trained: Picture


@dataclass(frozen=True)
class Strip:
    """One fixed input over the course of the training."""

    label: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Series:
    """One curve."""

    name: str
    path: str
    """SVG path data."""
    first: str
    last: str


@dataclass(frozen=True)
class Chart:
    """Loss over steps. Coordinates are in the view box ``0 0 width height``."""

    width: int
    height: int
    series: tuple[Series, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    base_name: str
    trained_name: str
    size: str
    """How large the model is, in words."""
    scores: tuple[ScoreSection, ...]
    pairs: tuple[Pair, ...]
    chart: Chart | None
    strips: tuple[Strip, ...]
    facts: tuple[tuple[str, str], ...]
    """Provenance: name and value."""
    commands: tuple[tuple[str, str], ...]
    """What to see and the command that shows it."""
    links: tuple[tuple[str, str], ...]
    """Name and http address."""
    seconds: tuple[tuple[str, str], ...]
    """Stage and duration."""
