"""Room on disks: told apart by file system, whatever there is of a directory yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from reca_core.contracts import disks
from reca_core.contracts.disks import Put, fillings, free_bytes, same, tree_bytes


def test_directories_of_one_file_system_are_filled_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent, here = tmp_path / "not" / "yet", tmp_path
    assert same(absent, here)
    assert free_bytes(absent) > 0
    puts = [Put("results", absent, 2), Put("download", tmp_path / "hub", 3), Put("samples", here, 4)]
    (filling,) = fillings(puts)
    assert (filling.parts, filling.needed) == ({"results": 2, "download": 3, "samples": 4}, 9)
    monkeypatch.setattr(disks, "number", lambda place: int(place.name == "hub"))
    assert [filling.parts for filling in fillings(puts)] == [{"results": 2, "samples": 4}, {"download": 3}]


def test_a_tree_is_as_large_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("one", "below/two"):
        (tmp_path / name).write_bytes(b"12345")
    assert tree_bytes(tmp_path) == 10
    assert tree_bytes(tmp_path / "absent") == 0
