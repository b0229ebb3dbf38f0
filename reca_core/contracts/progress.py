"""How a child process tells its parent how far it is: one ``@progress {json}`` line on standard output.

The child's output goes to a log file of its own, never to a pipe: a parent that dies must not take the child
down with SIGPIPE, and a child that is faster than its reader must not wait (reference: Prefect worker kills).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TextIO

from pydantic import ValidationError

from reca_core.contracts.base import Record

MARK = "@progress "
MINUTE, HOUR = 60.0, 3600.0
SHOWN_UNTIL = 1.5
"""Seconds are shown up to so many minutes, minutes up to so many hours."""


class Progress(Record):
    """A point on the way of one stage."""

    stage: str
    """tokenizer, base, post, captions, sample, judge, prepare."""
    done: int
    """Units finished."""
    total: int
    """Units in all."""
    unit: str
    """step, picture, question."""
    metrics: dict[str, float] = {}
    """Latest values worth a glance, such as train/reconstruction_loss."""


def report_progress(progress: Progress, stream: TextIO | None = None) -> None:
    """Write one progress line, flushed at once."""
    out = stream if stream is not None else sys.stdout
    out.write(MARK + progress.model_dump_json() + "\n")
    out.flush()


def parse_progress(line: str) -> Progress | None:
    """The progress in a log line, or None when the line is ordinary text or a torn write."""
    if not line.startswith(MARK):
        return None
    try:
        return Progress.model_validate(json.loads(line[len(MARK) :]))
    except (json.JSONDecodeError, ValidationError):
        return None


class Pace:
    """How fast a stage is and how long it will take, from what was seen of its progress. One per stage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None
        """When it was seen first, and how far it was then: what was done before was not done at this pace."""
        self._last = 0

    def see(self, progress: Progress) -> str:
        """In words, such as ``2.41 pictures/s, 3 min left``; empty until something was done since the first look."""
        now = self._clock()
        if self._first is None or progress.done < self._last:
            self._first = now, progress.done
        self._last = progress.done
        began, before = self._first
        if progress.done <= before or now <= began:
            return ""
        rate = (progress.done - before) / (now - began)
        speed = f"{rate:.3g} {plural(progress.unit)}/s" if rate >= 1 else f"{1 / rate:.3g} s per {progress.unit}"
        left = max(progress.total - progress.done, 0) / rate
        return f"{speed}, {duration(left)} left" if left else speed


def duration(seconds: float) -> str:
    """Such as 45 s, 12 min, 3.5 h."""
    if seconds < SHOWN_UNTIL * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < SHOWN_UNTIL * HOUR else f"{seconds / HOUR:.1f} h"


def plural(unit: str) -> str:
    """More than one step, picture, reply."""
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"
