"""What is already known about a source: one SQLite file per source under ``cache/prepare``, which may be deleted.

It holds an outcome per entry, so that an unchanged file is never read twice and a preparation that was killed goes on
where it was; and, for the pass that is running, the distinct pictures sorted by hash, which gives duplicates and the
manifest's order without holding either in memory. SQLite's journal makes every commit survive ``kill -9``.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reca_core.contracts.records import ManifestRow, QuarantineRow
from reca_core.data.colour import Colours
from reca_core.data.entries import Companion, Outcome, Part, Picture, Refused
from reca_core.data.images import PictureFacts

COMMIT_SECONDS = 1.0
"""What a kill can lose at most."""
PAGE_ROWS = 1000
LEDGER_VERSION = 2
"""Raised when the tables or the meaning of an outcome change (a bound in ``images``, a rule in ``pixels``)."""
COMPANION = "companion"
PREFIX_COLUMNS = "label, kind, reason, file, sha256, width, height, bytes, suffix, colours"
SCHEMA = f"""
PRAGMA journal_mode = TRUNCATE;
CREATE TABLE IF NOT EXISTS part (id INTEGER PRIMARY KEY, key BLOB UNIQUE, stamp TEXT, complete INTEGER);
CREATE TABLE IF NOT EXISTS outcome (part INTEGER, number INTEGER, {PREFIX_COLUMNS}, PRIMARY KEY (part, number))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS picture (sha256 TEXT PRIMARY KEY, file, label, width, height, colours) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusal (number INTEGER PRIMARY KEY, label, kind, reason);
PRAGMA user_version = {LEDGER_VERSION};
"""


class Ledger:
    """The open ledger of one source. The caller holds the source's lock."""

    def __init__(self, path: Path) -> None:
        """Open or make it. A file of another version, or one that is no ledger, is begun anew: it is only a cache."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _usable(path):
            for name in (path, path.with_name(path.name + "-journal")):
                name.unlink(missing_ok=True)
        self._connection = sqlite3.connect(path)
        self._connection.executescript(SCHEMA)
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commit and close."""
        self._connection.commit()
        self._connection.close()

    def begin_pass(self) -> None:
        """Forget the chosen pictures and refusals of the last pass; outcomes stay."""
        self._connection.execute("DELETE FROM picture")
        self._connection.execute("DELETE FROM refusal")

    def open_part(self, part: Part) -> tuple[int, int, bool]:
        """(row of the part, number of outcomes that still hold, whether these are all of them)."""
        key = part.key.encode("utf-8", "surrogateescape")
        found = self._connection.execute("SELECT id, stamp, complete FROM part WHERE key = ?", (key,)).fetchone()
        if found is None:
            cursor = self._connection.execute("INSERT INTO part VALUES (NULL, ?, ?, 0)", (key, part.stamp))
            return int(cursor.lastrowid or 0), 0, False
        row, stamp, complete = found
        known = self._intact(row) if part.stamp and stamp == part.stamp else 0
        stored = self._connection.execute("SELECT count(*) FROM outcome WHERE part = ?", (row,)).fetchone()[0]
        if known == stored and stamp == part.stamp and complete and part.stamp:
            return row, known, True
        self._connection.execute("DELETE FROM outcome WHERE part = ? AND number >= ?", (row, known))
        self._connection.execute("UPDATE part SET stamp = ?, complete = 0 WHERE id = ?", (part.stamp, row))
        return row, known, False

    def _intact(self, row: int) -> int:
        """How many outcomes from the first on have their picture file where they say, with the size they say."""
        number = 0
        for outcome in self.outcomes(row):
            if isinstance(outcome, Picture) and not _has_size(outcome.file, outcome.facts.bytes):
                break
            number += 1
        return number

    def outcomes(self, row: int) -> Iterator[Outcome]:
        """The stored outcomes of a part, in order."""
        query = f"SELECT number, {PREFIX_COLUMNS} FROM outcome WHERE part = ? AND number > ? ORDER BY number LIMIT ?"
        last = -1
        while page := self._connection.execute(query, (row, last, PAGE_ROWS)).fetchall():
            for _, *columns in page:
                yield _outcome(*columns)
            last = page[-1][0]

    def add(self, row: int, number: int, outcome: Outcome) -> None:
        """Store what came of an entry."""
        values = (row, number, *_columns(outcome))
        self._connection.execute(f"INSERT INTO outcome VALUES ({', '.join('?' * len(values))})", values)
        self.commit_if_due()

    def finish_part(self, row: int) -> None:
        """The part has no more entries."""
        self._connection.execute("UPDATE part SET complete = 1 WHERE id = ?", (row,))

    def choose(self, picture: Picture) -> bool:
        """Take a picture into the set of this pass; False if it is a duplicate."""
        facts = picture.facts
        values = (facts.sha256, picture.file, picture.label, facts.width, facts.height, _colours_text(facts))
        cursor = self._connection.execute("INSERT OR IGNORE INTO picture VALUES (?, ?, ?, ?, ?, ?)", values)
        return cursor.rowcount == 1

    def refuse(self, refused: Refused) -> None:
        """Take a refusal into the list of this pass."""
        values = (refused.label, refused.kind, refused.reason)
        self._connection.execute("INSERT INTO refusal VALUES (NULL, ?, ?, ?)", values)

    def hashes(self) -> Iterator[str]:
        """Hashes of the chosen pictures, ascending."""
        for (sha256,) in self._connection.execute("SELECT sha256 FROM picture ORDER BY sha256"):
            yield sha256

    def manifest_rows(self) -> Iterator[ManifestRow]:
        """The chosen pictures by ascending hash."""
        query = "SELECT sha256, file, label, width, height FROM picture ORDER BY sha256"
        for sha256, file, label, width, height in self._connection.execute(query):
            yield ManifestRow(sha256=sha256, file=file, label=label, width=width, height=height)

    def quarantine_rows(self) -> Iterator[QuarantineRow]:
        """The refusals in the order of the source."""
        for label, kind, reason in self._connection.execute("SELECT label, kind, reason FROM refusal ORDER BY number"):
            yield QuarantineRow(label=label, kind=kind, reason=reason)

    def colours(self) -> Iterator[Colours]:
        """Colours of the chosen pictures by ascending hash."""
        for (text,) in self._connection.execute("SELECT colours FROM picture ORDER BY sha256"):
            yield _colours_from(text)

    def commit_if_due(self) -> None:
        """Make what is known survive a kill, at most once per ``COMMIT_SECONDS``."""
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self._connection.commit()
            self._committed = time.monotonic()


