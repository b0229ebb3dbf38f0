"""How a child process tells its parent how far it is: one ``@progress {json}`` line on standard output.

The child's output goes to a log file of its own, never to a pipe: a parent that dies must not take the child
down with SIGPIPE, and a child that is faster than its reader must not wait (reference: Prefect worker kills).
"""

from __future__ import annotations

import json
import sys
from typing import TextIO

from pydantic import ValidationError

from reca_core.contracts.base import Record

MARK = "@progress "


class Progress(Record):
    """A point on the way of one stage."""

    stage: str
    """tokenizer, base, post, sample, judge, prepare."""
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
