"""What a measurement of speed hands over: sections of ``make bench`` (deployments/bench.py) return this.

A section is a function of a room, ``section(place) -> list[Figure]``; one line in ``SECTIONS`` of deployments/bench.py
makes it part of ``make bench``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import FiniteFloat

from reca_core.contracts.base import Record


class Figure(Record):
    """One measured number."""

    what: str
    """What was measured, such as detector, batches of 8."""
    value: FiniteFloat
    unit: str
    """Such as pictures/s."""
    how: str
    """Sizes, weights, device and repetitions: what has to be equal for two numbers to be compared."""


@dataclass(frozen=True)
class BenchPlace:
    """Where and how thoroughly a section measures."""

    folder: Path
    """Empty, its own, removed afterwards."""
    quick: bool = False
    """Smallest sizes that run every line: for tests, its numbers mean nothing."""


Section = Callable[[BenchPlace], list[Figure]]


def rate(items: int, work: Callable[[], object]) -> float:
    """Items per second of one call."""
    began = time.perf_counter()
    work()
    return items / max(time.perf_counter() - began, 1e-9)
