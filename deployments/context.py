"""What every command gets: the writer, the place, and where the person stands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from deployments.environment import Surroundings
from deployments.terminal import Terminal

PATH_MARKS = ("./", "../", "~", "/")
"""A source that begins so is a path, whether or not it exists."""
GLOB_MARKS = ("*", "?", "[")


@dataclass(frozen=True)
class Context:
    """The surroundings of one command."""

    terminal: Terminal
    surroundings: Surroundings
    here: Path
    """The directory the person stands in; relative paths they typed mean this one. Nobody below asks for it."""
    verbose: bool = False

    def path(self, typed: str) -> Path:
        """A path a person typed, made absolute."""
        return (self.here / Path(typed).expanduser()).resolve()

    def source(self, typed: str) -> str:
        """A model or picture source as typed; made absolute where it means files of this machine."""
        path = self.here / Path(typed).expanduser()
        if typed.startswith(PATH_MARKS) or path.exists() or any(self.here.glob(typed) if _is_glob(typed) else ()):
            return str(path.resolve()) if path.exists() else os.path.abspath(path)
        return typed


def _is_glob(typed: str) -> bool:
    return any(mark in typed for mark in GLOB_MARKS) and not Path(typed).is_absolute()
