"""DPG-Bench's rules reproduce every recorded run of the upstream script and of RecA's copy of it.

A run is described by its name: which layout of picture files, and whether the first question survived the loader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.aggregate import point_value
from evaluation.benchmarks.dpg import summary
from evaluation.benchmarks.dpg.recorded import Layout, judgments, read_answers
from evaluation.benchmarks.dpg.table import read_table
from evaluation.records import Judgment, Scored, Unscored
from tests.parity.golden_cases import ABSOLUTE_TOLERANCE, document_of, report, skip_module_without_goldens

skip_module_without_goldens()
pytestmark = pytest.mark.goldens


@pytest.fixture(scope="module")
def folder(goldens: Path) -> Path:
    return goldens / "dpg"


def recorded_runs(folder: Path) -> dict[str, Any]:
    """Run name -> expectations; none unless the set has all three files."""
    names = ("questions.csv", "answers.json", "expected.json")
    return document_of(folder / "expected.json") if all((folder / name).exists() for name in names) else {}


def layout_of(run_name: str) -> Layout:
    if "per_image" in run_name:
        return "per_image"
    return "first_image" if "first_image" in run_name else "grid4"


def judged(folder: Path, run_name: str) -> list[Judgment]:
    """The recorded answers, judged as the run of this name did."""
    text = (folder / "questions.csv").read_bytes().decode()
    table = read_table(text, "questions.csv", first_row_kept=run_name.startswith("first_row_kept"))
    answers = read_answers(document_of(folder / "answers.json"), "answers.json")
    return judgments(table, answers, layout_of(run_name), arithmetic="parity")


def close(expected: float) -> Any:
    return pytest.approx(expected, rel=0, abs=ABSOLUTE_TOLERANCE)


def stem(file: str) -> str:
    return file.rsplit(".", 1)[0]


def test_every_run_has_upstreams_overall_and_categories(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = recorded_runs(folder)
    checked = 0
    for name, expected in runs.items():
        rows = summary.rows(judged(folder, name), "parity")
        assert point_value(rows.pop("overall")) == close(expected["overall"]), name
        wanted = {f"{level}/{key}": value for level in ("l1", "l2") for key, value in expected[level].items()}
        found = {key: point_value(row) for key, row in rows.items() if row.n_scored}
        assert found.keys() == wanted.keys(), name
        assert found == {key: close(value) for key, value in wanted.items()}, name
        checked += 1
    report(capsys, "expected.json (runs)", checked, len(runs))


def test_every_picture_file_has_upstreams_scores_or_fails_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = recorded_runs(folder)
    files = 0
    for name, expected in runs.items():
        outcomes = {judgment.id: judgment.outcome for judgment in judged(folder, name)}
        failed = {stem(file) for file, _ in expected["failed"]}
        assert outcomes.keys() == {stem(file) for file in expected["per_file"]} | failed
        for file, wanted in expected["per_file"].items():
            outcome = outcomes[stem(file)]
            assert isinstance(outcome, Scored), file
            assert outcome.values["score"] == close(wanted["score"]), (name, file)
            assert outcome.evidence["image_scores"] == [close(score) for score in wanted["image_scores"]], (name, file)
            assert outcome.evidence["raw_scores"] == wanted["raw_scores"], (name, file)
        for file in failed:
            assert isinstance(outcomes[file], Unscored), (name, file)
        files += len(expected["per_file"]) + len(expected["failed"])
    total = sum(len(run["per_file"]) + len(run["failed"]) for run in runs.values())
    report(capsys, "expected.json (files)", files, total)


def test_corrected_keeps_the_first_row_and_counts_what_it_cannot_score(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = recorded_runs(folder)
    checked = 0
    kept = {name: run for name, run in runs.items() if name.startswith("first_row_kept")}
    for name, expected in kept.items():
        overall = summary.rows(judged(folder, name), "corrected")["overall"]
        assert point_value(overall) == close(expected["overall"])
        assert overall.n_scored == len(expected["per_file"])
        assert overall.n_expected - overall.n_scored == len(expected["failed"])
        checked += 1
    report(capsys, "expected.json (corrected)", checked, len(kept))
