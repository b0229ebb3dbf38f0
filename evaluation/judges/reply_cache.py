"""Replies by what was asked: the same request to the same judge on the same date costs nothing a second time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reca_core.contracts.files import write_json
from reca_core.contracts.hashing import canonical_json, sha256_text

FOLDER = "judge_replies"
PREFIX = 2
"""Hex digits that name a sub-folder, so that no folder gets too large."""


class ReplyCache:
    """One file per request below ``<home>/cache/judge_replies``. Only replies are kept, no outages.

    Args:
        occasion: a judging that asks anew finds what it heard itself and nothing else; empty for any other.
    """

    def __init__(self, cache: Path, occasion: str = "") -> None:
        self._folder = cache / FOLDER
        self._occasion = {"occasion": occasion} if occasion else {}

    def key(self, asked: dict[str, Any]) -> str:
        """Identity of a request: everything that is sent, to whom, under which date, for the how-manieth time."""
        return sha256_text(canonical_json(asked | self._occasion))

    def get(self, key: str) -> str | None:
        """The kept reply; None where there is none, or only a damaged one."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return None
        text = kept.get("text") if isinstance(kept, dict) and kept.get("key") == key else None
        return text if isinstance(text, str) else None

    def put(self, key: str, text: str) -> None:
        """Keep a reply."""
        write_json(self._path(key), {"key": key, "text": text})

    def _path(self, key: str) -> Path:
        return self._folder / key[:PREFIX] / f"{key}.json"
