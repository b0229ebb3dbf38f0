"""Errors that a person can act on: each names the fact, the field, the choices and the remedy.

The exit status of the command line is a property of the error class:
0 done, 2 bad input and nothing started, 3 a prerequisite is missing, 4 a stage failed,
5 finished but something is unscored or refused (no exception: a property of the result), 130 interrupted.
"""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from typing import Any

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_PREREQUISITE = 3
EXIT_STAGE_FAILED = 4
EXIT_INCOMPLETE = 5
EXIT_INTERRUPTED = 130


class RecaError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        fact: what is the case, with the value that was found.
        field: the setting, file or argument it concerns, in the words the user typed.
        choices: the values that would have been accepted, if they can be listed.
        remedy: what to do next, as a command where there is one.
    """

    exit_code = EXIT_STAGE_FAILED

    def __init__(self, fact: str, *, field: str = "", choices: Sequence[str] = (), remedy: str = "") -> None:
        self.fact = fact
        self.field = field
        self.choices = tuple(choices)
        self.remedy = remedy
        super().__init__(self.render())

    def __reduce__(self) -> tuple[Any, ...]:
        """Ranks send each other their errors, whatever arguments a subclass takes: no constructor is called again."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def render(self) -> str:
        """One line per part that is present."""
        lines = [f"{self.field}: {self.fact}" if self.field else self.fact]
        if self.choices:
            lines.append("  choices: " + ", ".join(self.choices))
        if self.remedy:
            lines.append("  remedy: " + self.remedy)
        return "\n".join(lines)


class BadInput(RecaError):
    """What was asked for cannot be meant; nothing was started."""

    exit_code = EXIT_BAD_INPUT


class PrerequisiteMissing(RecaError):
    """Something that has to be there first is not: a file, a server, a package, a device."""

    exit_code = EXIT_PREREQUISITE


class StageFailed(RecaError):
    """A stage began and could not end; what it finished is kept."""

    exit_code = EXIT_STAGE_FAILED


class CheckpointRefused(StageFailed):
    """A checkpoint is truncated, of another run, or does not match the model it should be loaded into."""


class DamagedFile(StageFailed, ValueError):
    """A file that a run wrote has a line that cannot be read: the disk, or somebody's editor."""


class RunLocked(StageFailed):
    """Another process works in this run directory."""
