"""The other side of ``vqa_worker.py``: an interpreter of its own that answers through files and may misbehave.

It is restarted when it crashes, hangs or talks rubbish; what it answered before is kept. The question it was at gets a
strike each time, and counts as an outage after ``attempts`` of them, so that one bad picture stops nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reca_core.contracts.errors import PrerequisiteMissing, StageFailed
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.lifeline import child_environment

log = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("vqa_worker.py")
TIED = (
    "import os, sys\nfrom reca_core.contracts.lifeline import die_with_parent\n"
    "die_with_parent()\nos.execv(sys.argv[1], sys.argv[1:])\n"
)
"""Ties the process to this one, then becomes the other interpreter: the kernel keeps the tie across exec."""
READY_FILE = "ready.json"
LOG_FILE = "log.txt"
START_SECONDS = 900.0
"""Loading, and at the first time downloading, the model."""
END_SECONDS = 5.0
POLL_SECONDS = 0.05
LOG_LINES = 8
BARREN_ROUNDS = 3
"""Questions in a row that end as outages before the whole is given up: it is not the pictures, then."""
SECRETS = ("OPENAI_API_KEY",)
"""Not for other people's code."""


@dataclass(frozen=True)
class Asked:
    """One question about one picture."""

    picture: Path
    question: str


@dataclass(frozen=True)
class Told:
    """What became of it: an answer, or why there is none."""

    answer: str = ""
    error: str = ""


class WorkerProcess:
    """One interpreter with the model loaded."""

    def __init__(self, interpreter: str, model: str, revision: str, timeout_seconds: float, attempts: int) -> None:
        self._interpreter = interpreter
        self._model = model
        self._revision = revision
        self._timeout = timeout_seconds
        self._attempts = attempts
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)
        self._folder = Path()
        self._file = 0
        self.ready: dict[str, Any] = {}
        """What it said of itself when it was ready."""

    def start(self) -> None:
        """Start, and wait until the model is loaded. Raises PrerequisiteMissing with the last lines it wrote."""
        if not Path(self._interpreter).is_file():
            raise self._missing("there is no such file")
        self._folder = Path(tempfile.mkdtemp(prefix="reca-vqa-"))
        self._file = 0
        command = [sys.executable, "-c", TIED, self._interpreter, str(WORKER), str(self._folder)]
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        with (self._folder / LOG_FILE).open("wb") as output:
            self._process = subprocess.Popen(
                [*command, self._model, self._revision],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(environment),
                start_new_session=True,
            )
        if not self._wait(lambda: (self._folder / READY_FILE).is_file(), START_SECONDS):
            last = self._last_lines()
            self.end()
            raise self._missing(f"it did not get ready: {last}")
        self.ready = _record((self._folder / READY_FILE).read_bytes())

    def ask(self, asked: Sequence[Asked]) -> list[Told]:
        """What became of every question, in order.

        Raises: PrerequisiteMissing if it cannot be started again; StageFailed if it answers nothing any more.
        """
        told: dict[int, Told] = {}
        strikes = [0] * len(asked)
        barren = 0
        while left := [at for at in range(len(asked)) if at not in told]:
            if self._process is None:
                self.start()
            fault = self._round(asked, left, told)
            if not fault:
                continue
            self.end()
            barren = barren + 1 if all(at not in told for at in left) else 0
            blamed = next(at for at in left if at not in told)
            strikes[blamed] += 1
            log.warning("the VQA interpreter %s at %s, strike %d", fault, asked[blamed].picture, strikes[blamed])
            if strikes[blamed] >= self._attempts:
                told[blamed] = Told(error=f"the VQA interpreter {fault} {strikes[blamed]} times")
            if barren >= BARREN_ROUNDS * self._attempts:
                raise StageFailed(f"the VQA interpreter {fault} {barren} times in a row", field="judge.interpreter")
        return [told[at] for at in range(len(asked))]

    def end(self) -> None:
        """End it and everything it started."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_SECONDS)
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _round(self, asked: Sequence[Asked], left: Sequence[int], told: dict[int, Told]) -> str:
        """Send what is left and take what comes. Returns what went wrong; empty where all was answered."""
        self._file += 1
        rows = [{"id": at, "picture": str(asked[at].picture), "question": asked[at].question} for at in left]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        atomic_write_text(self._folder / f"questions-{self._file:06d}.jsonl", text)
        answers = self._folder / f"answers-{self._file:06d}.jsonl"
        while any(at not in told for at in left):
            if not self._wait(functools.partial(_more, answers, left, told), self._timeout):
                return "crashed" if self._process and self._process.poll() is not None else "hung"
        return ""

    def _wait(self, happened: Callable[[], bool], seconds: float) -> bool:
        """Whether it happened in time; what happened before a crash still counts."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = self._process is None or self._process.poll() is not None
            if happened():
                return True
            if ended:
                return False
            time.sleep(POLL_SECONDS)
        return False

    def _last_lines(self) -> str:
        lines = (self._folder / LOG_FILE).read_text(errors="replace").splitlines()
        return " | ".join(lines[-LOG_LINES:]) or "it wrote nothing"

    def _missing(self, fact: str) -> PrerequisiteMissing:
        return PrerequisiteMissing(
            f"{self._interpreter or 'none'} cannot answer with mPLUG: {fact}",
            field="judge.interpreter",
            remedy="make an environment with modelscope as docs/judges.md says, or choose another judge for dpg",
        )


def _more(answers: Path, left: Sequence[int], told: dict[int, Told]) -> bool:
    """Take up every complete line, and say whether any was new. Rubbish is passed over; its question stays open."""
    before = len(told)
    content = answers.read_bytes() if answers.is_file() else b""
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        row = _record(line)
        at = row.get("id")
        if isinstance(at, int) and not isinstance(at, bool) and at in left and at not in told:
            told[at] = _told(row)
    return len(told) > before


def _record(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _told(row: Mapping[str, Any]) -> Told:
    answer, error = row.get("answer"), row.get("error")
    if isinstance(error, str) and error:
        return Told(error=error)
    return Told(answer=answer) if isinstance(answer, str) else Told(error="the answer is no text")
