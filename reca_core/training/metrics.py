"""``metrics.jsonl``: one row per optimizer step, each step once, however often the run was killed and resumed.

Rows are held back for a moment, because syncing a file costs as much as a small model's step, and are written before a
checkpoint is: so after a kill the rows up to the checkpoint are all there, and those after it are cut on resume.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reca_core.contracts.errors import DamagedFile
from reca_core.contracts.files import append_jsonl, atomic_write_text, read_jsonl

FLUSH_SECONDS = 1.0
"""Longest time a row waits in memory."""
STEP = "step"
SHOWN = 80
"""Characters of a row in an error."""


class MetricsLog:
    """The writer of one attempt."""

    def __init__(self, path: Path, done_steps: int) -> None:
        """Keeps the rows of the first ``done_steps`` steps and cuts the rest, which will be made again."""
        self.path = path
        self.kept = keep_steps(path, done_steps)
        self._waiting: list[Mapping[str, Any]] = []
        self._flushed = time.monotonic()

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row; it has the key ``step``, counted from 1."""
        self._waiting.append(row)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write and sync what waits."""
        if self._waiting:
            append_jsonl(self.path, self._waiting)
            self._waiting = []
        self._flushed = time.monotonic()


def keep_steps(path: Path, done_steps: int, numbers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Cut rows of later steps from a JSON-lines file, atomically; return the others.

    Raises DamagedFile where a row has no step, or no number under one of ``numbers``.
    """
    rows = list(read_jsonl(path))
    for number, row in enumerate(rows, 1):
        if missing := _missing(row, numbers):
            raise DamagedFile(
                f"row {number}: no {missing} ({json.dumps(row)[:SHOWN]})",
                field=str(path),
                remedy="check the disk; mend the row, or move the file away: its curve then begins at the resumed step",
            )
    kept = [row for row in rows if row[STEP] <= done_steps]
    if len(kept) < len(rows):
        atomic_write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in kept))
    return kept


def _missing(row: Any, numbers: Sequence[str]) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(STEP), int):
        return f"whole number under {STEP!r}"
    return next((f"number under {name!r}" for name in numbers if not isinstance(row.get(name), int | float)), "")


def loss_key(term: str) -> str:
    """``train/reconstruction_loss`` for ``reconstruction``: the name in files, MLflow and the report."""
    return f"train/{term}_loss"
