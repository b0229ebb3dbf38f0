"""What a frozen encoder said of pictures, on disk: one directory per encoder, any number of writers, no shared index.

    cache/features/<key>/about.json             what the key stands for, in words
    cache/features/<key>/<unique>.safetensors   a shard: one tensor per picture, named by the picture's SHA-256

A shard is written under a temporary name and renamed, and never changed: writers cannot disturb each other or a
reader, and a picture that two of them computed is merely there twice. Which picture lies where is read from the shards'
headers; in memory it costs 20 bytes a picture. Tensors are read by memory map. Each carries a checksum, because a
damaged feature would be learned from without a word: a shard in which anything is wrong is removed, and its pictures
are computed again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import threading
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reca_core.contracts.files import write_json

log = logging.getLogger(__name__)

SHARD_BYTES = 128 << 20
"""A shard is written when so much waits in memory; before every checkpoint too."""
SHARD_PICTURES = 4096
"""Or so many pictures, which bounds a shard's header."""
OPEN_SHARDS = 64
RESERVED_BYTES = 1 << 30
"""Of the disk are left for checkpoints and pictures: below, nothing more is kept."""
LOOK_SECONDS = 10.0
"""Between two looks for shards of other processes, where a picture is not known."""
ABANDONED_SECONDS = 3600.0
"""Age of a temporary file whose writer must be gone."""
ABOUT, LOCK, SUFFIX, CHECKSUMS = "about.json", "lock", ".safetensors", "checksums"


class Damaged(Exception):
    """A shard holds something else than what was written."""


