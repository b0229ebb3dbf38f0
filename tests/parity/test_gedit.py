"""GEdit's rules reproduce every recorded reading, round and table of the upstream scripts.

Where upstream guesses, crashes or never stops, a correct rule must not: such cases say so themselves (``guessed``,
``guesses_used``, ``raises``, ``never_terminates``) and are asserted to be unscored instead.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from evaluation.aggregate import point_value
from evaluation.benchmarks.gedit.benchmark import PLACEHOLDER, PQ_TEXT, SC_TEXT
from evaluation.benchmarks.gedit.recorded import RecordedRun, reply_judgment, row_judgments
from evaluation.benchmarks.gedit.replies import (
    RATE_LIMITED,
    Guess,
    Parsed,
    RateLimited,
    Unparsable,
    UpstreamCrash,
    read_as_upstream,
    read_strictly,
)
from evaluation.benchmarks.gedit.summary import TASKS, language_rows
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
pytestmark = pytest.mark.goldens


@pytest.fixture(scope="module")
def folder(goldens: Path) -> Path:
    return goldens / "gedit"


def close(expected: float | None) -> Any:
    return None if expected is None else pytest.approx(expected, rel=0, abs=ABSOLUTE_TOLERANCE)


def test_every_reply_is_read_as_upstream_reads_it_except_guesses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "parse_cases.jsonl"
    checked = 0
    for case in lines_of(path):
        expected, checked = case["expected"], checked + 1
        if "raises" in expected:
            with pytest.raises(UpstreamCrash):
                read_as_upstream(case["reply"], first_round=not case["give_up_parsing"])
            continue
        found = read_as_upstream(case["reply"], first_round=not case["give_up_parsing"])
        if expected["guessed"]:
            assert isinstance(found, Guess), case
        elif expected["parsed"] is False:
            assert isinstance(found, Unparsable), case
        elif expected["parsed"] == RATE_LIMITED:
            assert isinstance(found, RateLimited), case
        else:
            parsed = expected["parsed"]
            assert found == Parsed(parsed["has_score"], parsed.get("score")), case
    report(capsys, path.name, checked, raw_count(path))


def test_strict_reading_accepts_exactly_two_whole_numbers_in_range(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "parse_cases.jsonl"
    checked = 0
    for case in lines_of(path):
        checked += 1
        parsed = case["expected"].get("parsed")
        if case["give_up_parsing"] or not isinstance(parsed, dict):
            continue
        score = parsed.get("score")
        fits = isinstance(score, list) and len(score) == 2 and all(type(n) is int and 0 <= n <= 10 for n in score)
        found = read_strictly(case["reply"])
        assert found == tuple(score) if fits else isinstance(found, str), case
    report(capsys, f"{path.name} (strict)", checked, raw_count(path))


def is_terminating_and_honest(case: dict[str, Any]) -> bool:
    """Upstream reached this score without a guess, a crash or an endless loop."""
    expected = case["expected"]
    return not expected.get("never_terminates") and "raises" not in expected and not expected.get("guesses_used")


def test_every_honest_score_is_reproduced_and_every_other_is_unscored(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "evaluate_cases.jsonl"
    checked = 0
    for case in lines_of(path):
        outcome, expected = reply_judgment(case, "parity").outcome, case["expected"]
        if is_terminating_and_honest(case):
            assert isinstance(outcome, Scored), case
            assert outcome.values == {name: close(expected[name]) for name in ("SC", "PQ", "O")}, case
            assert outcome.evidence["judge_calls"] == expected["judge_calls"], case
        else:
            assert isinstance(outcome, Unscored), case
            assert outcome.reason, case
        checked += 1
    report(capsys, path.name, checked, raw_count(path))


def strict_asks(replies: list[str]) -> tuple[int, bool]:
    """How often a call is asked when each reply is read strictly, and whether it succeeds within three asks."""
    for number in range(3):
        if isinstance(read_strictly(replies[min(number, len(replies) - 1)]), tuple):
            return number + 1, True
    return 3, False


def test_corrected_asks_only_the_failing_call_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "evaluate_cases.jsonl"
    checked = 0
    for case in lines_of(path):
        outcome = reply_judgment(case, "corrected").outcome
        (sc_asks, sc_good), (pq_asks, pq_good) = strict_asks(case["sc_replies"]), strict_asks(case["pq_replies"])
        assert isinstance(outcome, Scored) == (sc_good and pq_good), case
        assert outcome.evidence["judge_calls"] == sc_asks + pq_asks, case
        checked += 1
    report(capsys, f"{path.name} (corrected)", checked, raw_count(path))


def test_every_table_has_upstreams_groups_and_averages(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = document_of(folder / "aggregate_cases.json") or []
    checked = 0
    for run in runs:
        judgments = row_judgments(RecordedRun.model_validate(run), "parity")
        for language, metrics in run["expected"].items():
            rows = language_rows(judgments, language, "parity")
            for metric, expected in metrics.items():
                name = f"{language}/{metric}"
                assert point_value(rows[name]) == close(expected["average"]), (run["name"], name)
                found = {task: point_value(rows[f"{name}/{task}"]) for task in TASKS}
                assert found == {task: close(value) for task, value in expected["groups"].items()}, (run["name"], name)
        checked += 1
    report(capsys, "aggregate_cases.json", checked, len(runs))


@pytest.mark.benchmark_data
def test_the_judge_texts_are_verbatim(folder: Path, benchmark_data: Path) -> None:
    hashes = document_of(folder / "prompt_hashes.json")
    if hashes is None:
        return
    sc = (benchmark_data / "gedit" / SC_TEXT.path).read_bytes().decode()
    assert hashes["placeholder"] == PLACEHOLDER
    assert hashes["sc_template"]["sha256"] == SC_TEXT.sha256
    assert hashes["pq_prompt"]["sha256"] == PQ_TEXT.sha256
    for instruction, expected in hashes["sc_after_substituting_instruction"].items():
        text = sc.replace(PLACEHOLDER, instruction)
        assert len(text) == expected["chars"]
        assert hashlib.sha256(text.encode()).hexdigest() == expected["sha256"]
