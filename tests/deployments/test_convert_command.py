"""``reca convert`` as a person or a program meets it: its child, its report, its statuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from deployments.cli import main
from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_STAGE_FAILED

KEYS = {"missing", "unexpected", "mismatched_shape", "unchanged", "n_tensors"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reca_core.models.load import adapter_class

    place = tmp_path_factory.mktemp("showo") / "ours"
    adapter_class("showo").smallest(seed=0).save(place)
    return place


def words(source: Path, target: Path, layout: str = "upstream", *more: str) -> list[str]:
    named = ["--family", "showo", "--from", str(source), "--to", str(target), "--layout", layout]
    return ["convert", *named, *more, "--json"]


def test_a_conversion_reports_and_is_refused_where_the_weights_did_not_change(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(saved, tmp_path / "theirs")) == EXIT_DONE
    report = json.loads(capsys.readouterr().out)
    assert report.keys() >= KEYS
    assert [report[key] for key in KEYS - {"n_tensors"}] == [[]] * 4
    assert report["n_tensors"] > 0
    assert (tmp_path / "theirs" / "pytorch_model.bin").is_file()
    assert main(words(saved, tmp_path / "again", "upstream", "--base", str(saved))) == EXIT_STAGE_FAILED
    report = json.loads(capsys.readouterr().out)
    assert report["unchanged"]
    assert not (tmp_path / "again").exists()


def test_what_does_not_fit_is_status_2_with_the_report(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(saved, tmp_path / "ours")
    file = tmp_path / "ours" / "model.safetensors"
    state = load_file(file)
    name = "language_model.lm_head.bias"
    save_file({other: tensor for other, tensor in state.items() if other != name}, file, metadata={"format": "pt"})
    assert main(words(tmp_path / "ours", tmp_path / "out")) == EXIT_BAD_INPUT
    assert json.loads(capsys.readouterr().out)["missing"] == [name]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"--family": "nobody"}, "--family"),
        ({"--from": "./nothing"}, "--from ./nothing"),
        ({"--from": "/nothing/there"}, "--from /nothing/there"),
        ({"--layout": "x"}, ""),
    ],
)
def test_what_cannot_be_meant_starts_nothing(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], field: str
) -> None:
    typed = words(saved, tmp_path / "out")
    for option, value in change.items():
        typed[typed.index(option) + 1] = value
    assert main(typed) == EXIT_BAD_INPUT
    assert field in json.loads(capsys.readouterr().out)["errors"][0]["field"]


def test_a_fault_of_the_child_is_told_as_its_own(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert main(words(saved, tmp_path / "out")) == EXIT_BAD_INPUT
    error = json.loads(capsys.readouterr().out)["errors"][0]
    assert error["fact"] == "is there already"
    assert str(tmp_path / "out") in error["field"]
