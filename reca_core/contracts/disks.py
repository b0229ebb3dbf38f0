"""Free room on disks, told apart: two directories may lie on one file system or on two."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reca_core.contracts.base import Record


@dataclass(frozen=True)
class Put:
    """Something that will be written."""

    what: str
    place: Path
    bytes: int


class Filling(Record):
    """What one file system will receive."""

    place: str
    """One of the directories on it, absolute."""
    parts: dict[str, int]
    """What -> bytes."""
    free: int

    @property
    def needed(self) -> int:
        """All of it."""
        return sum(self.parts.values())


def standing(place: Path) -> Path:
    """The directory, or what there is of the way to it: both lie on the same file system."""
    return next(path for path in (place, *place.parents) if path.exists())


def number(place: Path) -> int:
    """Of the file system that holds ``place``."""
    return standing(place).stat().st_dev


def same(first: Path, second: Path) -> bool:
    """True where both lie on one file system."""
    return number(first) == number(second)


def free_bytes(place: Path) -> int:
    """Of the file system that holds ``place``, which need not exist."""
    return shutil.disk_usage(standing(place)).free


def tree_bytes(directory: Path) -> int:
    """Of all files below, links not followed; 0 where there are none. What others remove meanwhile is not counted."""
    found = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found += os.lstat(os.path.join(folder, name)).st_size
    return found


def fillings(puts: Sequence[Put]) -> list[Filling]:
    """What is written, put together by file system."""
    by_disk: dict[int, list[Put]] = {}
    for put in puts:
        by_disk.setdefault(number(put.place), []).append(put)
    return [
        Filling(
            place=str(group[0].place),
            parts={put.what: put.bytes for put in group},
            free=free_bytes(group[0].place),
        )
        for group in by_disk.values()
    ]
