"""A study as files: ``study.md`` for people, ``study.svg`` to look at, ``study.json`` for everything else.

The figure shows, for every arm, the difference to the base with its interval, one line per number.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.study import Distribution, Distributions, StudyRow
from evaluation.study_claims import BASE, DRAWS, EXACT_MATCH, OVERALL, UNDERSTANDS, ClaimVerdict
from reca_core.contracts.files import atomic_write_text, write_json
from reca_core.contracts.hashing import HASH_LENGTH, sha256_text
from tasks.home import current_home
from tasks.report import link_latest
from tasks.report_charts import Axis

PAGE, FIGURE, NUMBERS = "study.md", "study.svg", "study.json"
DIGITS = 3
NAME_WIDTH, PANEL_WIDTH, PANEL_GAP, LINE_HEIGHT, HEADER, FOOTER = 130, 150, 14, 22, 34, 24
FIGURE_ROWS = (OVERALL, "single_object", "two_object", "counting", "colors", "position", "color_attr")


@dataclass(frozen=True)
class StudyArm:
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


@dataclass(frozen=True)
class Study:
    """A finished study."""

    arms: Sequence[StudyArm]
    verdicts: Sequence[ClaimVerdict]
    steps: int
    repetitions: int
    first_training_seed: int
    first_seed: int

    @property
    def base(self) -> StudyArm:
        """What the arms are compared with."""
        return next(arm for arm in self.arms if arm.name == BASE)


def write_study(study: Study, identities: Sequence[str]) -> list[Path]:
    """Page, figure and numbers, in a directory named by what was judged."""
    name = sha256_text(" ".join(identities))[:HASH_LENGTH]
    folder = current_home().reports / name
    folder.mkdir(parents=True, exist_ok=True)
    page, figure, numbers = folder / PAGE, folder / FIGURE, folder / NUMBERS
    atomic_write_text(page, markdown(study))
    atomic_write_text(figure, svg(study))
    write_json(numbers, as_json(study))
    link_latest(folder)
    return [page, figure, numbers]


def as_json(study: Study) -> dict[str, object]:
    """Every number and every difference to the base."""
    return {
        "steps": study.steps,
        "repetitions": study.repetitions,
        "first_training_seed": study.first_training_seed,
        "first_seed": study.first_seed,
        "claims": [verdict.model_dump() for verdict in study.verdicts],
        "arms": {arm.name: _arm_json(arm, study.base) for arm in study.arms},
    }


def _arm_json(arm: StudyArm, base: StudyArm) -> dict[str, object]:
    numbers = {f"{name}/{row}": found.row().model_dump() for name, row, found in _each(arm)}
    gains = {f"{name}/{row}": _gain(arm, base, name, row).row().model_dump() for name, row, _ in _each(arm)}
    facts = {"trainings": arm.trainings, "steps": arm.steps, "pictures": arm.pictures, "seconds": list(arm.seconds)}
    return {**facts, "numbers": numbers, "differences": gains}


def _each(arm: StudyArm) -> Iterator[tuple[str, str, Distribution]]:
    for benchmark, rows in arm.numbers.items():
        for row, number in rows.items():
            yield benchmark, row, number


def _gain(arm: StudyArm, base: StudyArm, benchmark: str, row: str) -> Distribution:
    return arm.numbers[benchmark][row] - base.numbers[benchmark][row]


# --- page -------------------------------------------------------------------------------------------------------------


def markdown(study: Study) -> str:
    """The claims, then one table per benchmark, then what each arm cost."""
    first, last = study.first_training_seed, study.first_training_seed + study.repetitions - 1
    many = f"{study.repetitions} trainings per arm (seeds {first} to {last})"
    trained, over = (
        (many, "trainings and prompts") if last > first else (f"one training per arm (seed {first})", "prompts")
    )
    lines = [
        f"{trained[0].upper()}{trained[1:]}, {study.steps} optimizer steps each; pictures drawn from seed "
        f"{study.first_seed} on. Intervals: 95%, over {over}.",
        "",
        *_claims(study.verdicts),
    ]
    for benchmark in study.base.numbers:
        lines += ["", f"`{benchmark}`: value, and below it the difference to the base", "", *_table(study, benchmark)]
    return "\n".join([*lines, "", *_costs(study.arms), ""])


def _claims(verdicts: Sequence[ClaimVerdict]) -> list[str]:
    rows = ["| | claim | measured | 95% interval | verdict |", "|---|---|---:|---:|---|"]
    for verdict in verdicts:
        value, interval = _value(verdict.measured), _interval(verdict.measured)
        rows.append(f"| {verdict.letter} | {verdict.claim} | {value} | {interval} | **{verdict.verdict}** |")
    return rows


def _table(study: Study, benchmark: str) -> list[str]:
    rows = list(study.base.numbers[benchmark])
    lines = ["| arm | " + " | ".join(row.replace("_", " ") for row in rows) + " |", "|---|" + "---:|" * len(rows)]
    for arm in study.arms:
        values = [_value(arm.numbers[benchmark][row].row()) for row in rows]
        lines.append(f"| {arm.name} | " + " | ".join(values) + " |")
        if arm.name != BASE:
            gains = [_gain(arm, study.base, benchmark, row).row() for row in rows]
            lines.append("| | " + " | ".join(f"{_signed(gain)} ({_interval(gain)})" for gain in gains) + " |")
    return lines


def _costs(arms: Sequence[StudyArm]) -> list[str]:
    lines = ["| arm | trainings | steps | pictures per term | seconds per training |", "|---|---:|---:|---:|---:|"]
    for arm in arms:
        if arm.trainings:
            seconds = sum(arm.seconds) / len(arm.seconds)
            lines.append(f"| {arm.name} | {arm.trainings} | {arm.steps} | {arm.pictures} | {seconds:.0f} |")
    return lines


def _value(row: StudyRow | None) -> str:
    return "–" if row is None or row.value is None else f"{row.value:.{DIGITS}f}"


def _signed(row: StudyRow) -> str:
    return "–" if row.value is None else f"{row.value:+.{DIGITS}f}"


def _interval(row: StudyRow | None) -> str:
    if row is None or row.low is None or row.high is None:
        return "–"
    return f"{row.low:+.{DIGITS}f} to {row.high:+.{DIGITS}f}"


# --- figure -----------------------------------------------------------------------------------------------------------


def svg(study: Study) -> str:
    """Differences to the base: one panel per arm, one line per number, a bar for the interval, a dot for the value."""
    arms = [arm for arm in study.arms if arm.name != BASE]
    rows = [(DRAWS, row) for row in FIGURE_ROWS] + [(UNDERSTANDS, EXACT_MATCH)]
    rows = [(name, row) for name, row in rows if row in study.base.numbers.get(name, {})]
    gains = {(arm.name, *key): _gain(arm, study.base, *key).row() for arm in arms for key in rows}
    ends = [end for gain in gains.values() for end in (gain.low, gain.high, gain.value) if end is not None]
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
    for line, gain in enumerate(gains):
        yield from _mark(gain, axis, _middle(line))


def _mark(gain: StudyRow, axis: Axis, y: float) -> Iterator[str]:
    if gain.value is None:
        return
    colour = "#777"
    if gain.low is not None and gain.high is not None:
        colour = "#0a7d38" if gain.low > 0 else "#b3261e" if gain.high < 0 else colour
        ends = f'x1="{axis(gain.low):.1f}" x2="{axis(gain.high):.1f}"'
        yield f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
    yield f'<circle cx="{axis(gain.value):.1f}" cy="{y}" r="3.5" fill="{colour}"/>'


def _middle(line: int) -> float:
    return HEADER + (line + 0.5) * LINE_HEIGHT


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
