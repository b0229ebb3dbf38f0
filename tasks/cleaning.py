"""What ``reca clean`` and the weekly flow may remove: files of a home that nothing refers to and nobody used lately.

Removable are: a training's checkpoints on the way (``runs/*/checkpoints``), its finished weights (``runs/*/final``),
pictures that were drawn (``samples/*``), what frozen encoders said of pictures (``cache/features/*``) and other entries
of ``cache/``. One of them is kept if

- it is in use: a process holds the lock of its directory, or of a directory whose request names it (a request that
  names the home, or a whole room of it, says where to put things and refers to none);
- a score refers to it: the answers name their samples, the samples name the model they were drawn with;
- a registered version refers to it, by path or by hash;
- a prepared data set lists it (pictures that were taken out of containers);
- it was touched within ``--older-than``.

Finished weights go only where the tracking store knows the training and no version of it: a store that never heard of
a training cannot say that it was not registered. Answers, scores, reports, data sets, requests, logs and metrics are
never removed: they are small, and they are the record.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reca_core.contracts.errors import BadInput, RunLocked
from reca_core.contracts.files import read_jsonl, run_lock
from reca_core.contracts.home import Home
from tasks.tracking_weights import KnownWeights

UNITS_SECONDS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
NEVER_CLEANED = ("benchmark_data",)
"""Below ``cache``: a machine without a network could not get them back."""
FILE_BY_FILE = "pictures"
"""Below ``cache``: each picture is wanted by some data sets and not by others."""


READ = ("cache", "features")
"""Kinds that are used by reading them."""
OWN_LOCK = ("samples", "features")
"""Kinds whose directory holds its own lock; in the others it is the directory around."""


@dataclass(frozen=True)
class Removable:
    """Something that nothing refers to."""

    path: Path
    kind: str
    """checkpoints, weights, samples, features or cache."""
    bytes: int


def age_limit(text: str) -> float:
    """``30d``, ``12h`` or ``2w`` in seconds. Raises BadInput for anything else."""
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS_SECONDS or not number.isdigit():
        raise BadInput(f"{text!r} is no age", field="--older-than", choices=("12h", "30d", "4w"))
    return int(number) * UNITS_SECONDS[unit]


def removable(home: Home, known: KnownWeights, older_than_seconds: float) -> list[Removable]:
    """Everything that may go, largest first. Reads the home and changes nothing."""
    limit = time.time() - older_than_seconds
    wanted = _Wanted(home, known, limit)
    found = []
    for kind, path in _units(home):
        if (
            last_use(path, reading=kind in READ) <= limit
            and not wanted.covers(path)
            and not _unknown(kind, path, known)
        ):
            found.append(Removable(path, kind, size(path)))
    return sorted(found, key=lambda item: -item.bytes)


def _units(home: Home) -> Iterator[tuple[str, Path]]:
    for run in _folders(home.root / "runs"):
        yield from (("checkpoints", path) for path in [run / "checkpoints"] if path.is_dir())
        yield from (("weights", path) for path in [run / "final"] if path.is_dir())
    yield from (("samples", path) for path in _folders(home.root / "samples"))
    for room in _folders(home.cache):
        if room.name == FILE_BY_FILE:
            yield from (("cache", path) for path in sorted(room.rglob("*")) if path.is_file())
        elif room == home.features:
            yield from (("features", path) for path in _folders(room))
        elif room.name not in NEVER_CLEANED:
            yield from (("cache", path) for path in sorted(room.iterdir()) if path.name != "locks")


def _folders(room: Path) -> list[Path]:
    return sorted(path for path in room.iterdir() if path.is_dir()) if room.is_dir() else []


def _unknown(kind: str, path: Path, known: KnownWeights) -> bool:
    """True for finished weights that the store cannot judge, or whose hash is a registered one."""
    if kind != "weights":
        return False
    done = _json(path.parent / "DONE.json")
    sha256 = done.get("checkpoint", {}).get("sha256", "") if isinstance(done, dict) else ""
    return str(path.parent) not in known.trainings or not sha256 or sha256 in known.registered_sha256


class _Wanted:
    """Every path that something refers to."""

    def __init__(self, home: Home, known: KnownWeights, limit: float) -> None:
        self._home = home
        self._paths: set[str] = set(known.registered_paths)
        self._paths |= {str(home.cache / "models" / name) for name in known.downloads}
        self._paths |= {str(path) for path in _folders(home.features) if in_use(path)}
        self._pictures = {row["file"] for file in home.data.glob("*/manifest.jsonl") for row in read_jsonl(file)}
        for directory in self._referring(limit):
            self._follow(directory)

    def _referring(self, limit: float) -> Iterator[Path]:
        """Directories whose request counts: scored answers, and whatever is in work or was touched lately."""
        for room in ("answers", "samples", "runs"):
            for directory in _folders(self._home.root / room):
                scored = room == "answers" and (directory / "scores.json").is_file()
                if in_use(directory):
                    self._paths.add(str(directory))
                if scored or in_use(directory) or last_use(directory / "request.json") > limit:
                    yield directory

    def _follow(self, directory: Path) -> None:
        """What a directory's request names, and what the requests of those name."""
        for path in _paths_in(_json(directory / "request.json")):
            own = path == str(directory) or path.startswith(f"{directory}{os.sep}")
            if own or path in self._paths or self._is_place(Path(path)):
                continue
            self._paths.add(path)
            if Path(path).parent == self._home.root / "samples":
                self._follow(Path(path))

    def _is_place(self, path: Path) -> bool:
        """The home, one of its rooms or of its caches, or what they lie in."""
        return path.parent in (self._home.root, self._home.cache) or path in (self._home.root, *self._home.root.parents)

    def covers(self, unit: Path) -> bool:
        """Whether a wanted path is the unit, lies in it, or holds it."""
        text = str(unit)
        if text in self._paths or text in self._pictures:
            return True
        if any(str(parent) in self._paths for parent in unit.parents):
            return True
        return any(path.startswith(text + os.sep) for path in self._paths)


