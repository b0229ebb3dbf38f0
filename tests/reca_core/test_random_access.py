"""Rows stay in their file: any of them is found again, and two million cost no more memory than ten thousand."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reca_core.data import random_access
from reca_core.data.random_access import STRIDE, LineRows, ListRows, iterate_list

MEMORY = """
import json, os, resource, sys
from pathlib import Path
from reca_core.data.feed import Order
from reca_core.data.random_access import LineRows
rows = LineRows(Path(sys.argv[1]), json.loads)
order = Order(len(rows), 0, "images")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = [rows[order.row(position)]["n"] for position in range(2000)]
print(json.dumps([len(rows), len(set(found)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
AT_EXIT = """
import json, os, sys
from pathlib import Path
from reca_core.data import random_access
os.kept = [random_access, random_access.LineRows(Path(sys.argv[1]), json.loads)]  # outlives the names of its module
"""
PAD = "x" * 60
MEBIBYTE_KIB = 1024
MOST_GROWTH_MIB = 40
"""Between ten thousand and two million rows; as objects these would be over a gibibyte."""


def write_lines(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"n": number, "pad": "x" * (number % 7)}) + "\n" for number in range(count)))
    return path


@pytest.mark.parametrize("count", [0, 1, STRIDE - 1, STRIDE, STRIDE + 1, 3 * STRIDE, 1000])
def test_every_line_is_found_at_its_number(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_access, "CHUNK_BYTES", 100)
    rows = LineRows(write_lines(tmp_path / "rows.jsonl", count), json.loads)
    assert [row["n"] for row in rows] == list(range(count))
    assert [row["n"] for row in rows[2:5]] == list(range(count))[2:5]
    with pytest.raises(IndexError, match=f"has {count} rows"):
        rows[count]
    if count:
        assert rows[-1]["n"] == count - 1


def test_a_torn_last_line_is_none(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", 10)
    path.write_bytes(path.read_bytes()[:-1])
    assert len(LineRows(path, json.loads)) == 9


def test_threads_share_one_file(tmp_path: Path) -> None:
    rows = LineRows(write_lines(tmp_path / "rows.jsonl", 5000), json.loads)
    with ThreadPoolExecutor(8) as pool:
        assert [row["n"] for row in pool.map(rows.__getitem__, range(5000))] == list(range(5000))


def test_the_file_is_closed_with_the_rows(tmp_path: Path) -> None:
    rows = LineRows(write_lines(tmp_path / "rows.jsonl", 3), json.loads)
    number = rows._file
    os.fstat(number)
    del rows
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_rows_that_live_until_the_end_of_the_process_end_silently(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", 3)
    ended = subprocess.run([sys.executable, "-c", AT_EXIT, str(path)], capture_output=True, text=True, check=True)
    assert ended.stderr == ""


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1],
        [1, "a", None, {"b": [1, 2, {"c": "]},["}]}],
        [12345678901234567890, 1.5e-7],
        ["ünï \U0001f600 ç", '\\"]'],
    ],
)
@pytest.mark.parametrize("characters", [1, 2, 5, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_is_read_element_by_element_whatever_the_window(
    tmp_path: Path, value: list, characters: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_access, "TEXT_CHARACTERS", characters)
    path = tmp_path / "list.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    found = list(iterate_list(path))
    assert [element for element, _, _ in found] == value
    spans = [number for _, start, length in found for number in (start, length)]
    rows = ListRows(path, spans, lambda element, number: (number, element))
    assert list(rows) == list(enumerate(value))


@pytest.mark.parametrize("text", ["", "[", "{}", "[1", "[1,", "[1 2]", "[1] 2", "[,1]", "[1,]", "nonsense", '["\\x"]'])
def test_what_is_no_json_list_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"byte|Expecting|Invalid"):
        list(iterate_list(path))


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    peaks = {}
    for count in (10_000, 2_000_000):
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as stream:
            stream.writelines(f'{{"n":{number},"pad":"{PAD}"}}\n' for number in range(count))
        answer = subprocess.run(
            [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
        ).stdout
        rows, distinct, peaks[count] = json.loads(answer)
        assert (rows, distinct) == (count, 2000)
    assert peaks[2_000_000] - peaks[10_000] < MOST_GROWTH_MIB * MEBIBYTE_KIB
