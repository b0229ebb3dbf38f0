"""`reca score`: recorded answers in, plain JSON out, with a status that says whether every item counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cli import main
from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INCOMPLETE

CASE = {
    "id": "one",
    "metadata": {"tag": "single_object", "include": [{"class": "bird", "count": 1}], "prompt": "a photo of a bird"},
    "detections": {"bird": [{"box": [0.0, 0.0, 10.0, 10.0], "score": 0.9, "color": "red"}]},
    "expected": "ignored",
}
REPLY = {
    "id": "two",
    "sc_replies": ['{"score": [4, 3], "reasoning": "x"}'],
    "pq_replies": ["no judge would say this", "nor this", "nor this"],
}


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps(CASE) + "\n")
    return file


@pytest.mark.parametrize("arithmetic", ["parity", "corrected"])
def test_the_result_goes_to_standard_output_as_one_document(
    answers: Path, arithmetic: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["score", "geneval", "--answers", str(answers), "--arithmetic", arithmetic]) == EXIT_DONE
    result = json.loads(capfdbinary.readouterr().out)
    assert result["arithmetic"] == arithmetic
    assert [item["id"] for item in result["items"]] == ["one"]
    assert result["rows"]["overall"]["value"] is not None


def test_with_an_output_file_standard_output_names_it(
    answers: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "scores.json"
    assert main(["--json", "score", "geneval", "--answers", str(answers), "--output", str(output)]) == EXIT_DONE
    assert json.loads(capfd.readouterr().out)["output"] == str(output)
    assert json.loads(output.read_text())["benchmark"] == "geneval"


def test_items_that_cannot_be_scored_make_the_status_5(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_text(json.dumps(REPLY) + "\n")
    assert main(["score", "gedit", "--replies", str(file)]) == EXIT_INCOMPLETE
    said = capfd.readouterr()
    (item,) = json.loads(said.out)["items"]
    assert item["values"] is None
    assert item["unscored"]
    assert "1 of the items could not be scored" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["genevl", "--answers", "x"],
        ["geneval"],
        ["geneval", "--answers", "/nowhere.jsonl"],
        ["geneval", "--replies", "x"],
        ["geneval", "--answers", "x", "--arithmetic", "guessing"],
    ],
)
def test_what_cannot_be_scored_is_bad_input(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "score", *words]) == EXIT_BAD_INPUT
    assert json.loads(capfd.readouterr().out)["errors"]


def test_an_output_that_cannot_be_written_is_bad_input(answers: Path) -> None:
    assert main(["score", "geneval", "--answers", str(answers), "--output", "/proc/nowhere/x"]) == EXIT_BAD_INPUT