def in_use(directory: Path) -> bool:
    """Whether a process holds the directory's lock, alone or, reading features, with others."""
    try:
        with (directory / "lock").open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def _json(file: Path) -> Any:
    """A JSON file's value; None where it is missing or torn, which refers to nothing."""
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _paths_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths_in(item)
    elif isinstance(value, str) and os.path.isabs(value):
        yield value


def _files(path: Path) -> Iterator[os.stat_result]:
    yield from (entry.lstat() for entry in [path, *path.rglob("*")] if not entry.is_dir())


def last_use(path: Path, *, reading: bool = False) -> float:
    """When anything in it was last written, seconds since the epoch; 0 where there is nothing.

    Args:
        reading: reading counts too. Not for what this module reads itself.
    """
    if not path.exists():
        return 0.0
    return max((max(state.st_mtime, state.st_atime if reading else 0.0) for state in _files(path)), default=0.0)


def size(path: Path) -> int:
    """Bytes of everything below."""
    return sum(state.st_size for state in _files(path))


def remove(items: Iterable[Removable]) -> list[Removable]:
    """Remove them, each under the lock of its directory; returns those that went. One that came into use stays."""
    gone = []
    for item in items:
        owner = item.path if item.kind in OWN_LOCK else item.path.parent
        try:
            if item.kind == "cache":
                _delete(item.path)
            else:
                with run_lock(owner / "lock", wait_seconds=0):
                    _delete(item.path)
        except RunLocked:
            continue
        gone.append(item)
    return gone


def _delete(path: Path) -> None:
    """Out of the way first, so that a kill in between leaves nothing that looks whole."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = path.with_name(f".{path.name}.removed")
    if doomed.exists():
        shutil.rmtree(doomed)
    path.rename(doomed)
    shutil.rmtree(doomed)
