"""The four benchmarks behind the protocol: counts, layouts, questions in rounds, and data that must be unaltered."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation import registry
from evaluation.benchmark import Benchmark, PromptPlan
from evaluation.benchmarks.data import git_blob
from evaluation.benchmarks.dpg.benchmark import QUESTIONS, DpgBench
from evaluation.benchmarks.gedit.benchmark import GEdit
from evaluation.benchmarks.gedit.rounds import MAX_ROUNDS, score_replies
from evaluation.benchmarks.gedit.summary import TASKS
from evaluation.benchmarks.geneval.benchmark import METADATA, GenEval
from evaluation.benchmarks.geneval.requirement import TAGS
from evaluation.benchmarks.imgedit.benchmark import ImgEdit
from evaluation.benchmarks.imgedit.ratings import EDIT_TYPES, LABELS, read_ratings
from evaluation.records import (
    ARITHMETICS,
    Answer,
    Exchange,
    Finding,
    Question,
    Reply,
    Scored,
    Unscored,
    Unusable,
)
from evaluation.registry import (
    BENCHMARKS,
    benchmark_faults,
    judged_as,
    known_ids,
    numerics_version,
    open_benchmark,
)
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Prompt, Sample

ALL = PromptPlan()
needs_data = pytest.mark.benchmark_data

Judging = Callable[[Question], Reply]


def converse(benchmark: Benchmark, prompt: Prompt, judge: Judging) -> dict[str, Exchange]:
    """Ask until nothing is open, as the runner does, within one picture."""
    known: dict[str, Exchange] = {}
    while questions := benchmark.questions(prompt, sample_of(prompt), known):
        for question in questions:
            assert question.key not in known
            replies: list[Reply] = []
            answer: Answer | Unusable = Unusable(reason="not asked")
            while isinstance(answer, Unusable) and len(replies) < question.max_asks:
                replies.append(judge(question))
                answer = benchmark.parse(question, replies[-1])
            known[question.key] = Exchange(question=question, replies=replies, answer=answer)
    return known


def sample_of(prompt: Prompt) -> Sample:
    return Sample(
        prompt_id=prompt.prompt_id, seed=prompt.seeds[0], text=prompt.text, image_path=prompt.outputs[0], sha256=""
    )


def check_outputs(prompts: list[Prompt]) -> None:
    """Every picture has a place of its own, inside the samples directory."""
    outputs = [output for prompt in prompts for output in prompt.outputs]
    assert len(set(outputs)) == len(outputs)
    assert not any(output.startswith("/") or ".." in output.split("/") for output in outputs)
    assert all(len(prompt.seeds) == len(prompt.outputs) for prompt in prompts)


# --- GenEval ----------------------------------------------------------------------------------------------------------


@needs_data
def test_geneval_has_the_published_prompts_per_tag(benchmark_data: Path) -> None:
    benchmark = GenEval.open("geneval", ALL, benchmark_data)
    prompts = benchmark.prompts()
    check_outputs(prompts)
    tags = Counter(json.loads(text)["tag"] for text in benchmark.companions().values())
    assert tags == dict(zip(TAGS, (80, 99, 80, 94, 100, 100), strict=True))
    assert prompts[12].outputs == [f"00012/samples/{k:05d}.png" for k in range(4)]
    assert json.loads(benchmark.companions()["00012/metadata.jsonl"])["prompt"] == prompts[12].text


@needs_data
def test_a_plan_takes_the_first_prompts_of_every_tag_under_their_own_numbers(benchmark_data: Path) -> None:
    everything = {prompt.prompt_id: prompt.text for prompt in GenEval.open("geneval", ALL, benchmark_data).prompts()}
    chosen = GenEval.open("geneval", PromptPlan(2, 3, 7), benchmark_data).prompts()
    assert len(chosen) == 2 * len(TAGS)
    assert all(prompt.seeds == [7, 8, 9] and everything[prompt.prompt_id] == prompt.text for prompt in chosen)


def test_the_rendered_world_needs_no_data_and_tuning_never_sees_reporting_prompts() -> None:
    def hard(first_seed: int) -> set[str]:
        benchmark = open_benchmark("geneval.shapeworld", PromptPlan(first_seed=first_seed), None)
        check_outputs(list(benchmark.prompts()))
        records = map(json.loads, benchmark.companions().values())
        return {record["prompt"] for record in records if record["tag"] in ("position", "color_attr")}

    assert hard(1000)
    assert not hard(1000) & hard(0)


def geneval_of(*include: dict, tag: str = "colors") -> GenEval:
    record = {"tag": tag, "prompt": "p", "include": list(include)}
    return GenEval("geneval", [record], ALL)


def boxes(*findings: tuple[str, float]) -> Reply:
    return Reply(findings=[Finding(label=label, box=(0, 0, 9, 9), score=score) for label, score in findings])


def test_geneval_asks_for_the_colours_of_exactly_the_objects_that_count() -> None:
    benchmark = geneval_of({"class": "cup", "count": 1, "color": "red"}, {"class": "dog", "count": 1, "color": "pink"})

    def judge(question: Question) -> Reply:
        if question.kind == "objects":
            assert question.labels == ["cup", "dog"]
            return boxes(("cup", 0.5), ("cup", 0.9), ("dog", 0.2))
        assert [finding.score for finding in question.findings] == [0.9]
        return Reply(labels=["red"])

    prompt = benchmark.prompts()[0]
    known = converse(benchmark, prompt, judge)
    assert list(known) == ["objects", "colours/0"]
    outcome = benchmark.judgment(prompt, sample_of(prompt), known, "corrected").outcome
    assert isinstance(outcome, Scored)
    assert outcome.evidence["reason"] == "expected dog>=1, found 0"


def test_geneval_does_not_score_a_colour_reply_of_the_wrong_length() -> None:
    benchmark = geneval_of({"class": "cup", "count": 1, "color": "red"})
    prompt = benchmark.prompts()[0]
    known = converse(benchmark, prompt, lambda q: boxes(("cup", 0.9)) if q.kind == "objects" else Reply())
    outcome = benchmark.judgment(prompt, sample_of(prompt), known, "corrected").outcome
    assert isinstance(outcome, Unscored)
    assert "0 colours for 1 objects" in outcome.reason


# --- DPG-Bench --------------------------------------------------------------------------------------------------------


@needs_data
def test_dpg_names_the_question_table_that_is_not_there(benchmark_data: Path) -> None:
    if (benchmark_data / "dpg" / QUESTIONS.path).exists():
        assert len(DpgBench.open("dpg", ALL, benchmark_data).prompts()) == 1065
        return
    with pytest.raises(PrerequisiteMissing, match=QUESTIONS.path):
        DpgBench.open("dpg", ALL, benchmark_data)


def test_dpg_asks_every_question_of_the_item_once() -> None:
    from evaluation.benchmarks.dpg.table import read_table

    text = (
        "item_id,proposition_id,dependency,tuple,question_natural_language\n"
        "x,1,0,entity - whole (cup),Is there a cup?\n"
        'x,2,1,"attribute - color (cup, red)",Is the cup red?\n'
    )
    full, cut = read_table(text, "t"), read_table(text, "t", first_row_kept=False)
    benchmark = DpgBench("dpg", [("x", "a red cup")], {"corrected": full, "parity": cut}, ALL)
    (prompt,) = benchmark.prompts()
    assert prompt.outputs == ["x_0.png", "x_1.png", "x_2.png", "x_3.png"]
    known = converse(benchmark, prompt, lambda question: Reply(text="yes"))
    assert [exchange.question.text for exchange in known.values()] == ["Is there a cup?", "Is the cup red?"]
    corrected, parity = (benchmark.judgment(prompt, sample_of(prompt), known, a).outcome for a in ARITHMETICS)
    assert isinstance(corrected, Scored)
    assert corrected.values == {"score": 1.0}
    assert isinstance(parity, Unscored)


# --- ImgEdit ----------------------------------------------------------------------------------------------------------


@needs_data
def test_imgedit_has_the_published_items_per_type_and_the_labels_of_its_texts(benchmark_data: Path) -> None:
    benchmark = ImgEdit.open("imgedit", ALL, benchmark_data)
    prompts = benchmark.prompts()
    check_outputs(prompts)
    judged = [benchmark.unscored(prompt, 0, Unscored(reason="r")) for prompt in prompts]
    types = Counter(judgment.tag for judgment in judged)
    assert sum(types.values()) == 737
    assert types == {"extract": 117, "style": 100, "add": 95, "adjust": 94, "background": 94} | {
        "replace": 92,
        "remove": 86,
        "action": 36,
        "compose": 23,
    }
    texts = json.loads((benchmark_data / "imgedit" / "prompts.json").read_text())
    for edit_type in EDIT_TYPES:
        assert tuple(re.findall(r"^(.+): A number from 1 to 5\.$", texts[edit_type], re.MULTILINE)) == LABELS[edit_type]


@needs_data
def test_imgedit_asks_again_for_corrected_and_keeps_the_first_reply_for_parity(benchmark_data: Path) -> None:
    benchmark = ImgEdit.open("imgedit", PromptPlan(prompts_per_tag=1), benchmark_data)
    prompt = benchmark.prompts()[0]
    replies = itertools.count()

    def judge(question: Question) -> Reply:
        assert prompt.text in question.text
        assert question.parts == ["text", "source", "sample"]
        if next(replies) == 0:
            return Reply(text=f"{question.labels[0]}: 5")
        return Reply(text="\n".join(f"- **{label}**: 2" for label in question.labels))

    known = converse(benchmark, prompt, judge)
    corrected, parity = (benchmark.judgment(prompt, sample_of(prompt), known, a).outcome for a in ARITHMETICS)
    assert isinstance(corrected, Scored)
    assert isinstance(parity, Scored)
    assert (corrected.values["rating"], parity.values["rating"]) == (2.0, 5.0)


@pytest.mark.parametrize("line", ["A: 6", "A: 0", "A: 3/5", "A: 3.", "A: three", "A: -3", "A: ３", "A: 3\nA: 3", "a 3"])
def test_a_strict_rating_is_one_digit_from_1_to_5_once_per_label(line: str) -> None:
    assert isinstance(read_ratings(f"{line}\nB: 3\nC: 3", [("A", "B", "C")]), str)
    assert read_ratings("A: 1\nB : 2\n**C:** 3\nOverall: 5", [("A", "B", "C")]) == {"A": 1, "B": 2, "C": 3}


# --- GEdit ------------------------------------------------------------------------------------------------------------


@needs_data
def test_gedit_items_are_identified_by_task_language_and_key(benchmark_data: Path) -> None:
    prompts = GEdit.open("gedit", ALL, benchmark_data).prompts()
    check_outputs(prompts)
    assert {prompt.prompt_id.split("/")[1] for prompt in prompts} == set(TASKS)
    assert all(prompt.outputs == [f"{prompt.prompt_id}.png"] for prompt in prompts)
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)


REPLIES = [
    '{"score": [7, 6], "reasoning": "r"}',
    '{"score": [7.5, 6], "reasoning": "r"}',
    '{"score": [7, 6] "reasoning": "broken"}',
    "[3, 4]",
    "8",
    "I cannot help with that.",
    "rate_limit_exceeded",
]


@needs_data
@pytest.mark.parametrize("seed", range(40))
def test_gedit_asks_just_enough_for_both_arithmetics(benchmark_data: Path, seed: int) -> None:
    source = random.Random(seed)
    benchmark = GEdit.open("gedit", PromptPlan(prompts_per_tag=1), benchmark_data)
    prompt = benchmark.prompts()[0]
    said: dict[str, list[str]] = {"SC": [], "PQ": []}

    def judge(question: Question) -> Reply:
        call, number = question.key.split("/")
        assert int(number) == len(said[call]) + 1 <= MAX_ROUNDS
        assert question.parts == (["text", "source", "sample"] if call == "SC" else ["text", "sample"])
        said[call].append(source.choice(REPLIES))
        return Reply(text=said[call][-1])

    known = converse(benchmark, prompt, judge)
    for arithmetic in ARITHMETICS:
        expected = score_replies(said["SC"], said["PQ"], arithmetic)
        assert expected is not None
        outcome = benchmark.judgment(prompt, sample_of(prompt), known, arithmetic).outcome
        assert type(outcome) is type(expected)
        longest = max(len(replies) for replies in said.values())
        shorter = {call: replies[: longest - 1] for call, replies in said.items()}
        assert longest == 1 or any(score_replies(shorter["SC"], shorter["PQ"], a) is None for a in ARITHMETICS)


def test_deep_and_endless_replies_are_unusable_not_fatal() -> None:
    for reply in ("{" * 100_000 + "}" * 100_000, '{"score": [' + "9" * 5000 + ", 1]}", '{"score": [1e400, 1e400]}'):
        outcome = score_replies([reply] * MAX_ROUNDS, [REPLIES[0]] * MAX_ROUNDS, "parity")
        assert isinstance(outcome, Unscored)
        assert isinstance(score_replies([reply] * MAX_ROUNDS, [REPLIES[0]], "corrected"), Unscored)


# --- registry and data ------------------------------------------------------------------------------------------------


def test_an_id_that_cannot_be_judged_is_answered_with_those_that_can() -> None:
    assert [list(benchmark_faults(name)) for name in known_ids()] == [[]] * len(known_ids())
    for name in ("dpg.", "wise", "shapeworld", "", "mme.shapeworld", "geneval.nobody", "pope.gpt-4o"):
        (fault,) = benchmark_faults(name)
        assert set(fault.choices) & set(known_ids())
    with pytest.raises(BadInput, match="no form in the rendered world"):
        open_benchmark("mme.shapeworld", ALL, None)


ONNX = {"judge": "onnx", "weights": "/w/yolov8m.onnx"}


@pytest.mark.parametrize(
    "benchmark_id, chosen, expected",
    [
        ("geneval", {"judge": "shapeworld"}, "geneval.shapeworld"),
        ("geneval.shapeworld", {}, "geneval.shapeworld"),
        ("geneval", ONNX, "geneval.yolov8m"),
        ("geneval.yolov8m", ONNX, "geneval.yolov8m"),
        ("dpg", {}, "dpg"),
        ("pope", {}, "pope"),
        ("pope.shapeworld", {}, "pope.shapeworld"),
    ],
)
def test_id_and_judge_give_one_full_id(benchmark_id: str, chosen: dict[str, str], expected: str) -> None:
    assert judged_as(benchmark_id, JudgeSettings.model_validate(chosen)) == expected


@pytest.mark.parametrize(
    "benchmark_id, chosen",
    [
        ("geneval.shapeworld", ONNX),
        ("geneval.yolov9", ONNX),
        ("dpg", ONNX),
        ("pope", {"judge": "openai", "model": "m"}),
        ("mme", {"judge": "shapeworld"}),
    ],
)
def test_a_judge_that_does_not_fit_the_id_is_one_fault(benchmark_id: str, chosen: dict[str, str]) -> None:
    settings = JudgeSettings.model_validate(chosen)
    (fault,) = benchmark_faults(benchmark_id, settings)
    assert fault.choices
    with pytest.raises(BadInput):
        judged_as(benchmark_id, settings)


def test_versions_of_rules_and_judge_both_change_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {numerics_version("geneval.shapeworld")}
    monkeypatch.setitem(registry.JUDGES, "shapeworld", replace(registry.JUDGES["shapeworld"], numerics_version=2))
    found.add(numerics_version("geneval.shapeworld"))
    monkeypatch.setitem(BENCHMARKS, "geneval", replace(BENCHMARKS["geneval"], numerics_version=2))
    found.add(numerics_version("geneval.shapeworld"))
    assert len(found) == 3
    with pytest.raises(BadInput):
        numerics_version("wise")


def test_absent_data_is_a_prerequisite_with_a_remedy() -> None:
    for entry in (GenEval, DpgBench, ImgEdit, GEdit):
        with pytest.raises(PrerequisiteMissing) as error:
            entry.open("x", ALL, None)
        assert error.value.remedy


@needs_data
def test_altered_data_is_refused_with_both_hashes(benchmark_data: Path, tmp_path: Path) -> None:
    (tmp_path / "geneval").mkdir()
    content = (benchmark_data / "geneval" / METADATA.path).read_bytes()
    (tmp_path / "geneval" / METADATA.path).write_bytes(content + b"\n")
    with pytest.raises(PrerequisiteMissing, match=r"altered: expected hash [0-9a-f]{64}, found [0-9a-f]{64}"):
        GenEval.open("geneval", ALL, tmp_path)


def test_git_blob_is_what_git_says() -> None:
    assert git_blob(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_every_benchmark_follows_the_protocol() -> None:
    benchmark = open_benchmark("geneval.shapeworld", PromptPlan(1, 1), None)
    assert isinstance(benchmark, Benchmark)
    for entry in (GenEval, DpgBench, ImgEdit, GEdit):
        assert not {name for name in dir(Benchmark) if not name.startswith("_")} - {*dir(entry), "id"}
    assert set(BENCHMARKS) == {"geneval", "dpg", "imgedit", "gedit", "pope", "mme", "mmvp", "scenes"}
