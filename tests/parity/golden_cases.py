"""Reading a folder of golden cases: whatever set it is, a file that a set does not have contributes no case."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import golden_folder, required_groups

ABSOLUTE_TOLERANCE = 1e-9
"""Between recorded and computed floats; values that upstream rounds are compared exactly."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The cases of a JSON-lines file; none where the set has no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def document_of(path: Path) -> Any:
    """The content of a JSON file; None where the set has no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def raw_count(path: Path) -> int:
    """Non-empty lines of a file, counted without parsing, to check that no case was lost."""
    if not path.exists():
        return 0
    return sum(1 for line in path.read_bytes().split(b"\n") if line.strip())


def report(capsys: pytest.CaptureFixture[str], name: str, checked: int, expected: int) -> None:
    """Say, past pytest's capture, how many cases were reproduced; every case of the file must have been."""
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: {checked} of {expected} cases reproduced ")
    assert checked == expected


def skip_module_without_goldens() -> None:
    """One skip for a whole module where there is no golden folder; where it is required, every test says so itself."""
    if not golden_folder().is_dir() and "goldens" not in required_groups():
        pytest.skip(f"goldens: {golden_folder()} is not a folder: set RECA_GOLDENS", allow_module_level=True)
