"""What MLflow shows of a judging is chosen by place, complete, and never a number that was not measured."""

from __future__ import annotations

from pathlib import Path

from evaluation.records import Finding, JudgeResult, Judgment, Question, Reply, Scored, TranscriptRow, Unscored
from reca_core.contracts.files import append_jsonl
from reca_core.contracts.records import Prompt, Sample
from tasks.compare import metrics
from tasks.evidence import asked_of, in_words, markdown, per_prompt_table, shown_pictures, worst_pictures
from tasks.judge import answers_fault, reasons, unanswered
from tasks.sample import samples_fault
from tests.tasks.rig import compared, judged, registered

PROMPTS = [Prompt(prompt_id=f"{n}", text=f"t{n}", seeds=[7, 8], outputs=[f"{n}/7.png", f"{n}/8.png"]) for n in range(6)]
TAGS = ["single", "single", "single", "two", "two", "colour"]


def judgment(number: int, outcome: Scored | Unscored) -> Judgment:
    return Judgment(id=f"{number}/7", prompt_id=f"{number}", seed=7, tag=TAGS[number], outcome=outcome)


JUDGMENTS = [judgment(number, Scored(values={"correct": float(number % 2)})) for number in range(5)]
JUDGMENTS.append(judgment(5, Unscored(reason="cannot be decoded")))


def test_the_grid_shows_the_first_prompts_of_each_tag_in_turn_whatever_they_scored() -> None:
    assert list(shown_pictures(PROMPTS, JUDGMENTS, 5)) == [("0", 7), ("3", 7), ("5", 7), ("1", 7), ("4", 7)]
    assert len(list(shown_pictures(PROMPTS, JUDGMENTS, 64))) == 6
    flipped = [item.model_copy(update={"outcome": Unscored(reason="x")}) for item in JUDGMENTS]
    assert list(shown_pictures(PROMPTS, flipped, 5)) == list(shown_pictures(PROMPTS, JUDGMENTS, 5))


def test_the_table_has_a_row_per_picture_and_no_number_for_unscored_ones() -> None:
    samples = [
        Sample(prompt_id=prompt.prompt_id, seed=7, text=prompt.text, image_path=prompt.outputs[0], sha256="")
        for prompt in PROMPTS
    ]
    said = [row("0", Reply(text="no")), row("0", Reply(findings=[FOUND]), key="objects", text="")]
    columns, rows = per_prompt_table(samples, JUDGMENTS, asked_of(iter(said)))
    assert columns == ["prompt_id", "seed", "tag", "prompt", "picture", "asked and answered", "correct", "unscored"]
    assert rows[0] == ["0", 7, "single", "t0", "0/7.png", "is it? -> no\nobjects -> ring 0.97", 0.0, ""]
    assert rows[1] == ["1", 7, "single", "t1", "1/7.png", "", 1.0, ""]
    assert rows[5] == ["5", 7, "colour", "t5", "5/7.png", "", None, "cannot be decoded"]


FOUND = Finding(label="ring", box=(0, 0, 1, 1), score=0.97)


def row(prompt_id: str, reply: Reply, key: str = "q", text: str = "is it?") -> TranscriptRow:
    question = Question(key=key, kind="text" if text else "objects", text=text)
    return TranscriptRow(prompt_id=prompt_id, seed=7, ask=0, question=question, reply=reply)


def test_every_kind_of_reply_has_words() -> None:
    replies = [
        Reply(text="no"),
        Reply(labels=["red", "blue"]),
        Reply(findings=[FOUND]),
        Reply(error="HTTP 500"),
        Reply(),
    ]
    assert [in_words(reply) for reply in replies] == ["no", "red, blue", "ring 0.97", "no reply: HTTP 500", "nothing"]
    (told,) = asked_of(iter([row("0", Reply(text="word " * 1000))])).values()
    assert len(told) < 500


def test_the_worst_pictures_are_those_with_the_lowest_scores_one_per_prompt() -> None:
    assert worst_pictures(JUDGMENTS, 2) == [("0", 7), ("2", 7)]
    assert worst_pictures(JUDGMENTS[1:2] + JUDGMENTS[3:4], 8) == []
    assert worst_pictures([], 8) == []


def test_the_artifact_says_unscored_where_there_is_no_number() -> None:
    table = judged(registered().model, None, ("x",)).table
    assert "| overall | not scored | – | 3/4 |" in markdown(table)


def result(judged_pictures: int, unscored: int, outages: int = 0) -> JudgeResult:
    table = judged(registered().model, 0.5).table
    return JudgeResult(
        tables={"corrected": table}, judged=judged_pictures, unscored=unscored, outages=outages, asked=9, seconds=1
    )


def test_answers_that_lost_rows_are_not_used_and_those_that_wait_for_a_judge_are_completed(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "judgments.jsonl", [item.model_dump() for item in JUDGMENTS])
    assert "scores.json" in answers_fault(tmp_path, result(5, 1))
    (tmp_path / "scores.json").write_text("{}")
    assert answers_fault(tmp_path, result(5, 1)) == ""
    assert "6 judgments" in answers_fault(tmp_path, result(6, 1))
    assert answers_fault(tmp_path, result(5, 1, outages=1)) == ""
    assert "did not answer for 1" in unanswered(result(5, 1, outages=1))
    assert unanswered(result(5, 1)) == ""
    assert reasons(tmp_path) == ["1 x cannot be decoded"]


def test_samples_whose_pictures_changed_or_vanished_are_not_reused(tmp_path: Path) -> None:
    from reca_core.contracts.hashing import sha256_file
    from reca_core.contracts.records import SampleResult

    (tmp_path / "a.png").write_bytes(b"a")
    row = Sample(prompt_id="0", seed=7, text="t", image_path="a.png", sha256=sha256_file(tmp_path / "a.png"))
    append_jsonl(tmp_path / "samples.jsonl", [row.model_dump()])
    one = SampleResult(samples=1, made=1, seconds=1)
    assert samples_fault(tmp_path, one) == ""
    assert "2 were made" in samples_fault(tmp_path, one.model_copy(update={"samples": 2}))
    (tmp_path / "a.png").write_bytes(b"b")
    assert "a.png" in samples_fault(tmp_path, one)
    (tmp_path / "a.png").unlink()
    assert "a.png" in samples_fault(tmp_path, one)


def test_the_parent_runs_columns_say_which_is_better_and_how_sure_that_is() -> None:
    comparison = compared().comparison
    assert comparison is not None
    found = metrics(comparison)
    assert found == {
        "geneval.shapeworld/overall/base": 0.25,
        "geneval.shapeworld/overall/trained": 0.5,
        "geneval.shapeworld/overall/delta": 0.25,
        "geneval.shapeworld/overall/delta_low": 0.1,
        "geneval.shapeworld/overall/delta_high": 0.4,
    }
