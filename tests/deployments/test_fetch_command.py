"""``reca fetch`` checks what a person already has, and says what is wrong with it, without asking anybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cli import main


@pytest.mark.benchmark_data
def test_a_local_copy_is_checked_and_an_altered_file_is_named(
    benchmark_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "geneval").mkdir()
    for file in (benchmark_data / "geneval").iterdir():
        (tmp_path / "geneval" / file.name).write_bytes(file.read_bytes())
    words = ["fetch", "geneval", "--benchmark-data", str(tmp_path), "--home", str(tmp_path / "home"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(tmp_path)
    spoilt = tmp_path / "geneval" / "object_names.txt"
    spoilt.write_bytes(spoilt.read_bytes() + b"!")
    assert main(words) == 3
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert "object_names.txt" in error["fact"]
    assert "reca fetch geneval" in error["remedy"]


def test_a_benchmark_without_a_known_origin_says_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "mme", "--home", str(tmp_path), "--json"]) == 3
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert "--benchmark-data" in error["remedy"]
    assert main(["fetch", "nobody", "--home", str(tmp_path), "--json"]) == 2
