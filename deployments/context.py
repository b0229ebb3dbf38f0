"""What every command gets: the writer, the place, and where the person stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployments.environment import Surroundings
from deployments.terminal import Terminal


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
