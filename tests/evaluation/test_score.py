"""``reca score``: the shape of results, and errors that say which file, line and field is at fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation.score import RecordedFiles, result_bytes, score_recorded
from reca_core.contracts.errors import BadInput

PICTURE: dict[str, Any] = {
    "id": "one",
    "metadata": {
        "tag": "colors",
        "include": [{"class": "cup", "count": 1, "color": "red"}],
        "prompt": "a photo of a red cup",
    },
    "detections": {"cup": [{"box": [0, 0, 9, 9], "score": 0.8, "color": "red"}]},
}
QUESTIONS = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language\n"
    "first,t,k,1,0,entity,whole,entity - whole (cup),Is there a cup?\n"
    'first,t,k,2,1,attribute,color,"attribute - color (cup, red)",Is the cup red?\n'
    "second,t,k,1,0,entity,whole,entity - whole (dog),Is there a dog?\n"
)
REPLY = "Prompt Compliance: 4\nVisual Naturalness: 3\nPhysical & Detail Integrity: 2"


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def document(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("arithmetic", ["corrected", "parity"])
def test_geneval_items_carry_the_fields_of_upstreams_records(tmp_path: Path, arithmetic: Any) -> None:
    wrong = {**PICTURE, "id": "two", "detections": {}, "expected": {"anything": "is ignored"}, "surplus": 1}
    result = score_recorded("geneval", RecordedFiles(answers=write(tmp_path / "a.jsonl", PICTURE, wrong)), arithmetic)
    assert list(result) == ["benchmark", "arithmetic", "items", "rows"]
    first, second = result["items"]
    queries = [{"class": "cup", "indices": [0]}]
    assert first | {"evidence": None} == {
        "id": "one",
        "values": {"correct": 1.0},
        "unscored": None,
        "evidence": None,
        "correct": True,
        "reason": "",
        "kept": {"cup": [0]},
        "color_queries": queries,
    }
    assert (second["correct"], second["reason"]) == (False, "expected cup>=1, found 0")
    overall = result["rows"]["overall"]
    assert list(overall) == ["value", "low", "high", "n_scored", "n_expected"]
    assert (overall["value"], overall["n_scored"], overall["n_expected"]) == (0.5, 2, 2)
    assert json.loads(result_bytes(result)) == result


def test_dpg_parity_loses_the_first_question_and_corrected_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(QUESTIONS)
    yes, no = {"1": "yes", "2": "yes"}, {"1": "no", "2": "yes"}
    answers = document(tmp_path / "a.json", {"first": [yes, no, yes, yes], "second": [{"1": "yes"}] * 4})
    files = RecordedFiles(questions=tmp_path / "q.csv", answers=answers)
    corrected, parity = score_recorded("dpg", files, "corrected"), score_recorded("dpg", files, "parity")
    assert corrected["rows"]["overall"]["value"] == 100 * (0.75 + 1) / 2
    assert corrected["rows"]["l2/attribute - color"]["value"] == 100.0
    assert corrected["rows"]["l2_zeroed/attribute - color"]["value"] == 75.0
    first = next(item for item in parity["items"] if item["id"] == "first")
    assert "depends on question 1" in first["unscored"]
    assert parity["rows"]["overall"] | {"low": None, "high": None} == {
        "value": 100.0,
        "low": None,
        "high": None,
        "n_scored": 1,
        "n_expected": 2,
    }


def test_dpg_items_without_all_their_answers_are_expected_but_not_scored(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(QUESTIONS)
    answers = document(tmp_path / "a.json", {"first": [{"1": "yes"}] * 4, "stranger": [{"1": "yes"}] * 4})
    result = score_recorded("dpg", RecordedFiles(questions=tmp_path / "q.csv", answers=answers, layout="per_image"))
    assert [item["unscored"] is None for item in result["items"]] == [False] * 12
    assert result["rows"]["overall"]["value"] is None
    assert result["rows"]["overall"]["n_expected"] == 12


def test_imgedit_takes_replies_or_runs_and_expects_every_item(tmp_path: Path) -> None:
    items = document(tmp_path / "items.json", {key: {"edit_type": "replace"} for key in ("a", "b")})
    replies = {"a": REPLY, "stranger": REPLY, "b": None}
    single = score_recorded("imgedit", RecordedFiles(answers=document(tmp_path / "r.json", replies), items=items))
    assert [item["values"] for item in single["items"]] == [{"rating": 3.0}, None, None]
    assert single["rows"]["overall"]["n_expected"] == 3
    runs = [{"name": name, "judge_replies": replies} for name in ("x", "y")]
    several = score_recorded(
        "imgedit", RecordedFiles(answers=document(tmp_path / "runs.json", runs), items=items), "parity"
    )
    assert list(several) == ["runs"]
    assert list(several["runs"]) == ["x", "y"]
    assert several["runs"]["x"]["rows"]["overall"]["n_scored"] == 2


def test_gedit_takes_replies_or_rows(tmp_path: Path) -> None:
    good, bad = '{"score": [9, 4], "reasoning": "r"}', "no"
    line = {"id": "e", "sc_replies": [bad, good], "pq_replies": [good], "expected": 1}
    files = RecordedFiles(replies=write(tmp_path / "r.jsonl", line))
    corrected, parity = (
        score_recorded("gedit", files, arithmetic)["items"][0] for arithmetic in ("corrected", "parity")
    )
    assert corrected["values"] == parity["values"] == {"SC": 4.0, "PQ": 4.0, "O": 4.0}
    assert (corrected["evidence"]["judge_calls"], parity["evidence"]["judge_calls"]) == (3, 4)
    row = {"task_type": "ps_human", "instruction_language": "en", "intersection_exist": False, "sc": 9, "pq": 4}
    rows = RecordedFiles(rows=document(tmp_path / "rows.json", [{"name": "n", "rows": [row]}]))
    found = {a: score_recorded("gedit", rows, a)["runs"]["n"]["rows"] for a in ("corrected", "parity")}
    assert found["corrected"]["overall"]["value"] == found["corrected"]["en/o_full/ps_human"]["value"] == 6.0
    assert found["parity"]["overall"]["value"] is None


def broken(**changes: Any) -> dict[str, Any]:
    return {**PICTURE, **changes}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ["line 2", "not JSON"]),
        ("[1]", ["line 2", "expected an object"]),
        ('{"id": NaN}', ["line 2", "NaN is not a finite number"]),
        ('{"id": 1e999}', ["line 2", "1e999 is not a finite number"]),
        (broken(detections=None), ["line 2", "detections"]),
        (broken(detections={"cup": [{"box": [0, 0, 1], "score": 1}]}), ["line 2", "detections.cup.0.box"]),
        (broken(metadata={"tag": "t", "include": [{"class": "cup"}]}), ["line 2", "metadata.include.0.count"]),
        (
            broken(metadata={"tag": "t", "include": [{"class": "a", "count": 1, "position": ["above", 0]}]}),
            ["line 2", "metadata", "earlier entry"],
        ),
        (broken(options={"treshold": 0.5}), ["line 2", "options.treshold"]),
    ],
)
def test_a_malformed_line_is_named_with_its_field(tmp_path: Path, line: Any, words: list[str]) -> None:
    path = write(tmp_path / "answers.jsonl", PICTURE, line)
    with pytest.raises(BadInput) as error:
        score_recorded("geneval", RecordedFiles(answers=path))
    assert all(word in str(error.value) for word in [str(path), *words]), str(error.value)


@pytest.mark.parametrize(
    ("answers", "questions", "words"),
    [
        ([], QUESTIONS, ["item -> list of pictures"]),
        ({"first": {"1": "yes"}}, QUESTIONS, ["item 'first'", "list of pictures"]),
        ({"first": [["yes"]]}, QUESTIONS, ["item 'first'", "picture 0"]),
        ({"first": [{"one": "yes"}]}, QUESTIONS, ["picture 0", "'one'"]),
        ({"first": [{"1": 1}]}, QUESTIONS, ["picture 0, proposition 1", "not a text"]),
        ({}, "item_id,tuple\nfirst,x\n", ["header lacks", "proposition_id"]),
        ({}, QUESTIONS.replace("first,t,k,2,1", "first,t,k,2,one"), ["data row 2", "dependency", "'one'"]),
        ({}, QUESTIONS + "short,row\n", ["data row 4", "ends before"]),
    ],
)
def test_malformed_dpg_files_are_named_with_their_place(
    tmp_path: Path, answers: Any, questions: str, words: list[str]
) -> None:
    (tmp_path / "q.csv").write_text(questions)
    files = RecordedFiles(questions=tmp_path / "q.csv", answers=document(tmp_path / "a.json", answers))
    with pytest.raises(BadInput) as error:
        score_recorded("dpg", files)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", ["list of runs"]),
        ([{"judge_replies": {}}], ["run 0", "name"]),
        ([{"name": "x", "judge_replies": {}}, {"name": "x", "judge_replies": {}}], ["run 1", "name"]),
        ([{"name": "x"}], ["run 0", "judge_replies"]),
    ],
)
def test_malformed_runs_are_named_with_their_place(tmp_path: Path, value: Any, words: list[str]) -> None:
    with pytest.raises(BadInput) as error:
        score_recorded("imgedit", RecordedFiles(answers=document(tmp_path / "runs.json", value)))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("benchmark", "given", "words"),
    [
        ("wise", {"answers"}, ["wise", "geneval, dpg, imgedit, gedit"]),
        ("geneval", set(), ["--answers"]),
        ("geneval", {"answers", "rows"}, ["--rows", "no such file"]),
        ("dpg", {"answers"}, ["--questions"]),
        ("gedit", set(), ["--replies, --rows"]),
        ("gedit", {"replies", "rows"}, ["exactly one"]),
    ],
)
def test_the_wrong_files_are_refused_by_name(tmp_path: Path, benchmark: str, given: set[str], words: list[str]) -> None:
    with pytest.raises(BadInput) as error:
        score_recorded(benchmark, RecordedFiles(**{name: tmp_path / name for name in given}))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_missing_file_is_bad_input_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        score_recorded("geneval", RecordedFiles(answers=tmp_path / "nowhere.jsonl"))


def test_results_are_utf8_even_with_half_characters_in_replies(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"a": "half \\ud800 and whole \\u7f16"}')
    result = score_recorded("imgedit", RecordedFiles(answers=path))
    content = result_bytes(result)
    assert "编".encode() in content or "\u7f16".encode() in content
    assert json.loads(content)["items"][0]["evidence"]["reply"] == "half \ud800 and whole \u7f16"


def test_scoring_needs_no_torch() -> None:
    code = "import sys, evaluation.score, evaluation.compare, evaluation.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
