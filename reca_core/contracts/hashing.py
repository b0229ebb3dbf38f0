"""Identity by content: canonical JSON, SHA-256 of texts, files and requests.

A request's hash is the name of its run directory (docs/architecture.md, "The run directory is the truth"):
the same work asked for twice, from anywhere and on any device, is the same run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from reca_core.contracts.base import WHEN_SET

CHUNK_BYTES = 1 << 20
HASH_LENGTH = 16
"""Hex digits of a SHA-256 that name a directory: 64 bits, no collision in any real home."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, no NaN. Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_text(text: str) -> str:
    """Hex SHA-256 of the UTF-8 bytes of ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_tree(directory: Path) -> str:
    """Hex SHA-256 over the relative names and contents of all files below ``directory``, in sorted order.

    Raises FileNotFoundError if there is no file: an empty directory has no identity worth recording.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"{directory} holds no file to hash")
    lines = [f"{path.relative_to(directory).as_posix()}\0{sha256_file(path)}\n" for path in files]
    return sha256_text("".join(lines))


def hashed_part(request: BaseModel) -> dict[str, Any]:
    """The fields of a request that decide its result: everything not declared with ``unhashed``, recursively."""
    kept: dict[str, Any] = {}
    for name, field in type(request).model_fields.items():
        extra = field.json_schema_extra
        hashed = extra.get("hashed") if isinstance(extra, dict) else None
        value = getattr(request, name)
        if hashed is False or (hashed == WHEN_SET and value == field.default):
            continue
        kept[name] = hashed_part(value) if isinstance(value, BaseModel) else value
    return kept


def request_hash(request: BaseModel) -> str:
    """First ``HASH_LENGTH`` hex digits of the SHA-256 of a request's hashed part and its class name."""
    part = json.loads(json.dumps(hashed_part(request), default=_plain))
    return sha256_text(type(request).__name__ + canonical_json(part))[:HASH_LENGTH]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return hashed_part(value)
    if isinstance(value, Path):
        raise TypeError(f"path {value} in the hashed part of a request: declare the field with unhashed()")
    raise TypeError(f"{type(value).__name__} has no canonical form")
