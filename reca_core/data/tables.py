"""Parquet and arrow files in the layout that HF ``datasets`` writes: one column of pictures, a row each.

Read with pyarrow row group by row group, so that memory does not grow with the table and a column that is not there is
told from one that is empty. A row must hold the picture's bytes: a row that only names a file or an address is listed,
because a table from elsewhere must not decide what is read from this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reca_core.contracts.errors import BadInput
from reca_core.data.entries import MAXIMUM_HELD_BYTES, Entry, Found, Part, Refused, printable, stamp_of

PARQUET_SUFFIX = ".parquet"
TABLE_SUFFIXES = (PARQUET_SUFFIX, ".arrow")
BATCH_ROWS = 16
"""Rows held at once: pictures of some megabytes each."""
READ_BUFFER_BYTES = 1 << 20
DEFAULT_SPLIT = "train"
SPLIT_IN_NAME = re.compile(r"^(?!data-)(\w+?)-\d{5}-of-\d{5}")
"""``validation-00000-of-00004.parquet``; ``save_to_disk`` names every split's files data-..., in a folder per split."""
TABLE_ERRORS = (pa.ArrowException, OSError)


class Tables:
    """The pictures in one column of a list of parquet or arrow files."""

    revision = ""

    def __init__(self, paths: Sequence[Path], column: str, split: str) -> None:
        """Raises BadInput if no file is of the split or the column is not there or cannot hold pictures."""
        by_split: dict[str, list[Path]] = {}
        for path in sorted(paths):
            by_split.setdefault(split_of(path), []).append(path)
        if split not in by_split:
            fact = f"no file is of split {split!r}"
            raise BadInput(fact, field="images.split", choices=sorted(by_split))
        self.paths = by_split[split]
        self.column = column
        self.identity = f"tables {column} " + "\n".join(str(path) for path in self.paths)
        check_column(self.paths, column)

    def expected(self) -> int:
        """Rows of the parquet files, from their footers; 0 if an arrow file is among them, which has none."""
        if any(path.suffix != PARQUET_SUFFIX for path in self.paths):
            return 0
        return sum(_parquet_rows(path) for path in self.paths)

    def parts(self) -> Iterator[Part]:
        """One part per file."""
        for path in self.paths:
            yield table_part(path, self.column)


def split_of(path: Path) -> str:
    """The split that a file's name or its ``save_to_disk`` folder says, else train, as ``datasets`` has it."""
    named = SPLIT_IN_NAME.match(path.name)
    if named:
        return named.group(1)
    listing = path.parent.parent / "dataset_dict.json"
    return path.parent.name if listing.is_file() else DEFAULT_SPLIT


def saved_tables(directory: Path) -> list[Path]:
    """The files of a ``save_to_disk`` directory or of a directory of tables. Raises BadInput where there is none."""
    listing = directory / "dataset_dict.json"
    folders = [directory]
    if listing.is_file():
        folders = [directory / name for name in _splits(listing)]
    found = [path for folder in folders for path in folder.iterdir() if path.suffix in TABLE_SUFFIXES]
    if not found:
        fact = f"{directory} holds no {' or '.join(TABLE_SUFFIXES)} file"
        raise BadInput(fact, field="images.source", remedy="name the files themselves; globs are allowed")
    return found


