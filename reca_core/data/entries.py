"""What every source hands to preparation, whatever it is: parts, each with a stamp, each holding entries in order.

A part is the unit that is recognised as unchanged (a file of a folder, a table, an archive, a block of scenes): while
its stamp stays the same, what was found in it stays true. Entries of a part are numbered from 0 and always come in the
same order, so that a preparation that was killed goes on at the entry where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reca_core.contracts.records import QuarantineKind
from reca_core.data.images import PictureFacts

MAXIMUM_HELD_BYTES = 256 << 20
"""A picture inside a container is held in memory; larger ones are refused unread."""


@dataclass(frozen=True)
class Found:
    """Something that may be a picture: a file that stays where it is, or bytes out of a container."""

    label: str
    content: Path | bytes


@dataclass(frozen=True)
class Refused:
    """Something that is known to be unusable without a look at its content."""

    label: str
    kind: QuarantineKind
    reason: str


@dataclass(frozen=True)
class Companion:
    """A caption or other file that belongs beside pictures: ignored, and counted."""

    label: str


@dataclass(frozen=True)
class Picture:
    """A usable picture: where the file to decode lies, and what was found out about it."""

    label: str
    file: str
    facts: PictureFacts


Entry = Found | Refused | Companion
"""What a source says."""
Outcome = Picture | Refused | Companion
"""What preparation makes of an entry."""


@dataclass(frozen=True)
class Part:
    """A piece of a source.

    Attributes:
        key: unique within the source.
        stamp: changes whenever the content may have changed.
        entries: the entries from number ``start`` on; opens what it needs when it is called, not before.
    """

    key: str
    stamp: str
    entries: Callable[[int], Iterator[Entry]]


class Source(Protocol):
    """A place that pictures come from."""

    identity: str
    """What tells this source from others: its kind, place and the settings that decide what lies in which entry."""
    revision: str
    """The commit that a hub revision stood for; empty for everything else."""

    def expected(self) -> int:
        """How many entries there will be; 0 where only reading would tell."""
        ...

    def parts(self) -> Iterator[Part]:
        """The parts in an order that depends on the source alone."""
        ...


def stamp_of(path: Path) -> str:
    """Size, times and inode of a file: the change time cannot be set back, so an edit cannot hide. Raises OSError."""
    status = path.stat()
    return f"{status.st_size}/{status.st_mtime_ns}/{status.st_ctime_ns}/{status.st_ino}"


def printable(name: str) -> str:
    """A file name as UTF-8 text: bytes that are none are shown as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
