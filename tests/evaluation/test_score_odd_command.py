"""`reca score` itself on further files that are odd, GenEval and DPG-Bench: exit status, and an error that names file,
line and field. Each case follows from the documented rule (docs/benchmarks.md, the rule's own module) or from what
upstream does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.cli import main
from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INCOMPLETE
from tests.evaluation.scoring_command import HEADER, Command, values

ROW = "x,1,0,entity - whole (x),?\n"
LINES = 20_000


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


def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing_behind(score: Command, tmp_path: Path) -> None:
    answers = score.file("pictures.jsonl", picture())
    (tmp_path / "taken").mkdir()
    assert main(["score", "geneval", "--answers", str(answers), "--output", str(tmp_path / "taken")]) == EXIT_BAD_INPUT
    assert "taken" in score.capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures.jsonl", "taken"]
