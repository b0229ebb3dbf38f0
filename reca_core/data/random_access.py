"""Any row of a huge file in constant memory: JSON lines by a sparse index, a JSON list by one index entry per row.

A manifest of ten million pictures is two gigabytes of text and would be ten as objects; a training reads a few rows a
step, in random order. So rows stay in their file and are read when they are asked for. Reads are positional
(``os.pread``): threads share one open file without a lock.
"""

from __future__ import annotations

import json
import os
import re
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

Row = TypeVar("Row")

STRIDE = 64
"""Lines between two index entries: an index of a million entries for 64 million lines, and about 8 kB a look-up."""
CHUNK_BYTES = 1 << 20
TEXT_CHARACTERS = 1 << 20
"""Read at once while a JSON list is scanned; a single row may be longer."""
BLANKS = re.compile(r"[ \t\r\n]*")
BEHIND_A_VALUE = frozenset(" \t\r\n,]")
"""What may follow an element; anything else in the text so far means that a number goes on, as in 1.5e-7."""
INDEX_TYPE = "Q"
"""Unsigned 64 bits."""


class Rows(Sequence[Row], Generic[Row]):
    """A sequence whose items are read from a file on demand; a slice is a list."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be opened."""
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        # Not __del__: at the interpreter's exit that may find its modules gone.
        weakref.finalize(self, os.close, self._file).atexit = False

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """One row or a list of them. Raises IndexError beyond the ends."""
        if isinstance(index, slice):
            return [self._read(number) for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows, asked for {index}")
        return self._read(number)

    def __len__(self) -> int:
        raise NotImplementedError

    def _read(self, number: int) -> Row:
        raise NotImplementedError


class LineRows(Rows[Row]):
    """The lines of a JSON-lines file. What follows the last newline is a torn line and counts as none.

    Args:
        path: the file; it must not change while this is in use.
        parse: makes a row of one line's bytes.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Row]) -> None:
        super().__init__(path)
        self._parse = parse
        self._count, self._starts = _line_starts(path)

    def __len__(self) -> int:
        return self._count

    def _read(self, number: int) -> Row:
        entry, skipped = divmod(number, STRIDE)
        end = self._starts[entry + 1]
        block = os.pread(self._file, end - self._starts[entry], self._starts[entry])
        return self._parse(block.split(b"\n", skipped + 1)[skipped])


def _line_starts(path: Path) -> tuple[int, array[int]]:
    """How many lines there are, and where every ``STRIDE``-th begins, closed by the end of the file."""
    starts: array[int] = array(INDEX_TYPE, [0])
    lines, base = 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            place = chunk.find(b"\n")
            while place >= 0:
                lines += 1
                if lines % STRIDE == 0:
                    starts.append(base + place + 1)
                place = chunk.find(b"\n", place + 1)
            base += len(chunk)
    if starts[-1] != base:
        starts.append(base)
    return lines, starts


class ListRows(Rows[Row]):
    """Chosen elements of a file that holds one JSON list, such as LLaVA's.

    Args:
        path: the file; it must not change while this is in use.
        spans: offset and length in bytes of every element, one after the other (``spans``).
        parse: makes a row of an element's value and its number among ``spans``.
    """

    def __init__(self, path: Path, spans: Sequence[int], parse: Callable[[Any, int], Row]) -> None:
        super().__init__(path)
        self._spans, self._parse = spans, parse

    def __len__(self) -> int:
        return len(self._spans) // 2

    def _read(self, number: int) -> Row:
        start, length = self._spans[2 * number], self._spans[2 * number + 1]
        return self._parse(json.loads(os.pread(self._file, length, start)), number)


def iterate_list(path: Path) -> Iterator[tuple[Any, int, int]]:
    """The elements of a file that holds one JSON list, each with its offset and length in bytes.

    Memory is that of the longest element. Raises ValueError for what is no JSON list, OSError where it cannot be read.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8", newline="") as stream:
        window = _Window(stream.read)
        window.expect("[")
        while window.peek() != "]":
            value, text = window.decode(decoder)
            length = len(text.encode())
            yield value, window.consumed_bytes - length, length
            if window.peek() == "]":
                break
            window.expect(",")
            if window.peek() == "]":
                raise ValueError(f"a comma before the closing bracket at byte {window.consumed_bytes}")
        window.expect("]")
        if window.peek():
            raise ValueError(f"something follows the list at byte {window.consumed_bytes}")


class _Window:
    """A moving piece of a text, with the number of bytes that lie behind it."""

    def __init__(self, read: Callable[[int], str]) -> None:
        self._read, self._text, self._place = read, "", 0
        self.consumed_bytes = 0

    def peek(self) -> str:
        """The next character that is not blank, or nothing at the end."""
        while True:
            found = BLANKS.match(self._text, self._place)
            self._take((found.end() if found else self._place) - self._place)
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        """Step over one character. Raises ValueError where there is another."""
        found = self.peek()
        if found != character:
            raise ValueError(f"expected {character!r}, found {found or 'the end'!r} at byte {self.consumed_bytes}")
        self._take(1)

    def decode(self, decoder: json.JSONDecoder) -> tuple[Any, str]:
        """The next value and its text. A value that does not end in the window gets a longer one."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError:
                if self._more():
                    continue
                raise
            if self._text[end : end + 1] not in BEHIND_A_VALUE and self._more():
                continue
            text = self._text[self._place : end]
            self._take(len(text))
            return value, text

    def _take(self, characters: int) -> None:
        self.consumed_bytes += len(self._text[self._place : self._place + characters].encode())
        self._place += characters

    def _more(self) -> bool:
        """Read on; False at the end. What was taken is dropped; what is waited for at least doubles."""
        kept = self._text[self._place :]
        piece = self._read(max(TEXT_CHARACTERS, len(kept)))
        self._text, self._place = kept + piece, 0
        return bool(piece)
