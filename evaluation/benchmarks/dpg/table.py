"""The question table ``dpg_bench.csv``: one row per question, grouped by item in file order.

Used columns: item_id, proposition_id, dependency (comma-separated parents, 0 = none), tuple, question_natural_language.
The upstream loader loses the first data row; ``first_row_kept=False`` repeats that defect.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from reca_core.contracts.errors import BadInput

COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")
NO_PARENT = 0
TUPLE_OPENS = "("
LEVELS_PART = "-"
LONGEST_NUMBER = 100
"""Characters of a number; an item has some dozens of questions."""
END = "end of the table"
"""Put below the text: a quotation mark that is never closed would swallow all rows behind it, and this one too."""
TOO_MUCH = "cells behind the last column"
"""Where the reader puts them."""


@dataclass(frozen=True)
class DpgQuestion:
    """One row."""

    proposition: int
    parents: tuple[int, ...]
    """Propositions that must be true for this one to make sense; the 0 of "none" is left out."""
    category: str
    """Level 2, such as ``attribute - color``."""
    text: str


Table = Mapping[str, Mapping[int, DpgQuestion]]
"""item -> proposition -> question, both in file order."""


def broad(category: str) -> str:
    """Level 1 of a level-2 category: ``attribute`` of ``attribute - color``."""
    return category.split(LEVELS_PART)[0].strip()


def read_table(text: str, name: str, first_row_kept: bool = True) -> dict[str, dict[int, DpgQuestion]]:
    """Parse the CSV file's text.

    Args:
        name: the file's name, for errors.
    Raises: BadInput naming file, row and column of what does not fit.
    """
    reader = csv.DictReader(io.StringIO(f"{text}\n{END}\n"), restkey=TOO_MUCH)
    header = list(reader.fieldnames or [])
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise BadInput(f"{name}: the header lacks {', '.join(missing)}", field="questions", choices=COLUMNS)
    table: dict[str, dict[int, DpgQuestion]] = {}
    place = f"{name}, header"
    try:
        for number, row in enumerate(reader):
            if row[header[0]] == END:
                return table
            place = f"{name}, data row {number + 1}"
            if number or first_row_kept:
                _add(table, row, place)
    except csv.Error as error:
        raise BadInput(f"{name}, line {reader.line_num}: {error}", field="questions") from error
    raise BadInput(f"{place}: a quotation mark is opened and never closed", field="questions")


def _add(table: dict[str, dict[int, DpgQuestion]], row: Mapping[str, str | None], place: str) -> None:
    """Of two rows for one proposition the later one counts, as upstream."""
    if row.get(TOO_MUCH):
        remedy = "put quotation marks around a cell that holds a comma"
        raise BadInput(f"{place} has more cells than the header", field="questions", remedy=remedy)
    question = _question(row, place)
    table.setdefault(row["item_id"] or "", {})[question.proposition] = question


def _question(row: Mapping[str, str | None], place: str) -> DpgQuestion:
    cells = {column: row[column] for column in COLUMNS}
    empty = [column for column, cell in cells.items() if cell is None]
    if empty:
        raise BadInput(f"{place} ends before {', '.join(empty)}", field="questions")
    parents = [_integer(part, place, "dependency") for part in (cells["dependency"] or "").split(",")]
    return DpgQuestion(
        proposition=_integer(cells["proposition_id"] or "", place, "proposition_id"),
        parents=tuple(parent for parent in parents if parent != NO_PARENT),
        category=(cells["tuple"] or "").split(TUPLE_OPENS)[0].strip(),
        text=cells["question_natural_language"] or "",
    )


def _integer(text: str, place: str, column: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadInput(f"{place}, column {column}: {text!r} is not a whole number", field="questions") from None