def _usable(path: Path) -> bool:
    """True if there is a ledger of this version."""
    if not path.exists():
        return False
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA user_version").fetchone()[0] == LEDGER_VERSION)
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


def _has_size(file: str, size: int) -> bool:
    try:
        return os.stat(file).st_size == size
    except OSError:
        return False


def _columns(outcome: Outcome) -> tuple[Any, ...]:
    if isinstance(outcome, Refused):
        return (outcome.label, outcome.kind, outcome.reason, *[None] * 7)
    if isinstance(outcome, Companion):
        return (outcome.label, COMPANION, *[None] * 8)
    facts = outcome.facts
    size = (facts.width, facts.height, facts.bytes)
    return (outcome.label, None, None, outcome.file, facts.sha256, *size, facts.suffix, _colours_text(facts))


def _outcome(label: str, kind: Any, reason: str, file: str, sha256: str, *facts: Any) -> Outcome:
    if kind == COMPANION:
        return Companion(label)
    if kind is not None:
        return Refused(label, kind, reason)
    width, height, size, suffix, colours = facts
    return Picture(label, file, PictureFacts(sha256, width, height, size, suffix, _colours_from(colours)))


def _colours_text(facts: PictureFacts) -> str:
    return json.dumps([facts.colours.mean, facts.colours.mean_square])


def _colours_from(text: str) -> Colours:
    mean, mean_square = json.loads(text)
    return Colours(tuple(mean), tuple(mean_square))
