"""The loss curves as SVG path data, computed here because the page runs no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from reca_core.contracts.files import read_jsonl
from tasks.report_page import Chart, Series

WIDTH, HEIGHT = 760, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 28
"""Margins around the curves: room for the tick labels."""
MOST_POINTS = 240
"""Longer runs are averaged over equal stretches, so that a spike cannot hide between two drawn points."""
TICKS = 5
ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
PREFIX, SUFFIX = "train/", "_loss"

Points = Sequence[tuple[float, float]]


def loss_chart(metrics_file: Path) -> Chart | None:
    """The losses in a run's metrics.jsonl over its steps; None where nothing was logged."""
    curves = read_curves(metrics_file)
    if not curves:
        return None
    every = [point for points in curves.values() for point in points]
    x_axis = Axis(min(x for x, _ in every), max(x for x, _ in every), LEFT, WIDTH - RIGHT)
    y_axis = Axis(min(0.0, min(y for _, y in every)), max(y for _, y in every), HEIGHT - BOTTOM, TOP)
    series = tuple(_series(name, points, x_axis, y_axis) for name, points in curves.items())
    return Chart(WIDTH, HEIGHT, series, x_axis.ticks(), y_axis.ticks())


def read_curves(metrics_file: Path) -> dict[str, list[tuple[float, float]]]:
    """Loss name -> (step, value), in the order of first appearance."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in read_jsonl(metrics_file):
        for key, value in row.items():
            if key.startswith(PREFIX) and key.endswith(SUFFIX) and math.isfinite(value):
                name = key.removeprefix(PREFIX).removesuffix(SUFFIX).replace("_", " ")
                curves.setdefault(name, []).append((float(row["step"]), float(value)))
    return curves


class Axis:
    """A linear map from values to pixels, with round numbers for the ticks."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = low, high if high > low else low + 1.0
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Pixel and label of every tick."""
        step = round_step((self.high - self.low) / TICKS)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        return tuple((round(self(n * step), 1), f"{n * step:.10g}") for n in range(first, last + 1))


def round_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in ROUND_STEPS if factor * power >= rough * (1 - 1e-9))


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most ``MOST_POINTS`` points, each the mean of a stretch of neighbours."""
    stride = math.ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [(_mean([x for x, _ in group]), _mean([y for _, y in group])) for group in groups]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _series(name: str, points: Points, x_axis: Axis, y_axis: Axis) -> Series:
    path = "L".join(f"{x_axis(x):.1f} {y_axis(y):.1f}" for x, y in thinned(points))
    return Series(name, f"M{path}", f"{points[0][1]:.3g}", f"{points[-1][1]:.3g}")


def summary(curves: Mapping[str, Points]) -> dict[str, tuple[float, float]]:
    """Loss name -> first and last value."""
    return {name: (points[0][1], points[-1][1]) for name, points in curves.items()}
