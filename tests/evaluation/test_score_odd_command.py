"""`reca score` itself on further files that are odd: exit status, and an error that names file, line and field.

Each case follows from the documented rule (docs/benchmarks.md, the rule's own module) or from what upstream does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.cli import main
from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INCOMPLETE

HEADER = "item_id,proposition_id,dependency,tuple,question_natural_language\n"
ROW = "x,1,0,entity - whole (x),?\n"
GOOD = '{"score": [8, 7], "reasoning": "fine"}'
MARKS = "Prompt Compliance: 4\nVisual Naturalness: 5\nPhysical & Detail Integrity: 3"
LINES = 20_000
Found = tuple[int, dict[str, Any], str]


class Command:
    """Writes files into a folder of its own and scores them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def file(self, name: str, content: Any) -> Path:
        path = self.folder / name
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def __call__(self, *words: str | Path) -> Found:
        """Exit status, result, and what was said."""
        output = self.folder / "result.json"
        output.unlink(missing_ok=True)
        status = main(["score", *map(str, words), "--output", str(output)])
        said = self.capsys.readouterr()
        return status, json.loads(output.read_text()) if output.exists() else {}, said.out + said.err

    def geneval(self, *lines: str, end: str = "\n") -> Found:
        return self("geneval", "--answers", self.file("pictures.jsonl", end.join(lines)))

    def dpg(self, rows: str, answers: Any, *more: str) -> Found:
        table, said = self.file("table.csv", HEADER + rows), self.file("answers.json", answers)
        return self("dpg", "--questions", table, "--answers", said, "--layout", "first_image", *more)

    def imgedit(self, answers: Any, *more: str | Path) -> Found:
        return self("imgedit", "--answers", self.file("replies.json", answers), *more)

    def gedit(self, *lines: Any, arithmetic: str = "corrected") -> Found:
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        return self("gedit", "--replies", self.file("replies.jsonl", text), "--arithmetic", arithmetic)

    def rows(self, rows: list[Any], arithmetic: str) -> Found:
        runs = [{"name": "r", "rows": rows}]
        return self("gedit", "--rows", self.file("rows.json", runs), "--arithmetic", arithmetic)


@pytest.fixture
def score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def picture(name: str = "a", tag: str = "single_object", **changed: Any) -> str:
    include = changed.pop("include", [{"class": "cup", "count": 1}])
    found = changed.pop("detections", {"cup": [seen(0.9)]})
    metadata = {"tag": tag, "include": include, "prompt": name}
    return json.dumps({"id": name, "metadata": metadata, "detections": found, **changed})


def seen(score: Any, box: tuple[Any, ...] = (0, 0, 9, 9), **more: Any) -> dict[str, Any]:
    return {"box": list(box), "score": score, **more}


def cups(score: Any, box: tuple[Any, ...] = (0, 0, 9, 9)) -> dict[str, Any]:
    return {"cup": [seen(score, box)]}


def values(result: dict[str, Any]) -> list[Any]:
    return [item["values"] for item in result["items"]]


# --- GenEval ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (picture("b", detections=cups("0.9")), "detections.cup.0.score"),
        (picture("b", detections=cups(True)), "detections.cup.0.score"),
        (picture("b", detections=cups(None)), "detections.cup.0.score"),
        (picture("b", detections=cups(0.9, (0, "0", 9, 9))), "detections.cup.0.box.1"),
        (picture("b", detections=cups(0.9, (0, 0, 9))), "detections.cup.0.box.3"),
        (picture("b", detections=cups(0.9, (False, 0, 9, 9))), "detections.cup.0.box.0"),
        (picture("b", detections={"cup": None}), "detections.cup"),
        (picture("b", detections=[]), "detections"),
        (picture("b", include=[{"class": "cup"}]), "metadata.include.0.count"),
        (picture("b", include=[{"class": "cup", "count": "1"}]), "metadata.include.0.count"),
        (picture("b", include=[{"class": "cup", "count": True}]), "metadata.include.0.count"),
        (picture("b", include=[{"class": "cup", "count": 1, "position": ["left of", 0]}]), "include[0].position"),
        (picture("b", include=[{"class": "cup", "count": 1, "position": ["near", 0]}]), "include.0.position.0"),
        (picture("b", options={"treshold": 0.5}), "options.treshold"),
        (picture("b", options={"threshold": "0.5"}), "options.threshold"),
        (picture("b", options={"max_objects": -1}), "options.max_objects"),
        (picture("b", options=None), "options"),
        (picture("b", tag="overall"), "metadata.tag"),
        (picture("b", tag="images"), "metadata.tag"),
        (picture("a"), "field id"),
        ('{"id": "b", "metadata": {}}', "metadata.tag"),
        ("[]", "expected an object"),
        (picture("b") + picture("c"), "not JSON"),
        (picture("b")[:-1], "not JSON"),
        ('{"id": "b", "id": "c"}', "occurs twice"),
    ],
)
def test_a_bad_line_is_named_with_its_field(score: Command, bad: str, field: str) -> None:
    status, result, said = score.geneval(picture("a"), "", bad)
    assert (status, result) == (EXIT_BAD_INPUT, {})
    assert "pictures.jsonl, line 3" in said
    assert field in said


