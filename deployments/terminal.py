"""The one writer of the command line: results to standard output, everything else to standard error.

With ``--json`` standard output carries exactly one JSON object. Progress is a bar where standard error is a terminal
and one line every few seconds where it is a file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from reca_core.contracts.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    EXIT_PREREQUISITE,
    EXIT_STAGE_FAILED,
    RecaError,
)
from reca_core.contracts.progress import Pace, Progress, plural

STATUS_NAMES = {
    EXIT_DONE: "done",
    EXIT_BAD_INPUT: "bad input",
    EXIT_PREREQUISITE: "prerequisite missing",
    EXIT_STAGE_FAILED: "stage failed",
    EXIT_INCOMPLETE: "incomplete",
    EXIT_INTERRUPTED: "interrupted",
}
STAGE_LABELS = {"post": "train", "base": "train base", "tokenizer": "train tokens", "decoder": "train decoder"}
"""Where the name of a training's stage says too little to someone who did not write it."""
METRICS_SHOWN = 2
"""Of a progress report; all of them are in metrics.jsonl and MLflow."""
LINE_SECONDS = 5.0
"""Between two progress lines of one stage where there is no terminal."""
FILE_WIDTH = 100
"""Columns of a table that is written into a file or pipe."""


class Terminal:
    """Where a command speaks to the person, or with ``--json`` to the program, that called it."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.messages = Console(stderr=True, highlight=False)
        width = None if sys.stdout.isatty() else FILE_WIDTH
        self.results = Console(highlight=False, width=width)
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._spoken: dict[str, float] = {}
        self._done: dict[str, int] = {}
        self._paces: dict[str, Pace] = {}

    def note(self, text: str) -> None:
        """A line for people about what is going on."""
        self.messages.print(escape(text), soft_wrap=True)

    def show(self, content: RenderableType) -> None:
        """A result for people: standard output, or standard error where that belongs to the JSON object."""
        (self.messages if self.as_json else self.results).print(content)

    def line(self, text: str) -> None:
        """A result line for people, unwrapped, so that it can be cut and pasted."""
        (self.messages if self.as_json else self.results).print(escape(text), soft_wrap=True)

    def write(self, data: bytes) -> None:
        """A result that is a document of its own, to standard output as it is."""
        sys.stdout.buffer.write(data)
        sys.stdout.flush()

    def answer(self, value: Mapping[str, Any], exit_code: int = EXIT_DONE) -> None:
        """With ``--json``: the one object on standard output."""
        if self.as_json:
            document = {"exit_code": exit_code, "status": status_name(exit_code), **value}
            sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()

    def fault(self, error: RecaError) -> None:
        """What went wrong, on standard error, and with ``--json`` also as the object."""
        self.messages.print(escape(error.render()), style="red", soft_wrap=True)
        faults = getattr(error, "faults", (error,))
        self.answer({"errors": [_plain(fault) for fault in faults]}, error.exit_code)

    def progress(self, progress: Progress) -> None:
        """How far a stage is. One that falls back has begun anew, such as sampling with the second model."""
        if progress.done < self._done.get(progress.stage, 0):
            self._tasks.pop(progress.stage, None)
            self._spoken.pop(progress.stage, None)
        self._done[progress.stage] = progress.done
        speed = self._paces.setdefault(progress.stage, Pace()).see(progress)
        if self.messages.is_terminal:
            self._bar(progress, _detail(progress, speed.partition(",")[0]))  # the bar itself has the time left
        else:
            self._progress_line(progress, _detail(progress, speed))

    def _bar(self, progress: Progress, detail: str) -> None:
        if self._bars is None:
            self._bars = _new_bars(self.messages)
            self._bars.start()
        if progress.stage not in self._tasks:
            label = STAGE_LABELS.get(progress.stage, progress.stage)
            self._tasks[progress.stage] = self._bars.add_task(label, total=progress.total, detail="")
        task = self._tasks[progress.stage]
        self._bars.update(task, completed=progress.done, total=progress.total, detail=detail)

    def _progress_line(self, progress: Progress, detail: str) -> None:
        now = time.monotonic()
        finished = progress.done >= progress.total
        if not finished and now - self._spoken.get(progress.stage, -LINE_SECONDS) < LINE_SECONDS:
            return
        self._spoken[progress.stage] = now
        label = STAGE_LABELS.get(progress.stage, progress.stage)
        self.note(f"{label:<12} {progress.done:>6}/{progress.total} {detail}".rstrip())

    def close(self) -> None:
        """Take the bars down; what was written stays."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()


def _new_bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
        console=console,
    )


def _detail(progress: Progress, speed: str) -> str:
    shown = list(progress.metrics.items())[:METRICS_SHOWN]
    values = " ".join(f"{name.removeprefix('train/').replace('_', ' ')} {value:.3g}" for name, value in shown)
    return " ".join(part for part in (plural(progress.unit), values, speed) if part)


def _plain(error: RecaError) -> dict[str, Any]:
    return {"field": error.field, "fact": error.fact, "choices": list(error.choices), "remedy": error.remedy}


def status_name(exit_code: int) -> str:
    """The exit status as a word, for the JSON object."""
    return STATUS_NAMES.get(exit_code, "failed")
