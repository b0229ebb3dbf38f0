"""The prepared set on disk: ``data/<digest>/{manifest.jsonl, quarantine.jsonl, prepared.json}``.

The digest is a SHA-256 over the version of the decoding rules and the pictures' hashes in ascending order. It knows no
path, no order of files and no container: the same pictures from a folder, a table or a tar are the same training data.
Everything else that can be set (limit, split, scene size) decides which pictures there are, hence is in the hashes.
The manifest lists pictures by ascending hash, so its order depends on the pictures alone too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from reca_core.contracts.base import Record
from reca_core.contracts.errors import PrerequisiteMissing, StageFailed
from reca_core.contracts.files import atomic_write_text, read_jsonl, sync_directory
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.records import ManifestRow, PreparedData
from reca_core.contracts.requests import ImageSource
from reca_core.data.colour import ColourStatistics
from reca_core.data.random_access import LineRows

DECODING_VERSION = 1
"""Raised by whoever changes what ``images`` or ``pixels`` make of a file: old trainings saw other pixels."""
MANIFEST = "manifest.jsonl"
QUARANTINE = "quarantine.jsonl"
SUMMARY = "prepared.json"


class PreparedSummary(Record):
    """``prepared.json``: a prepared set and where it came from. Written last, without times, the same on every run."""

    data: PreparedData
    images: ImageSource
    """The source as it was asked for."""
    revision: str
    """Commit of a hub data set."""
    companions: int
    """Captions and other files beside the pictures that were ignored."""
    quarantine: dict[str, int]
    """Unusable files by kind."""
    colours: ColourStatistics


def digest_of(hashes: Iterable[str]) -> str:
    """The identity of a picture set. ``hashes`` must be distinct and ascending, which is checked: ValueError."""
    digest = hashlib.sha256(f"pictures decoded by rules {DECODING_VERSION}\n".encode())
    last = ""
    for sha256 in hashes:
        if sha256 <= last:
            raise ValueError(f"hash {sha256} does not ascend after {last}")
        digest.update(sha256.encode() + b"\n")
        last = sha256
    return digest.hexdigest()


def write_records(path: Path, records: Iterable[Record]) -> bool:
    """Write JSON lines atomically, in constant memory; False if the file has just this content already."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    digest = hashlib.sha256()
    with temporary.open("wb") as stream:
        for record in records:
            line = record.model_dump_json().encode() + b"\n"
            digest.update(line)
            stream.write(line)
        stream.flush()
        if path.is_file() and sha256_file(path) == digest.hexdigest():
            temporary.unlink()
            return False
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)
    return True


def write_summary(directory: Path, summary: PreparedSummary) -> bool:
    """Write ``prepared.json``; False if it has just this content already."""
    path = directory / SUMMARY
    text = summary.model_dump_json(indent=2) + "\n"
    if path.is_file() and path.read_text() == text:
        return False
    atomic_write_text(path, text)
    return True


def read_summary(directory: Path) -> PreparedSummary:
    """``prepared.json`` of a prepared set. Raises PrerequisiteMissing if the directory holds none."""
    path = directory / SUMMARY
    if not path.is_file():
        fact = f"{directory} is not a prepared picture set"
        raise PrerequisiteMissing(fact, field=SUMMARY, remedy="reca run prepare --set images.source=...")
    return PreparedSummary.model_validate_json(path.read_text())


def iterate_manifest(directory: Path) -> Iterator[ManifestRow]:
    """The pictures of a prepared set by ascending hash, one at a time.

    Raises PrerequisiteMissing if the set is not there, StageFailed at the end if the file was cut.
    """
    expected = read_summary(directory).data.pictures
    count = 0
    for row in read_jsonl(directory / MANIFEST):
        count += 1
        yield ManifestRow.model_validate(row)
    if count != expected:
        raise _cut(directory, count, expected)


def read_manifest(directory: Path) -> Sequence[ManifestRow]:
    """The pictures of a prepared set by ascending hash, read when asked for: any number of them in constant memory.

    Raises PrerequisiteMissing if the set is not there, StageFailed if the file was cut.
    """
    expected = read_summary(directory).data.pictures
    rows = LineRows(directory / MANIFEST, ManifestRow.model_validate_json)
    if len(rows) != expected:
        raise _cut(directory, len(rows), expected)
    return rows


def _cut(directory: Path, rows: int, expected: int) -> StageFailed:
    fact = f"{MANIFEST} has {rows} rows, prepared.json says {expected}"
    return StageFailed(fact, field=str(directory), remedy="prepare again: a finished set is rewritten if it differs")