@pytest.mark.parametrize(
    ("case", "right"),
    [
        (picture(detections=cups(0.3)), False),
        (picture(detections=cups(0.30000000000000004)), True),
        (picture(tag="counting", detections=cups(0.9)), False),
        (picture(tag="counting", include=[{"class": "cup", "count": 2}], detections={"cup": [seen(0.95)] * 2}), True),
        (picture(detections=cups(1e300)), True),
        (picture(detections={"Cup": [seen(0.9)], "cup ": [seen(0.9)]}), False),
        (picture(include=[]), True),
        (picture(options={"max_objects": 0}), False),
        (picture(options={"max_overlap": 0.0, "threshold": -1}, detections=cups(-0.5)), True),
        (picture(detections=cups(0.9, (9, 9, 0, 0))), True),
    ],
)
def test_thresholds_are_strict_names_exact_and_surplus_harmless(score: Command, case: str, right: bool) -> None:
    status, result, _ = score.geneval(case)
    assert status == EXIT_DONE
    assert [item["correct"] for item in result["items"]] == [right]


def test_equal_boxes_count_twice_unless_overlaps_are_dropped(score: Command) -> None:
    """Ties keep the order of the file; upstream's own order depends on the hardware."""
    twins = {"cup": [seen(0.95, color="blue"), seen(0.95, color="red")]}
    two = [{"class": "cup", "count": 2}]
    both = picture("a", include=two, detections=twins)
    one = picture("b", include=two, detections=twins, options={"max_overlap": 0.99})
    first = picture("c", include=[{"class": "cup", "count": 1, "color": "red"}], detections=twins)
    _, result, _ = score.geneval(both, one, first)
    assert [item["correct"] for item in result["items"]] == [True, False, False]
    assert result["items"][2]["color_queries"] == [{"class": "cup", "indices": [0]}]


@pytest.mark.parametrize("margin", [-0.1, 0.0, 0.1])
def test_two_boxes_in_one_place_stand_in_no_relation_whatever_the_margin(score: Command, margin: float) -> None:
    wanted = [{"class": "cup", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}]
    found = {"cup": [seen(0.9)], "dog": [seen(0.9)]}
    status, result, _ = score.geneval(picture(include=wanted, detections=found, options={"position_threshold": margin}))
    assert status == EXIT_DONE
    assert result["items"][0]["reason"] == "expected dog left of target, found  target"


def test_lines_end_at_newlines_whatever_stands_before_them(score: Command) -> None:
    status, result, _ = score.geneval(picture("a"), "\t", picture("b"), "\u00a0", end=" \r\n")
    assert (status, len(result["items"])) == (EXIT_DONE, 2)
    status, _, said = score.geneval(picture("a"), picture("b"), end="\r")
    assert (status, "line 1: not JSON" in said) == (EXIT_BAD_INPUT, True)


@pytest.mark.parametrize("content", [picture().encode("utf-16"), b"\xff\xfe", "é".encode("latin-1")])
def test_a_file_in_another_encoding_is_named(score: Command, content: bytes) -> None:
    status, _, said = score("geneval", "--answers", score.file("odd.jsonl", content))
    assert status == EXIT_BAD_INPUT
    assert "odd.jsonl: is not UTF-8" in said


def test_many_lines_are_scored_and_the_last_one_is_looked_at(score: Command) -> None:
    lines = [picture(f"{number}", detections={}) for number in range(LINES)]
    status, result, _ = score.geneval(*lines)
    assert (status, result["rows"]["overall"]["n_scored"]) == (EXIT_DONE, LINES)
    status, _, said = score.geneval(*lines, picture("0"))
    assert status == EXIT_BAD_INPUT
    assert f"line {LINES + 1}, field id: '0' is that of line 1 too" in said


