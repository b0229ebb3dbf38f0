"""Skipping is not passing: RECA_REQUIRE turns a group's skip, and any skip that is not allowed, into a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"


def run_suite(folder: Path, source: str, **environment: str) -> subprocess.CompletedProcess[str]:
    tests = folder / "project" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(CONFTEST, tests / "conftest.py")
    (tests / "allowed_skips.txt").write_text("tests/test_it.py::test_allowed\n")
    (tests / "test_it.py").write_text("import pytest\n" + source)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RECA_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(
        command, cwd=tests.parent, env=inherited | environment, capture_output=True, text=True, check=False
    )


NEEDS_GOLDENS = "@pytest.mark.goldens\ndef test_needs(): pass\n"


def test_an_absent_group_skips_with_its_reason(tmp_path: Path) -> None:
    result = run_suite(tmp_path, NEEDS_GOLDENS, RECA_GOLDENS=str(tmp_path / "absent"))
    assert result.returncode == 0
    assert "1 skipped" in result.stdout


def test_a_required_absent_group_fails(tmp_path: Path) -> None:
    result = run_suite(tmp_path, NEEDS_GOLDENS, RECA_GOLDENS=str(tmp_path / "absent"), RECA_REQUIRE="goldens")
    assert result.returncode == 1
    assert "set RECA_GOLDENS" in result.stdout


def test_an_empty_golden_folder_is_an_absent_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run_suite(tmp_path, NEEDS_GOLDENS, RECA_GOLDENS=str(tmp_path / "empty"), RECA_REQUIRE="goldens")
    assert result.returncode == 1
    assert "is empty" in result.stdout


def test_a_set_without_a_family_contributes_no_case_and_no_skip(tmp_path: Path) -> None:
    tests = CONFTEST.parent
    (tmp_path / "goldens" / "models").mkdir(parents=True)
    environment = os.environ | {"RECA_GOLDENS": str(tmp_path / "goldens"), "RECA_REQUIRE": "goldens"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(tests / "parity/test_models_janus.py"),
    ]
    result = subprocess.run(command, cwd=tests.parent, env=environment, capture_output=True, text=True, check=False)
    assert "skipped" not in result.stdout
    assert "deselected" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize(("name", "status"), [("test_allowed", 0), ("test_other", 1)])
def test_a_skip_fails_unless_it_is_listed(tmp_path: Path, name: str, status: int) -> None:
    result = run_suite(tmp_path, f"def {name}(): pytest.skip('because')\n", RECA_REQUIRE="servers")
    assert result.returncode == status, result.stdout


def test_an_unknown_group_is_refused(tmp_path: Path) -> None:
    result = run_suite(tmp_path, "def test_fine(): pass\n", RECA_REQUIRE="golden")
    assert result.returncode != 0
    assert "golden" in result.stderr + result.stdout
