"""The benchmarks' own files: read from a local folder, only if they are byte for byte what the rules expect."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from evaluation.benchmark import PinnedFile
from reca_core.contracts.errors import PrerequisiteMissing

DATA_FIELD = "benchmark data"
RECORD_FILE = "pictures.json"
"""Name of a fetched file -> its SHA-256 (evaluation/fetch_pictures.py)."""
REMEDY = "put the file of the pinned revision there, or name its folder with --benchmark-data DIR"


def read_pinned(folder: Path | None, benchmark: str, pin: PinnedFile) -> str:
    """The UTF-8 text of ``<folder>/<benchmark>/<pin.path>``.

    Raises: PrerequisiteMissing naming the file, and expected and found hash where it was altered.
    """
    if folder is None:
        raise PrerequisiteMissing(f"{benchmark} needs {pin.path}", field=DATA_FIELD, remedy=REMEDY)
    path = folder / benchmark / pin.path
    if not path.is_file():
        raise PrerequisiteMissing(f"{path} is not there", field=DATA_FIELD, remedy=REMEDY)
    content = path.read_bytes()
    expected = pin.sha256 or pin.git_blob
    found = hashlib.sha256(content).hexdigest() if pin.sha256 else git_blob(content)
    if found != expected:
        raise PrerequisiteMissing(
            f"{path} was altered: expected hash {expected}, found {found}", field=DATA_FIELD, remedy=REMEDY
        )
    return content.decode()


def read_recorded(folder: Path | None, benchmark: str, name: str) -> str:
    """The UTF-8 text of a file whose hash the first fetch recorded; empty where it was not fetched.

    Raises: PrerequisiteMissing naming the file, and recorded and found hash where it was altered.
    """
    record = (folder or Path()) / benchmark / RECORD_FILE
    recorded = json.loads(record.read_text(encoding="utf-8")) if folder is not None and record.is_file() else {}
    if name not in recorded:
        return ""
    return read_pinned(folder, benchmark, PinnedFile(name, sha256=recorded[name]))


def git_blob(content: bytes) -> str:
    """The id git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