# --- DPG-Bench --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "answers", "words"),
    [
        ("x,1,0,entity - whole (a, b),?\n", {}, ["data row 1", "more cells", "quotation marks"]),
        (ROW + 'y,1,0,entity - whole (y),"?\n' + ROW, {}, ["data row 2", "never closed"]),
        ("x,1,,entity - whole (x),?\n", {}, ["data row 1, column dependency"]),
        ("x,1.0,0,entity - whole (x),?\n", {}, ["data row 1, column proposition_id"]),
        ("x;1;0;entity - whole (x);?\n", {}, ["data row 1 ends before"]),
        ("x,1\n", {}, ["data row 1 ends before dependency"]),
        (ROW, {"x": [{"1" * 5000: "yes"}]}, ["item 'x', picture 0", "no"]),
        (ROW, {"x": [{"-1": "yes"}]}, ["item 'x', picture 0: proposition '-1'"]),
        (ROW, {"x": [{"1": None}]}, ["item 'x', picture 0, proposition 1: the reply is not a text"]),
        (ROW, {"x": [None]}, ["item 'x', picture 0"]),
        (ROW, {"x": {"1": "yes"}}, ["item 'x': expected a list"]),
        (ROW, [], ["expected an object item"]),
        (ROW, "", ["answers.json: not JSON"]),
    ],
)
def test_a_bad_table_or_answer_is_named_with_its_place(
    score: Command, rows: str, answers: Any, words: list[str]
) -> None:
    status, result, said = score.dpg(rows, answers)
    assert (status, result) == (EXIT_BAD_INPUT, {})
    assert all(word in said for word in words), said


@pytest.mark.parametrize("text", ["", "\n", "item_id,tuple\n", HEADER.replace(",", ";")])
def test_a_table_without_its_header_says_what_is_lacking(score: Command, text: str) -> None:
    table, answers = score.file("table.csv", text), score.file("answers.json", {})
    status, _, said = score("dpg", "--questions", table, "--answers", answers)
    assert status == EXIT_BAD_INPUT
    assert "table.csv: the header lacks" in said
    assert "proposition_id" in said


@pytest.mark.parametrize(
    ("rows", "said", "expected"),
    [
        ('x,1,0,entity - whole ((a) b),"Is (it) a (cup), or ""two""?"\n', {"1": "yes"}, 1.0),
        (
            ROW + "x,2,0,entity - whole (y),?\nx,3,0,entity - whole (z),?\n",
            {"1": "Yes", "2": "yes ", "3": "yes"},
            1 / 3,
        ),
        ("x,1,1,entity - whole (x),?\n", {"1": "yes"}, 1.0),
        ("x,1,2,entity - whole (x),?\nx,2,1,entity - whole (y),?\n", {"1": "yes", "2": "no"}, 0.0),
        (ROW + 'x,2,"1,7",entity - whole (y),?\n', {"1": "no", "2": "yes"}, 0.0),
        (ROW + 'x,2,"1,7",entity - whole (y),?\n', {"1": "yes", "2": "yes"}, None),
        (ROW + "x,2,7,entity - whole (y),?\n", {"1": "yes", "2": "yes"}, None),
        (ROW + 'x,2,"0,1",entity - whole (y),?\n', {"1": "no", "2": "yes"}, 0.0),
        (ROW.replace("\n", "\r\n") + "\r\n" + "x,2,0,global (y),?", {"1": "yes", "2": ""}, 0.5),
        (ROW + "x,1,0,global (y),later\n", {"1": "yes"}, 1.0),
        (ROW, {"1": "yes", "2": "yes"}, 1.0),
        (ROW, {"١": "yes"}, 1.0),
        (ROW, {}, None),
    ],
)
def test_dependencies_spellings_and_parentheses_follow_the_rule(
    score: Command, rows: str, said: dict[str, str], expected: float | None
) -> None:
    """A parent that the item lacks leaves it unscored, unless a zero before it ended the look."""
    status, result, _ = score.dpg(rows, {"x": [said]})
    assert status == (EXIT_INCOMPLETE if expected is None else EXIT_DONE)
    assert [found and found["score"] for found in values(result)] == [pytest.approx(expected) if expected else expected]


def test_a_table_of_nothing_and_answers_about_nothing_are_counted_apart(score: Command) -> None:
    status, result, _ = score.dpg("", {"ü\u2028": [{"1": "yes"}]})
    assert (status, result["rows"]["overall"]["n_expected"]) == (EXIT_INCOMPLETE, 1)
    assert "no question about this item" in result["items"][0]["unscored"]
    status, result, _ = score.dpg(ROW, {})
    assert (status, result["items"][0]["unscored"]) == (EXIT_INCOMPLETE, "answers about 0 of 1 pictures")
    status, result, _ = score.dpg(" x ,1,0,entity - whole (x),?\n", {"x": [{"1": "yes"}]})
    assert (status, [item["id"] for item in result["items"]]) == (EXIT_INCOMPLETE, [" x ", "x"])


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


def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing_behind(score: Command, tmp_path: Path) -> None:
    answers = score.file("pictures.jsonl", picture())
    (tmp_path / "taken").mkdir()
    assert main(["score", "geneval", "--answers", str(answers), "--output", str(tmp_path / "taken")]) == EXIT_BAD_INPUT
    assert "taken" in score.capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures.jsonl", "taken"]
