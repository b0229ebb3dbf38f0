"""Files that survive a kill: atomic replacement, JSON lines whose torn last line is dropped, and the run lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reca_core.contracts.errors import DamagedFile, RunLocked

LOCK_WAIT_SECONDS = 60.0
LOCK_POLL_SECONDS = 0.2


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _named(path), temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """UTF-8 form of ``atomic_write_bytes``."""
    atomic_write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Readable UTF-8 JSON, atomically. Raises ValueError for NaN: no file of ours holds one."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Append rows in one write, so that a kill can only tear the last line. A torn line before them is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    drop_torn_line(path)
    with _named(path), path.open("ab") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file into errors of an open file, such as a full disk's, which name none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def drop_torn_line(path: Path) -> None:
    """Cut what follows the last newline: the rest of a write that a kill interrupted."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            return
        stream.seek(size - 1)
        if stream.read(1) == b"\n":
            return
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)


def read_jsonl(path: Path) -> Iterator[Any]:
    """Rows of a JSON-lines file; a torn last line is skipped. Raises DamagedFile naming file and line for others."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DamagedFile(
                    f"line {number}: not JSON ({error})",
                    field=str(path),
                    remedy="check the disk; mend the line, or move the file away: what it held is made again",
                ) from error


def remove_leftovers(directory: Path) -> None:
    """Remove what interrupted writes left under temporary names. Only for who holds the directory's lock."""
    for leftover in list(directory.rglob(".*.tmp")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def run_lock(path: Path, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold ``flock`` on ``path`` for the block; the kernel releases it when the process dies, however it dies.

    Raises RunLocked, naming the holder's pid, if the lock is not free within ``wait_seconds``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with path.open("a+") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise RunLocked(
                        f"process {_holder(path)} is working here since before {wait_seconds:.0f} s",
                        field=str(path.parent),
                        remedy="wait for it or stop it; the run resumes from its last checkpoint",
                    ) from None
                time.sleep(LOCK_POLL_SECONDS)
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def _holder(path: Path) -> str:
    text = path.read_text().strip()
    return text or "unknown"
