"""Follows a growing log file: new lines in batches, progress lines apart, the last lines kept for an error message.

The file may grow by gigabytes, hold bytes that are no UTF-8, or never see a newline; none of this may fill the memory
of the parent or the Prefect database, so lines and batches are cut and the full text stays in the file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from reca_core.contracts.progress import MARK, Progress, parse_progress

READ_BYTES = 1 << 20
"""Read at once."""
LINE_BYTES = 1 << 13
"""Longer lines are cut."""
BATCH_LINES = 100
"""Shown per batch, the newest; the rest is only counted."""
BATCH_SECONDS = 2.0
"""Between two batches: Prefect stores each as one row."""
PROGRESS_SECONDS = 1.0
"""Between two progress reports."""
LAST_LINES = 20
"""Kept for the error message."""


class LogFollower:
    """Reads what a log file gains after this object was made."""

    def __init__(self, log: Path, on_text: Callable[[str], None], on_progress: Callable[[Progress], None]) -> None:
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0
        self._rest = b""
        self._batch: deque[str] = deque(maxlen=BATCH_LINES)
        self._left_out = 0
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._progress: Progress | None = None
        self._on_text = on_text
        self._on_progress = on_progress
        self._next_batch = time.monotonic() + BATCH_SECONDS
        self._next_progress = time.monotonic()

    def follow(self) -> None:
        """Take in what is new and pass on what is due."""
        self._read_some()
        now = time.monotonic()
        if now >= self._next_batch:
            self._pass_text()
            self._next_batch = now + BATCH_SECONDS
        if now >= self._next_progress:
            self._pass_progress()
            self._next_progress = now + PROGRESS_SECONDS

    def finish(self) -> None:
        """Take in and pass on everything up to the end of the file, an unfinished line included."""
        while self._read_some():
            pass
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        self._pass_text()
        self._pass_progress()

    def last_lines(self) -> Sequence[str]:
        """The newest lines that are not progress."""
        return tuple(self._last)

    def _read_some(self) -> bool:
        """One read; False at the end of the file."""
        with self._log.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read(READ_BYTES)
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > LINE_BYTES and not self._rest.startswith(MARK.encode()):
            self._rest = self._rest[-LINE_BYTES:]
        return bool(data)

    def _take(self, line: bytes) -> None:
        text = line.rstrip(b"\r").rsplit(b"\r", 1)[-1][:LINE_BYTES].decode(errors="replace")
        progress = parse_progress(text)
        if progress is not None:
            self._progress = progress
            return
        if text.startswith(MARK) or not text.strip():
            return
        self._left_out += len(self._batch) == BATCH_LINES
        self._batch.append(text)
        self._last.append(text)

    def _pass_text(self) -> None:
        if not self._batch:
            return
        note = f"... {self._left_out} lines more in {self._log}\n" if self._left_out else ""
        self._on_text(note + "\n".join(self._batch))
        self._batch.clear()
        self._left_out = 0

    def _pass_progress(self) -> None:
        if self._progress is not None:
            self._on_progress(self._progress)
            self._progress = None
