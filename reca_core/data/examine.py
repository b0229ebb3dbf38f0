"""From entries to outcomes: every entry is decoded once, on all cores, and the results come back in order.

Pictures out of containers are stored under their own hash in ``cache/pictures/<aa>/<sha256><suffix>``.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from reca_core.data.entries import Entry, Found, Outcome, Picture, Refused
from reca_core.data.images import PictureFacts, PictureUnusable, inspect_picture, open_regular

WINDOW_PER_WORKER = 4
"""Entries that are under way at once, per thread."""
MAXIMUM_WINDOW_BYTES = 512 << 20
"""Bytes of containers' pictures that are held at once."""


class PictureStore:
    """Content-addressed picture files. Safe for threads and processes: a file appears whole or not at all.

    Files are not synced one by one, which would cost more than decoding them: what a power cut damages has another
    size or hash, and both are checked before use.
    """

    def __init__(self, root: Path, incoming: Path) -> None:
        """``incoming`` is emptied: it holds what a killed process was writing. Its owner must hold a lock."""
        self._root = root
        self._incoming = incoming
        incoming.mkdir(parents=True, exist_ok=True)
        for torn in incoming.iterdir():
            torn.unlink()

    def keep(self, facts: PictureFacts, content: bytes) -> Path:
        """The file that holds these bytes, written if it is not there. Raises OSError, for example on a full disk."""
        path = self._root / facts.sha256[:2] / (facts.sha256 + facts.suffix)
        if path.is_file() and path.stat().st_size == facts.bytes:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._incoming / f"{facts.sha256}.{threading.get_ident()}"
        temporary.write_bytes(content)
        os.replace(temporary, path)
        return path


@dataclass(frozen=True)
class Job:
    """One step of a pass: an entry to examine, an outcome that is known, or the end of a part (neither)."""

    part: int
    number: int
    entry: Entry | None = None
    known: Outcome | None = None


@dataclass(frozen=True)
class Done:
    """A job with its outcome; None at the end of a part."""

    job: Job
    outcome: Outcome | None


def examine_all(jobs: Iterator[Job], store: PictureStore, workers: int) -> Generator[Done, None, None]:
    """Outcomes in the order of the jobs, decoded by ``workers`` threads a bounded distance ahead."""
    under_way: deque[tuple[Job, Future[Outcome] | None]] = deque()
    held = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for job in jobs:
                found = job.entry if isinstance(job.entry, Found) else None
                under_way.append((job, pool.submit(examine, found, store) if found else None))
                held += _size(job)
                while len(under_way) > workers * WINDOW_PER_WORKER or held > MAXIMUM_WINDOW_BYTES:
                    held -= _size(under_way[0][0])
                    yield _done(*under_way.popleft())
            while under_way:
                yield _done(*under_way.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def examine(found: Found, store: PictureStore) -> Outcome:
    """Decode one entry and keep its file where it does not lie in one already."""
    try:
        if isinstance(found.content, bytes):
            facts = inspect_picture(BytesIO(found.content))
            return Picture(found.label, str(store.keep(facts, found.content)), facts)
        with open_regular(found.content) as stream:
            facts = inspect_picture(stream)
            if _nameable(found.content):
                return Picture(found.label, str(found.content), facts)
            stream.seek(0)
            return Picture(found.label, str(store.keep(facts, stream.read())), facts)
    except PictureUnusable as unusable:
        return Refused(found.label, unusable.kind, unusable.reason)


def _nameable(path: Path) -> bool:
    """True if a UTF-8 file can hold the path; pictures with other names are copied into the store."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _size(job: Job) -> int:
    content = job.entry.content if isinstance(job.entry, Found) else None
    return len(content) if isinstance(content, bytes) else 0


def _done(job: Job, future: Future[Outcome] | None) -> Done:
    if future is not None:
        return Done(job, future.result())
    if job.known is not None:
        return Done(job, job.known)
    return Done(job, None if isinstance(job.entry, Found) else job.entry)