class FeatureStore:
    """One encoder's features. ``read`` may be called from any thread; the rest belongs to the one that trains.

    Args:
        directory: made if it is not there; held with a shared lock until ``close``, so that ``reca clean`` spares it.
        about: what the directory's name stands for.
    """

    def __init__(self, directory: Path, about: Mapping[str, Any]) -> None:
        self.directory, self.about = directory, dict(about)
        self.stopped = False
        """Nothing more is kept: the disk is full or cannot be written."""
        self._waiting: dict[str, Tensor] = {}
        self._waiting_bytes = 0
        self._shards: dict[str, np.ndarray[Any, np.dtype[np.uint64]]] = {}
        self._names: list[str] = []
        self._prefixes, self._places = np.empty(0, np.uint64), np.empty(0, np.int32)
        self._open: OrderedDict[str, _Shard] = OrderedDict()
        self._guard = threading.RLock()
        self._prepare()
        self.look()

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = (self.directory / LOCK).open("a")
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        write_json(self.directory / ABOUT, self.about)
        for left in self.directory.glob(".*.tmp"):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink(missing_ok=True)

    def __len__(self) -> int:
        """Pictures that are known; one that lies in two shards counts twice."""
        return len(self._prefixes) + len(self._waiting)

    def __contains__(self, picture: str) -> bool:
        """Whether this picture's feature is known, by its SHA-256. The tensor itself is not looked at."""
        return picture in self._waiting or bool(self._shards_of(picture))

    # ---- reading -----------------------------------------------------------------------------------------------

    def read(self, pictures: Sequence[str]) -> tuple[Tensor, ...] | None:
        """The features of these pictures, on the CPU; None where one of them is not known."""
        rows = []
        for picture in pictures:
            row = self._row(picture)
            if row is None:
                return None
            rows.append(row)
        return tuple(rows)

    def _row(self, picture: str) -> Tensor | None:
        row = self._found(picture)
        if row is None and time.monotonic() - self._looked > LOOK_SECONDS:
            self.look()
            row = self._found(picture)
        return row

    def _found(self, picture: str) -> Tensor | None:
        with self._guard:
            waiting = self._waiting.get(picture)
            if waiting is not None:
                return waiting
            shards = self._shards_of(picture)
        for name in shards:
            try:
                row = self._opened(name).read(picture)
            except FileNotFoundError:
                self._forget(name)
            except (Damaged, SafetensorError) as fault:
                self._discard(name, fault)
            else:
                if row is not None:
                    return row
        return None

    def _shards_of(self, picture: str) -> list[str]:
        """Shards that hold a picture whose hash begins as this one's."""
        with self._guard:
            wanted = _prefix(picture)
            first, end = (int(np.searchsorted(self._prefixes, wanted, side)) for side in ("left", "right"))
            return [self._names[place] for place in self._places[first:end]]

    def _opened(self, name: str) -> _Shard:
        with self._guard:
            if name not in self._open:
                self._open[name] = _Shard(self.directory / name)
                while len(self._open) > OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(name)
            return self._open[name]

    def look(self) -> None:
        """Learn of shards that other processes have written."""
        self._looked = time.monotonic()
        with self._guard:
            new = sorted({path.name for path in self.directory.glob(f"*{SUFFIX}")} - self._shards.keys())
            for name in new:
                try:
                    pictures = _Shard(self.directory / name).pictures
                except FileNotFoundError:
                    continue
                except (Damaged, SafetensorError) as fault:
                    self._discard(name, fault)
                else:
                    self._shards[name] = np.array([_prefix(picture) for picture in pictures], np.uint64)
            if new:
                self._index()

    def _index(self) -> None:
        """Bring all shards' pictures into one order."""
        self._names = list(self._shards)
        counts = [len(self._shards[name]) for name in self._names]
        prefixes = np.concatenate([np.empty(0, np.uint64), *self._shards.values()])
        order = prefixes.argsort(kind="stable")
        self._prefixes, self._places = prefixes[order], np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]

    def _forget(self, name: str) -> None:
        """A shard that is gone: the cache may be cleaned at any time."""
        with self._guard:
            self._open.pop(name, None)
            if self._shards.pop(name, None) is not None:
                self._index()

    def _discard(self, name: str, fault: Exception) -> None:
        log.warning("%s is damaged (%s): removed, its pictures are computed again", self.directory / name, fault)
        (self.directory / name).unlink(missing_ok=True)
        self._forget(name)

    # ---- writing -----------------------------------------------------------------------------------------------

    def keep(self, pictures: Sequence[str], rows: Sequence[Tensor]) -> int:
        """Remember what was computed, of finite numbers and not known yet; returns how many that were."""
        fresh = {}
        for picture, row in zip(pictures, rows, strict=True):
            if not self.stopped and picture not in self and bool(torch.isfinite(row).all()):
                fresh[picture] = row.detach().to("cpu", copy=True).contiguous()
        with self._guard:
            self._waiting |= fresh
        self._waiting_bytes += sum(row.nbytes for row in fresh.values())
        if self._waiting_bytes >= SHARD_BYTES or len(self._waiting) >= SHARD_PICTURES:
            self.write()
        return len(fresh)

    def write(self) -> None:
        """Make a shard of what waits in memory. Where that is impossible, say so once and keep nothing more."""
        if self._waiting:
            try:
                self._write_shard()
            except (OSError, SafetensorError) as fault:
                self.stopped = True
                log.warning("%s: nothing more is kept (%s); the training goes on without", self.directory, fault)
        with self._guard:
            self._waiting, self._waiting_bytes = {}, 0

    def _write_shard(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.directory).free < self._waiting_bytes + RESERVED_BYTES:
            raise OSError(f"less than {RESERVED_BYTES >> 30} GiB would stay free on its disk")
        name = f"{uuid.uuid4().hex}{SUFFIX}"
        temporary = self.directory / f".{name}.tmp"
        sums = {picture: _checksum(row) for picture, row in self._waiting.items()}
        try:
            save_file(self._waiting, temporary, metadata={CHECKSUMS: json.dumps(sums)})
            # Not synced: what a power cut tears is found by its checksum.
            os.replace(temporary, self.directory / name)
        finally:
            temporary.unlink(missing_ok=True)
        with self._guard:
            self._shards[name] = np.array([_prefix(picture) for picture in sums], np.uint64)
            self._index()

    def close(self) -> None:
        """Write what waits and let go of the directory."""
        self.write()
        self._open.clear()
        self._lock.close()


class _Shard:
    """A shard opened for reading. Raises FileNotFoundError, SafetensorError or Damaged."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="pt")
        said = (self._file.metadata() or {}).get(CHECKSUMS, "")
        self.pictures = list(self._file.keys())
        try:
            self._sums: dict[str, int] = json.loads(said)
        except ValueError as error:
            raise Damaged("it has no checksums") from error
        if self._sums.keys() != set(self.pictures):
            raise Damaged("pictures and checksums differ")

    def read(self, picture: str) -> Tensor | None:
        """A picture's feature, its checksum compared; None where it is not here."""
        if picture not in self._sums:
            return None
        row: Tensor = self._file.get_tensor(picture)
        if _checksum(row) != self._sums[picture]:
            raise Damaged(f"the checksum of picture {picture} differs")
        return row


def _checksum(row: Tensor) -> int:
    """CRC-32 of type, shape and bytes."""
    values = row.contiguous().reshape(-1).view(torch.uint8).numpy()
    return zlib.crc32(values.data, zlib.crc32(f"{row.dtype} {list(row.shape)}".encode()))


def _prefix(picture: str) -> np.uint64:
    """The first 8 bytes of a SHA-256; two pictures that share them are told apart by their names in the shards."""
    return np.uint64(int(picture[:16], 16))