def _splits(listing: Path) -> list[str]:
    """The splits that ``dataset_dict.json`` names. Raises BadInput for a file that says nothing of the kind."""
    try:
        said = json.loads(listing.read_bytes())
    except ValueError:
        said = None
    names = said.get("splits") if isinstance(said, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput(
            f"{listing} does not name the splits, as save_to_disk writes them",
            field="images.source",
            remedy='mend it, such as {"splits": ["train"]}, or name the tables themselves; globs are allowed',
        )
    return names


def check_column(paths: Sequence[Path], column: str) -> None:
    """Refuse a column that no readable file has, before anything is read. Raises BadInput with the choices."""
    schemas = [schema for schema in map(_schema, paths) if schema is not None]
    if not schemas or any(column in schema.names and _holds_pictures(schema.field(column).type) for schema in schemas):
        return
    schema = schemas[0]
    choices = [field.name for field in schema if _holds_pictures(field.type)]
    fact = f"there is no column {column!r} among {', '.join(schema.names)}"
    if column in schema.names:
        fact = f"column {column!r} holds {schema.field(column).type}, not the bytes of pictures"
    remedy = "" if choices else f"{paths[0].name} has no column that can hold pictures"
    raise BadInput(fact, field="images.image_column", choices=choices, remedy=remedy)


def table_part(path: Path, column: str) -> Part:
    """The rows of one file."""
    try:
        stamp = stamp_of(path)
    except OSError as error:
        refusal = Refused(printable(path.name), "unreadable", f"cannot be looked at: {error.strerror}")
        return Part(str(path), "", lambda start: iter([refusal][start:]))
    return Part(f"{path} {column}", stamp, partial(_entries, path, column))


def _entries(path: Path, column: str, start: int) -> Iterator[Entry]:
    """Rows from number ``start`` on, and a refusal of the file where it breaks off."""
    name = printable(path.name)
    row = 0
    try:
        read = _parquet_batches if path.suffix == PARQUET_SUFFIX else _arrow_batches
        for first, cells in read(path, column, start):
            for row, cell in enumerate(cells, first):
                if row >= start:
                    yield _entry(f"{name} row {row}", cell)
    except (*TABLE_ERRORS, KeyError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Refused(name, "damaged", f"the table cannot be read beyond row {row}: {words}")


def _entry(label: str, cell: pa.Scalar) -> Entry:
    path = b""
    if isinstance(cell, pa.StructScalar):
        path = _raw_text(cell, "path")
        cell = cell["bytes"] if cell.is_valid and "bytes" in cell else pa.scalar(None)
    if not cell.is_valid and path:
        name = path.decode(errors="backslashreplace")
        return Refused(label, "missing", f"the row names the file {name!r} instead of holding its bytes")
    if not cell.is_valid:
        return Refused(label, "missing", "the row holds no picture")
    if not _is_bytes(cell.type):  # files of one source can differ
        return Refused(label, "not_a_picture", f"the row holds {cell.type}, not the bytes of a picture")
    content = cell.as_py()
    if len(content) > MAXIMUM_HELD_BYTES:
        return Refused(label, "too_large", f"{len(content):,} bytes are more than {MAXIMUM_HELD_BYTES:,}")
    return Found(label, content)


def _raw_text(cell: pa.StructScalar, field: str) -> bytes:
    """A text field of a row as it lies there: nobody has checked that it is UTF-8."""
    text = cell[field] if cell.is_valid and field in cell else None
    return bytes(text.as_buffer()) if isinstance(text, pa.StringScalar) and text.is_valid else b""


def _parquet_batches(path: Path, column: str, start: int) -> Iterator[tuple[int, pa.Array]]:
    """(number of the first row, cells); row groups before ``start`` are skipped unread."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BUFFER_BYTES) as table:
        if column not in table.schema_arrow.names:
            raise KeyError(f"no column {column!r}")
        row = 0
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if row + rows > start:
                first = row
                for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column]):
                    yield first, batch.column(0)
                    first += batch.num_rows
            row += rows


def _arrow_batches(path: Path, column: str, start: int) -> Iterator[tuple[int, pa.Array]]:
    """(number of the first row, cells) of a memory-mapped arrow file in either of its two framings."""
    with pa.memory_map(str(path)) as mapped:
        row = 0
        for batch in _record_batches(mapped):
            if row + batch.num_rows > start:
                cells = batch.column(column)
                for first in range(0, batch.num_rows, BATCH_ROWS):
                    yield row + first, cells.slice(first, BATCH_ROWS)
            row += batch.num_rows


def _record_batches(mapped: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    """``datasets`` writes the stream framing, other tools the file framing, which begins with a magic word."""
    magic = mapped.read(6)
    mapped.seek(0)
    if magic != b"ARROW1":
        yield from pa.ipc.open_stream(mapped)
        return
    reader = pa.ipc.open_file(mapped)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _schema(path: Path) -> pa.Schema | None:
    """The columns of a file; None if it cannot be read, which preparation will list."""
    try:
        if path.suffix == PARQUET_SUFFIX:
            return pq.read_schema(path)
        with pa.memory_map(str(path)) as mapped:
            return next(iter(_record_batches(mapped))).schema
    except (*TABLE_ERRORS, StopIteration):
        return None


def _parquet_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except TABLE_ERRORS:
        return 0


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))
