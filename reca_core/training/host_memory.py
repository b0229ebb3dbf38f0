"""How much host memory this process can still allocate: the machine's, or what the limits on its control groups leave.

A limit holds for a group and everything below it, so a batch system's or a service's counts wherever it was set: the
own group and all its parents are looked at, and the least room is the answer. A container sees its parents no further
than its mount goes, and its own limit at the top of it.

A group's use contains the page cache of all files that were read, which is no loss: the kernel drops clean pages at the
limit before it refuses anything. They are added back, as MemAvailable does for a whole machine. Dirty pages and those
being written are not, because they must reach the disk first; files in memory (tmpfs, shared memory) and locked pages
are on other lists and stay used; so does the kernel's own memory, of which nobody says how much would come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reca_core.contracts.estimate import KIB

UNLIMITED = 1 << 60
"""Version 1 says "no limit" by a number about as large as its integers go."""


@dataclass(frozen=True)
class Version:
    """What the files of a version of control groups are called, and the lines of their ``memory.stat``."""

    limit: str
    used: str
    cached: tuple[str, ...]
    unwritten: tuple[str, ...]
    """Of the cached pages, those whose content is not on the disk."""


ONE = Version(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
    ("total_dirty", "total_writeback"),
)
TWO = Version("memory.max", "memory.current", ("inactive_file", "active_file"), ("file_dirty", "file_writeback"))
"""Both count the groups below."""


def host_available(proc: Path = Path("/proc")) -> int | None:
    """Bytes that can be allocated; None where nothing says so (macOS)."""
    machine = [int(line.split()[1]) * KIB for line in _lines(proc / "meminfo") if line.startswith("MemAvailable:")]
    groups = [_room(group, version) for group, version in _groups(proc)]
    return min([*machine, *(room for room in groups if room is not None)], default=None)


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _groups(proc: Path) -> Iterator[tuple[Path, Version]]:
    """This process's group and its parents, as far as they are mounted here, of every mounted hierarchy."""
    own = dict(_own(proc))
    for line in _lines(proc / "self" / "mountinfo"):
        place, _, kind = line.partition(" - ")
        root, point = place.split(" ")[3:5]
        name, options = kind.split(" ")[0], kind.split(" ")[-1].split(",")
        version = TWO if name == "cgroup2" else ONE if name == "cgroup" and "memory" in options else None
        if version is None or version not in own:
            continue
        path = PurePosixPath(own[version])
        below = path.relative_to(root) if path.is_relative_to(root) and ".." not in path.parts else PurePosixPath()
        for group in (below, *below.parents):
            yield Path(point, group), version


def _own(proc: Path) -> Iterator[tuple[Version, str]]:
    """The path of this process's group, by version."""
    for line in _lines(proc / "self" / "cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield TWO, path
        elif "memory" in controllers.split(","):
            yield ONE, path


def _room(group: Path, version: Version) -> int | None:
    """Bytes below a group's limit; None where it has none, as the topmost of a machine."""
    limit = next(iter(_lines(group / version.limit)), "max")
    if limit == "max" or int(limit) >= UNLIMITED:
        return None
    stat = {name: int(value) for name, value in map(str.split, _lines(group / "memory.stat"))}
    cached, unwritten = (sum(stat.get(name, 0) for name in names) for names in (version.cached, version.unwritten))
    used = int((group / version.used).read_text(encoding="ascii")) - max(cached - unwritten, 0)
    return max(int(limit) - max(used, 0), 0)
