"""Arms as tables and a figure, for a study and for a sweep: values, and differences to the base with their intervals.

The figure shows, for every arm, the difference to the base with its interval, one line per number.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.study import Distribution, Distributions, StudyRow
from evaluation.study_claims import BASE, DRAWS, EXACT_MATCH, OVERALL, UNDERSTANDS
from reca_core.contracts.files import atomic_write_text, write_json
from reca_core.contracts.hashing import HASH_LENGTH, sha256_text
from tasks.home import current_home
from tasks.report import link_latest
from tasks.report_charts import Axis

DIGITS = 3
NAME_WIDTH, PANEL_WIDTH, PANEL_GAP, LINE_HEIGHT, HEADER, FOOTER = 130, 150, 14, 22, 34, 24
FIGURE_ROWS = (OVERALL, "single_object", "two_object", "counting", "colors", "position", "color_attr")


@dataclass(frozen=True)
class Arm:
    """What was measured on one arm, all its trainings together."""

    name: str
    numbers: Mapping[str, Distributions]
    """Benchmark -> row -> number."""
    trainings: int
    steps: int
    """Optimizer steps of each training."""
    pictures: int
    """Pictures per training and term: steps times pictures per step."""
    seconds: Sequence[float]
    """Of each training."""


def write_files(name: str, page: str, figure: str, numbers: dict[str, object], identities: Sequence[str]) -> list[Path]:
    """``name.md`` for people, ``name.svg`` to look at, ``name.json`` for everything else, in a directory named by what
    was judged; returns them in this order."""
    folder = current_home().reports / sha256_text(" ".join(identities))[:HASH_LENGTH]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{suffix}" for suffix in ("md", "svg", "json")]
    atomic_write_text(files[0], page)
    atomic_write_text(files[1], figure)
    write_json(files[2], numbers)
    link_latest(folder)
    return files


def base_of(arms: Sequence[Arm]) -> Arm:
    """What the arms are compared with."""
    return next(arm for arm in arms if arm.name == BASE)


def arm_json(arm: Arm, base: Arm) -> dict[str, object]:
    """Every number of an arm and its difference to the base."""
    numbers = {f"{name}/{row}": found.row().model_dump() for name, row, found in _each(arm)}
    gains = {f"{name}/{row}": gain(arm, base, name, row).row().model_dump() for name, row, _ in _each(arm)}
    facts = {"trainings": arm.trainings, "steps": arm.steps, "pictures": arm.pictures, "seconds": list(arm.seconds)}
    return {**facts, "numbers": numbers, "differences": gains}


def _each(arm: Arm) -> Iterator[tuple[str, str, Distribution]]:
    for benchmark, rows in arm.numbers.items():
        for row, number in rows.items():
            yield benchmark, row, number


def gain(arm: Arm, base: Arm, benchmark: str, row: str) -> Distribution:
    """One number less the base's."""
    return arm.numbers[benchmark][row] - base.numbers[benchmark][row]


# --- tables ----------------------------------------------------------------------------------------------------------


def table(arms: Sequence[Arm], benchmark: str) -> list[str]:
    """One benchmark in Markdown: an arm's values, and below them the differences to the base."""
    base = base_of(arms)
    rows = list(base.numbers[benchmark])
    lines = [f"`{benchmark}`: value, and below it the difference to the base", ""]
    lines += ["| arm | " + " | ".join(row.replace("_", " ") for row in rows) + " |", "|---|" + "---:|" * len(rows)]
    for arm in arms:
        values = [value(arm.numbers[benchmark][row].row()) for row in rows]
        lines.append(f"| {arm.name} | " + " | ".join(values) + " |")
        if arm.name != BASE:
            gains = [gain(arm, base, benchmark, row).row() for row in rows]
            lines.append("| | " + " | ".join(f"{signed(one)} ({interval(one)})" for one in gains) + " |")
    return lines


def costs(arms: Sequence[Arm]) -> list[str]:
    """What each arm took."""
    lines = ["| arm | trainings | steps | pictures per term | seconds per training |", "|---|---:|---:|---:|---:|"]
    for arm in arms:
        if arm.trainings:
            seconds = sum(arm.seconds) / len(arm.seconds)
            lines.append(f"| {arm.name} | {arm.trainings} | {arm.steps} | {arm.pictures} | {seconds:.0f} |")
    return lines


def value(row: StudyRow | None) -> str:
    """A number, or a dash."""
    return "–" if row is None or row.value is None else f"{row.value:.{DIGITS}f}"


def signed(row: StudyRow) -> str:
    """A difference, or a dash."""
    return "–" if row.value is None else f"{row.value:+.{DIGITS}f}"


def interval(row: StudyRow | None) -> str:
    """Its ends, or a dash."""
    if row is None or row.low is None or row.high is None:
        return "–"
    return f"{row.low:+.{DIGITS}f} to {row.high:+.{DIGITS}f}"


# --- figure -----------------------------------------------------------------------------------------------------------


def svg(every: Sequence[Arm]) -> str:
    """Differences to the base: one panel per arm, one line per number, a bar for the interval, a dot for the value."""
    base, arms = base_of(every), [arm for arm in every if arm.name != BASE]
    rows = [(DRAWS, row) for row in FIGURE_ROWS] + [(UNDERSTANDS, EXACT_MATCH)]
    rows = [(name, row) for name, row in rows if row in base.numbers.get(name, {})]
    gains = {(arm.name, *key): gain(arm, base, *key).row() for arm in arms for key in rows}
    ends = [end for one in gains.values() for end in (one.low, one.high, one.value) if end is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    width = NAME_WIDTH + len(arms) * (PANEL_WIDTH + PANEL_GAP)
    height = HEADER + len(rows) * LINE_HEIGHT + FOOTER
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for line, (_, row) in enumerate(rows):
        parts.append(_text(NAME_WIDTH - 10, _middle(line) + 4, row.replace("_", " "), "end"))
    for place, arm in enumerate(arms):
        start = NAME_WIDTH + place * (PANEL_WIDTH + PANEL_GAP)
        axis = Axis(low, high, start, start + PANEL_WIDTH)
        parts += _panel(arm.name, [gains[arm.name, *key] for key in rows], axis, start)
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, gains: Sequence[StudyRow], axis: Axis, start: float) -> Iterator[str]:
    bottom = HEADER + len(gains) * LINE_HEIGHT
    yield _text(start, HEADER - 14, name, "start")
    yield f'<rect x="{start}" y="{HEADER}" width="{PANEL_WIDTH}" height="{bottom - HEADER}" fill="#f6f6f6"/>'
    yield f'<line x1="{axis(0):.1f}" x2="{axis(0):.1f}" y1="{HEADER}" y2="{bottom}" stroke="#888"/>'
    for pixel, label in axis.ticks():
        if start <= pixel <= start + PANEL_WIDTH:
            yield _text(pixel, bottom + 14, label, "middle")
    for line, one in enumerate(gains):
        yield from _mark(one, axis, _middle(line))


def _mark(one: StudyRow, axis: Axis, y: float) -> Iterator[str]:
    if one.value is None:
        return
    colour = "#777"
    if one.low is not None and one.high is not None:
        colour = "#0a7d38" if one.low > 0 else "#b3261e" if one.high < 0 else colour
        ends = f'x1="{axis(one.low):.1f}" x2="{axis(one.high):.1f}"'
        yield f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
    yield f'<circle cx="{axis(one.value):.1f}" cy="{y}" r="3.5" fill="{colour}"/>'


def _middle(line: int) -> float:
    return HEADER + (line + 0.5) * LINE_HEIGHT


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
