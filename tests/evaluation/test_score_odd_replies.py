"""`reca score` itself on replies that are odd, ImgEdit and GEdit: read as upstream reads them, strictly, or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INCOMPLETE
from tests.evaluation.scoring_command import Command, values

GOOD = '{"score": [8, 7], "reasoning": "fine"}'
MARKS = "Prompt Compliance: 4\nVisual Naturalness: 5\nPhysical & Detail Integrity: 3"


@pytest.fixture
def score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


# --- ImgEdit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "parity", "strict"),
    [
        (MARKS.replace("\n", "\r\n"), 4.0, True),
        (MARKS.replace("\n", "\r"), 4.0, True),
        (MARKS.replace("\n", "\u2028"), 4.0, True),
        ("Reasoning: it is fine: really\n\n" + MARKS + "\n\n", 4.0, True),
        ("- " + MARKS.replace("\n", "\n- "), 4.0, True),
        (MARKS.replace(": ", ":\u00a0"), None, False),
        (MARKS.replace(":", "："), None, False),
        ("\ufeff" + MARKS, 4.0, False),
        (MARKS.replace("3", "6"), 5.0, False),
        (MARKS.replace("3", "0"), 3.0, False),
        (MARKS.replace("3", "-3"), 4.5, False),
        (MARKS.replace("3", "+3"), 4.5, False),
        (MARKS.replace("3", "3/5"), 4.5, False),
        (MARKS.replace("3", "３"), 4.0, False),
        (MARKS.replace("3", "3\u200b"), 4.5, False),
        (MARKS.lower(), 4.0, False),
        (MARKS + "\n" + MARKS, 4.0, False),
        (MARKS + "\nOverall: 1", 3.25, True),
        (MARKS.replace("Visual Naturalness", "Visual Quality"), 4.0, False),
        (MARKS + "\nSeed: " + "9" * 200, None, True),
    ],
)
def test_replies_in_odd_spelling_are_read_as_upstream_or_strictly(
    score: Command, reply: str, parity: float | None, strict: bool
) -> None:
    items = score.file("items.json", {"k": {"id": "a.png", "prompt": "p", "edit_type": "replace"}})
    for arithmetic, expected in (("parity", parity), ("corrected", 4.0 if strict else None)):
        status, result, _ = score.imgedit({"k": reply}, "--items", items, "--arithmetic", arithmetic)
        assert [found and found["rating"] for found in values(result)] == [expected], arithmetic
        assert status == (EXIT_INCOMPLETE if expected is None else EXIT_DONE)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("", ["replies.json: not JSON"]),
        ("null", ["replies.json: expected a list of runs"]),
        ([{"judge_replies": {}}], ["run 0, field name"]),
        ([{"name": "r", "judge_replies": {}}, {"name": "r", "judge_replies": {}}], ["run 1, field name"]),
        ([{"name": "r", "judge_replies": {}}, {"name": "s"}], ["run 1, field judge_replies"]),
        ([{"name": "r", "judge_replies": []}], ["run 0, field judge_replies"]),
        ([{"name": 1, "judge_replies": {}}], ["run 0, field name"]),
        (["r"], ["run 0, field name"]),
    ],
)
def test_runs_without_name_or_replies_are_named(score: Command, answers: Any, words: list[str]) -> None:
    status, result, said = score.imgedit(answers)
    assert (status, result) == (EXIT_BAD_INPUT, {})
    assert all(word in said for word in words), said


def test_each_run_of_a_file_is_expected_to_have_every_item(score: Command) -> None:
    items = score.file("items.json", {name: {"edit_type": "add"} for name in "ab"})
    marked = MARKS.replace("Integrity", "Coherence")
    runs = [{"name": "first", "judge_replies": {"a": marked, "b": marked}}, {"name": "", "judge_replies": {}}]
    status, _, said = score.imgedit(runs, "--items", items)
    assert (status, "run 1, field name" in said) == (EXIT_BAD_INPUT, True)
    runs[1]["name"] = "ü second"
    status, result, _ = score.imgedit(runs, "--items", items)
    found = {name: (run["rows"]["overall"]["n_scored"], len(run["items"])) for name, run in result["runs"].items()}
    assert (status, found) == (EXIT_INCOMPLETE, {"first": (2, 2), "ü second": (0, 2)})


# --- GEdit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "parity", "strict"),
    [
        ('{\r\n"score": [8, 7]\r\n}', 7, 7),
        ("\ufeff[8, 7]", 7, 7),
        ("[8,\t7]", None, None),
        ("{“score”: [8, 7]}", None, None),
        ('{"score": [8, 7],}', None, None),
        ("{'score': [8, 7]}", None, None),
        ('{"score": [8, 7]} {"score": [1, 2]}', None, None),
        ('{"Score": [8, 7]}', None, None),
        ('{"score": [8.0, 7.0]}', 7, None),
        ('{"score": [1e1, 7]}', 7, None),
        ('{"score": [10, 10]}', 10, 10),
        ('{"score": [0, 0]}', 0, 0),
        ('{"score": [10, 11]}', 10, None),
        ('{"score": [1e308, 1e308]}', None, None),
        ('||V^=^V||{"score": [8, 7]}', 7, 7),
        ('||V^=^V||||V^=^V||{"score": [8, 7]}', None, None),
        ("[" + "9" * 5000 + ", 7]", None, None),
        ('{"score": {"SC": 8}}', None, None),
        (" ", None, None),
    ],
)
def test_gedit_replies_in_odd_spelling(score: Command, reply: str, parity: float | None, strict: int | None) -> None:
    line = {"id": "a", "sc_replies": [reply], "pq_replies": [GOOD]}
    for arithmetic, expected in (("parity", parity), ("corrected", strict)):
        status, result, _ = score.gedit(line, arithmetic=arithmetic)
        assert [found and found["SC"] for found in values(result)] == [expected], arithmetic
        assert status == (EXIT_INCOMPLETE if expected is None else EXIT_DONE)


def test_only_the_failing_call_is_repeated_in_corrected_and_both_in_parity(score: Command) -> None:
    """The second round of parity reads the second reply of both calls, and a bare pair only in the first."""
    line = {"id": "a", "sc_replies": ["{bad", GOOD], "pq_replies": ["[9, 9]", '{"score": [2, 2]}']}
    _, corrected, _ = score.gedit(line)
    _, parity, _ = score.gedit(line, arithmetic="parity")
    assert [(found["SC"], found["PQ"]) for found in (*values(corrected), *values(parity))] == [(7, 9), (7, 2)]
    assert [found["items"][0]["evidence"]["judge_calls"] for found in (corrected, parity)] == [3, 4]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"sc_replies": [GOOD], "pq_replies": [GOOD]}, "field id"),
        ({"id": 1, "sc_replies": [GOOD], "pq_replies": [GOOD]}, "field id"),
        ({"id": "a", "sc_replies": [GOOD], "pq_replies": [GOOD]}, "field id"),
        ({"id": "b", "sc_replies": [], "pq_replies": [GOOD]}, "field sc_replies"),
        ({"id": "b", "sc_replies": [GOOD], "pq_replies": [None]}, "field pq_replies.0"),
        ({"id": "b", "sc_replies": GOOD, "pq_replies": [GOOD]}, "field sc_replies"),
        ({"id": "b", "sc_replies": [GOOD]}, "field pq_replies"),
        ({"id": "b", "sc_replies": [GOOD], "pq_replies": [GOOD], "intersection_exist": 1}, "field intersection_exist"),
    ],
)
def test_a_bad_line_of_replies_is_named_with_its_field(score: Command, line: Any, field: str) -> None:
    status, result, said = score.gedit({"id": "a", "sc_replies": [GOOD], "pq_replies": [GOOD]}, line)
    assert (status, result) == (EXIT_BAD_INPUT, {})
    assert "replies.jsonl, line 2" in said
    assert field in said


def row(sc: Any, pq: Any, **changed: Any) -> dict[str, Any]:
    place = {"task_type": "ps_human", "instruction_language": "en", "intersection_exist": True}
    return {**place, "sc": sc, "pq": pq, **changed}


def test_rows_out_of_range_are_scored_by_upstream_alone(score: Command) -> None:
    rows = [row(11, 5), row(-1, -4), row(10, 0), row(7.5, 5), row(None, 5), row(1e308, 1e-5)]
    _, parity, _ = score.rows(rows, "parity")
    _, corrected, _ = score.rows(rows, "corrected")
    scored = [[found is not None for found in values(result["runs"]["r"])] for result in (parity, corrected)]
    assert scored == [[True, True, True, True, False, False], [False, False, True, True, False, False]]
    assert corrected["runs"]["r"]["rows"]["overall"]["n_expected"] == len(rows)
    assert "0 to 10" in corrected["runs"]["r"]["items"][0]["unscored"]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (row(True, 5), "rows.1.sc"),
        (row("5", 5), "rows.1.sc"),
        ({"sc": 5, "pq": 5}, "rows.1.task_type"),
        (row(5, 5, intersection_exist=None), "rows.1.intersection_exist"),
        ({name: value for name, value in row(5, 5).items() if name != "pq"}, "rows.1.pq"),
        ([], "rows.1"),
    ],
)
def test_a_bad_row_is_named_with_run_and_field(score: Command, bad: Any, field: str) -> None:
    status, _, said = score.rows([row(5, 5), bad], "corrected")
    assert status == EXIT_BAD_INPUT
    assert "rows.json, run 0" in said
    assert field in said
