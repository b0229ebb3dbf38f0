"""ImgEdit's rules reproduce every recorded reading and every recorded table of the upstream scripts.

Where upstream crashes (the case says ``raises``), a correct rule must not: there the picture is unscored instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.aggregate import point_value
from evaluation.benchmarks.imgedit import summary
from evaluation.benchmarks.imgedit.ratings import EDIT_TYPES, RATING, score_reply
from evaluation.benchmarks.imgedit.recorded import judgments, read_items
from evaluation.records import Scored, Unscored
from tests.parity.golden_cases import (
    ABSOLUTE_TOLERANCE,
    document_of,
    lines_of,
    raw_count,
    report,
    skip_module_without_goldens,
)

skip_module_without_goldens()
pytestmark = [pytest.mark.goldens, pytest.mark.benchmark_data]


@pytest.fixture(scope="module")
def folder(goldens: Path) -> Path:
    return goldens / "imgedit"


@pytest.fixture(scope="module")
def items(benchmark_data: Path) -> dict[str, str]:
    path = benchmark_data / "imgedit" / "basic_edit.json"
    return read_items(document_of(path), path.name)


def test_every_reply_is_read_as_upstream_reads_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "parse_cases.jsonl"
    checked = 0
    for case in lines_of(path):
        outcome = score_reply(case["reply"], case["edit_type"], "parity")
        value = case["expected"].get("value")
        if value is None:
            assert isinstance(outcome, Unscored), case
        else:
            assert isinstance(outcome, Scored), case
            assert outcome.values[RATING] == value, case
        checked += 1
    report(capsys, path.name, checked, raw_count(path))


def is_clean(reply: str, edit_type: str | None) -> bool:
    """A reply with three plain rating lines of 1 to 5 and nothing else that looks like one: both readings agree."""
    outcome = score_reply(reply, edit_type, "parity")
    ratings = outcome.evidence.get("ratings", [])
    return len(ratings) == 3 and all(1 <= value <= 5 for value in ratings)


def test_strict_reading_agrees_on_clean_replies_and_never_invents_a_rating(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "parse_cases.jsonl"
    checked = 0
    for case in lines_of(path):
        strict = score_reply(case["reply"], case["edit_type"], "corrected")
        if isinstance(strict, Scored):
            ratings = list(strict.evidence["ratings"].values())
            assert len(ratings) == 3, case
            assert all(1 <= value <= 5 for value in ratings), case
            if is_clean(case["reply"], case["edit_type"]):
                assert round(strict.values[RATING], 2) == case["expected"]["value"], case
        if "raises" in case["expected"]:
            assert isinstance(strict, Unscored), case
        checked += 1
    report(capsys, f"{path.name} (strict)", checked, raw_count(path))


def test_every_run_has_upstreams_items_types_and_overall(
    folder: Path, items: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = document_of(folder / "runs.json") or []
    checked = 0
    for run in runs:
        expected = run["expected"]
        judged = judgments(run["judge_replies"], items, "parity")
        scores = {j.id: j.outcome.values[RATING] for j in judged if isinstance(j.outcome, Scored)}
        assert scores == expected["average_score"], run["name"]
        rows = summary.rows(judged, "parity")
        found = {name: point_value(rows[name]) for name in rows if name in EDIT_TYPES and rows[name].n_scored}
        assert found == expected["type_scores_upstream"], run["name"]
        assert {**found, "overall": point_value(rows["overall"])} == expected["type_scores_reca"], run["name"]
        macro = pytest.approx(expected["derived_macro_of_types"], rel=0, abs=ABSOLUTE_TOLERANCE)
        assert point_value(rows["overall_macro"]) == macro, run["name"]
        checked += 1
    report(capsys, "runs.json", checked, len(runs))


def test_corrected_tables_expect_every_item_and_score_no_unknown_key(
    folder: Path, items: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[dict[str, Any]] = document_of(folder / "runs.json") or []
    for run in runs:
        judged = judgments(run["judge_replies"], items, "corrected")
        unknown = [key for key in run["judge_replies"] if key not in items]
        overall = summary.rows(judged, "corrected")["overall"]
        assert overall.n_expected == len(items) + len(unknown)
        assert overall.n_scored <= len(run["judge_replies"]) - len(unknown)
        assert all(isinstance(j.outcome, Unscored) for j in judged if j.id in unknown)
    report(capsys, "runs.json (corrected)", len(runs), len(runs))
