"""``reca score`` on files that are odd, damaged or meant to deceive: upstream's rule, or an error that says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.gedit.summary import TASKS
from evaluation.score import RecordedFiles, result_bytes, score_recorded
from reca_core.contracts.errors import BadInput

HEADER = "item_id,proposition_id,dependency,tuple,question_natural_language\n"
GOOD = '{"score": [8, 7], "reasoning": "fine"}'


def picture(name: str, tag: str = "single_object", **found: Any) -> str:
    metadata = {"tag": tag, "include": [{"class": "cup", "count": 1}], "prompt": name}
    return json.dumps({"id": name, "metadata": metadata, "detections": found}) + "\n"


def cup(score: float) -> list[dict[str, Any]]:
    return [{"box": [0, 0, 9, 9], "score": score}]


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_and_windows_lines_are_no_fault(tmp_path: Path) -> None:
    text = (picture("a", cup=cup(0.9)) + picture("b")).replace("\n", "\r\n")
    result = score_recorded("geneval", RecordedFiles(answers=save(tmp_path / "a.jsonl", "\ufeff" + text)))
    assert [item["correct"] for item in result["items"]] == [True, False]
    table = save(tmp_path / "q.csv", "\ufeff" + HEADER + "x,1,0,entity - whole (x),?\n")
    answers = save(tmp_path / "a.json", '{"x": [{"1": "yes"}]}')
    files = RecordedFiles(questions=table, answers=answers, layout="first_image")
    assert score_recorded("dpg", files)["rows"]["overall"]["value"] == 100.0


def test_half_characters_in_names_and_tags_are_written_as_escapes(tmp_path: Path) -> None:
    lines = "".join(picture(f"\ud800{number}", tag="\udfff") for number in range(2))
    result = score_recorded("geneval", RecordedFiles(answers=save(tmp_path / "a.jsonl", lines)))
    assert json.loads(result_bytes(result)) == result
    assert result["rows"]["\udfff"]["n_scored"] == 2


@pytest.mark.parametrize("content", ['{"a": "x", "a": "y"}', '[{"name": "r", "judge_replies": {"k": "", "k": "1"}}]'])
def test_a_key_that_occurs_twice_hides_nothing(tmp_path: Path, content: str) -> None:
    with pytest.raises(BadInput, match="occurs twice"):
        score_recorded("imgedit", RecordedFiles(answers=save(tmp_path / "a.json", content)))


def test_an_empty_file_scores_nothing_and_says_so(tmp_path: Path) -> None:
    result = score_recorded("geneval", RecordedFiles(answers=save(tmp_path / "a.jsonl", "")))
    assert result["items"] == []
    assert result["rows"]["overall"] == {"value": None, "low": None, "high": None, "n_scored": 0, "n_expected": 0}
    runs = score_recorded("imgedit", RecordedFiles(answers=save(tmp_path / "a.json", "[]")))
    assert runs == {"runs": {}}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "1" + "0" * 5000])
def test_a_number_that_is_none_is_refused_with_its_line(tmp_path: Path, number: str) -> None:
    bad = picture("b", cup=cup(0.5)).replace("0.5", number)
    with pytest.raises(BadInput, match="line 2"):
        score_recorded("geneval", RecordedFiles(answers=save(tmp_path / "a.jsonl", picture("a") + bad)))


def test_a_long_name_costs_its_own_length_only(tmp_path: Path) -> None:
    """Names of fixed width would take a gigabyte here."""
    lines = "".join(picture(f"{number}") for number in range(500)) + picture("x" * 1_000_000)
    result = score_recorded("geneval", RecordedFiles(answers=save(tmp_path / "a.jsonl", lines)))
    assert result["rows"]["overall"]["n_scored"] == 501


# --- DPG --------------------------------------------------------------------------------------------------------------


def dpg(tmp_path: Path, rows: str, answers: dict[str, Any], **how: Any) -> dict[str, Any]:
    files = {"questions": save(tmp_path / "q.csv", HEADER + rows), "answers": save(tmp_path / "a", json.dumps(answers))}
    arithmetic = how.pop("arithmetic", "corrected")
    return score_recorded("dpg", RecordedFiles(**files, **how), arithmetic)


def test_a_child_listed_before_its_parent_sees_the_parents_raw_answer(tmp_path: Path) -> None:
    rows = "".join(f"x,{number},{parent},entity - whole (x),?\n" for number, parent in ((3, 2), (2, 1), (1, 0)))
    (item,) = dpg(tmp_path, rows, {"x": [{"1": "no", "2": "yes", "3": "yes"}]}, layout="first_image")["items"]
    assert item["evidence"]["zeroed"] == [[1.0, 0.0, 0.0]]


def test_recas_files_are_named_up_to_the_first_underscore_in_parity_only(tmp_path: Path) -> None:
    rows = "lost,1,0,entity - whole (x),?\na_b,1,0,entity - whole (x),?\n"
    said = {"a_b": [{"1": "yes"}] * 2}
    for arithmetic, scored in (("parity", [False, False]), ("corrected", [True, True])):
        result = dpg(tmp_path, rows, said, layout="per_image", pictures=2, arithmetic=arithmetic)
        items = {item["id"]: item["values"] is not None for item in result["items"]}
        assert [items["a_b_0"], items["a_b_1"]] == scored


def test_a_proposition_answered_twice_and_a_cell_without_end_are_refused(tmp_path: Path) -> None:
    row = "x,1,0,entity - whole (x),?\n"
    with pytest.raises(BadInput, match="proposition 1 is answered twice"):
        dpg(tmp_path, row, {"x": [{"1": "yes", "01": "no"}]})
    with pytest.raises(BadInput, match="field larger"):
        dpg(tmp_path, f"x,1,0,{'y' * 200_000},?\n", {})


# --- ImgEdit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("a: 3\u2028b: 4\x0bc: 5\x1cd: 4", 4.0),
        ("a: ٣", 3.0),
        ("a: ３\n b: 4 ", 3.5),
        ("**a**: 4: 5\nb: 2", 2.0),
        ("a: 0\nb: 99", 49.5),
        ("a: 1\nb: 2\nc: 2", 1.67),
        ("a: ²", None),
        ("a: ①\nb: 4", None),
        ("a: " + "9" * 400, None),
        ("a: " + "9" * 5000, None),
        ("a:4", None),
        ("", None),
        (None, None),
        ({"error": "x"}, None),
        (7, None),
        (True, None),
    ],
)
def test_every_line_that_upstream_counts_is_counted_and_what_crashes_it_is_unscored(
    tmp_path: Path, reply: Any, rating: float | None
) -> None:
    answers = save(tmp_path / "a.json", json.dumps({"k": reply}))
    (item,) = score_recorded("imgedit", RecordedFiles(answers=answers), "parity")["items"]
    assert (item["values"] or {}).get("rating") == rating
    assert (item["unscored"] is None) == (rating is not None)


# --- GEdit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "parity", "strict"),
    [
        ('{"score": 7}', 7, None),
        ('{"score": "7"}', None, None),
        ('{"score": [8, 7], "reasoning": "a {b} c"}', 7, 7),
        ('a {thought} first, {"score": [8, 7]}', None, None),
        ('{"score": [NaN, 3]}', None, None),
        ('{"score": [3, NaN]}', 3, None),
        ('{"score": [Infinity, 3]}', 3, None),
        ('{"score": [true, 5]}', 1, None),
        ('{"score": [-1, 5]}', None, None),
        ('{"score": [7.5, 8]}', 7.5, None),
        ('{"score": [11, 12]}', 11, None),
        ('{"score": [8, 7, 6]}', 6, None),
        ('{"score": [8, "7"]}', None, None),
        ('{"score": [[8, 7]]}', None, None),
        ('{"score": null}', None, None),
        ('{"score": []}', None, None),
        ('{"score": [1' + "0" * 400 + ", 5]}", 5, None),
        ('{"score": [1' + "0" * 400 + ", 1" + "0" * 400 + "]}", None, None),
        ('{"score": [1, 1], "score": [9, 9]}', 9, 9),
        ("{score: 7, reasoning: fine}", 7, None),
        ("{score: [7, 8], reasoning: fine}", None, None),
        ("[8, 7]", 7, 7),
        ("[8,  7]", None, None),
        (" 7\n", 7, None),
        ("７", 7, None),
        ("11", None, None),
        ('||V^=^V||{"score": [8, 7]}||V^=^V|| {', 7, 7),
        ('```json\n{"score":\n[8,\n7]}\n```', 7, 7),
        ("{" * 20_000 + "}" * 20_000, None, None),
        ("", None, None),
        ("rate_limit_exceeded", None, None),
    ],
)
def test_a_reply_is_read_as_upstream_and_strictly(
    tmp_path: Path, reply: str, parity: float | None, strict: int | None
) -> None:
    line = json.dumps({"id": "ü", "sc_replies": [reply], "pq_replies": [GOOD]}) + "\n"
    files = RecordedFiles(replies=save(tmp_path / "r.jsonl", line))
    for arithmetic, expected in (("parity", parity), ("corrected", strict)):
        (item,) = score_recorded("gedit", files, arithmetic)["items"]
        assert (item["values"] or {}).get("SC") == expected, arithmetic
        assert (item["unscored"] is None) == (expected is not None), arithmetic


def test_a_task_that_the_benchmark_does_not_have_is_in_no_mean_and_corrected_says_so(tmp_path: Path) -> None:
    place = {"instruction_language": "en", "intersection_exist": True}
    rows = [{"task_type": task, "sc": 4, "pq": 9, **place} for task in (*TASKS, "novel_change")]
    files = RecordedFiles(rows=save(tmp_path / "rows.json", json.dumps([{"name": "ü", "rows": rows}])))
    parity, corrected = (score_recorded("gedit", files, name)["runs"]["ü"] for name in ("parity", "corrected"))
    assert parity["rows"]["overall"]["value"] == corrected["rows"]["overall"]["value"] == 6.0
    assert (corrected["rows"]["overall"]["n_scored"], corrected["rows"]["overall"]["n_expected"]) == (11, 12)
    assert "novel_change" in corrected["items"][-1]["unscored"]
