"""POPE, MME and MMVP: files as published, numbers as published; through the runner in the rendered world."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation import runner
from evaluation.aggregate import score_rows
from evaluation.benchmark import PromptPlan
from evaluation.compare import Measurement, compare, compare_directories, read_measurement
from evaluation.judges.reply import ReplyJudge
from evaluation.prompt_files import PROMPTS_FILE, write_prompt_files
from evaluation.records import Answer, Exchange, JudgeRequest, Judgment, Reply, Scored, Unscored
from evaluation.registry import numerics_version, open_benchmark
from evaluation.understanding.mme import COGNITION, PERCEPTION, Mme
from evaluation.understanding.mmvp import Mmvp
from evaluation.understanding.pope import SPLITS, Pope
from evaluation.understanding.questions import QuestionBenchmark
from evaluation.understanding.reading import mme_reading, pope_reading
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.files import append_jsonl
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world import VOCABULARY, words_of

ALL = PromptPlan()
TOLERANCE = 1e-12
REPLIES = [
    "yes",
    "no",
    "Yes, there is.",
    "No, there is not.",
    "There is no cat",
    "I am not sure",
    "perhaps",
    "",
    "noise",
]

# --- files ------------------------------------------------------------------------------------------------------------


def write_pope(folder: Path, pictures: int = 4) -> None:
    (folder / "pope" / "val2014").mkdir(parents=True)
    for number in range(pictures):
        (folder / "pope" / "val2014" / f"{number}.jpg").write_bytes(b"picture")
    for split in SPLITS:
        rows = [
            {"question_id": 2 * n + k, "image": f"{n}.jpg", "text": f"Is there a {split}{k}?", "label": label}
            for n in range(pictures)
            for k, label in enumerate(("yes", "no"))
        ]
        append_jsonl(folder / "pope" / f"coco_pope_{split}.json", rows)


def write_mme(folder: Path, pictures: int = 3) -> None:
    for place, subtask in enumerate((*PERCEPTION, *COGNITION)):
        root = folder / "mme" / "MME_Benchmark_release_version" / subtask
        apart = place % 2 == 0
        texts, images = (root / "questions_answers_YN", root / "images") if apart else (root, root)
        texts.mkdir(parents=True)
        images.mkdir(parents=True, exist_ok=True)
        for number in range(pictures):
            suffix = ".png" if number % 2 else ".jpg"
            (images / f"{number:04d}{suffix}").write_bytes(b"picture")
            lines = f"Is {subtask} {number}? Please answer yes or no.\tYes\nIs it not?\tNo\n"
            (texts / f"{number:04d}.txt").write_text(lines)


def write_mmvp(folder: Path, pairs: int = 3) -> None:
    (folder / "mmvp" / "MMVP Images").mkdir(parents=True)
    lines = ["lndex,Question,Options,Correct Answer"]
    for number in range(1, 2 * pairs + 1):
        (folder / "mmvp" / "MMVP Images" / f"{number}.jpg").write_bytes(b"picture")
        lines.append(f'{number},"Open, or closed?",(a) Open (b) Closed,({"ab"[number % 2]})')
    (folder / "mmvp" / "Questions.csv").write_text("﻿" + "\r\n".join(lines) + "\r\n", encoding="utf-8")


WRITERS = {"pope": write_pope, "mme": write_mme, "mmvp": write_mmvp}
SIZES = {"pope": 24, "mme": 84, "mmvp": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for write in WRITERS.values():
        write(folder)
    return folder


@pytest.mark.parametrize("name", WRITERS)
def test_questions_of_published_files_ask_for_replies_about_pictures_that_lie_beside_them(
    name: str, data: Path, tmp_path: Path
) -> None:
    benchmark = open_benchmark(name, ALL, data)
    write_prompt_files(tmp_path, benchmark)
    prompts = benchmark.prompts()
    assert len(prompts) == len({prompt.prompt_id for prompt in prompts}) == SIZES[name]
    assert benchmark.task == "describe"
    for prompt in prompts:
        assert (prompt.outputs, len(prompt.seeds)) == ([], 1)
        assert (tmp_path / prompt.source_image).read_bytes() == b"picture"
        assert prompt.text.strip()


def test_questions_are_asked_in_the_words_of_the_files(data: Path) -> None:
    texts = {name: open_benchmark(name, ALL, data).prompts()[0].text for name in WRITERS}
    assert texts["pope"] == "Is there a random0?"
    assert texts["mme"] == "Is existence 0? Please answer yes or no."
    assert texts["mmvp"].startswith("Open, or closed?\nA. Open\nB. Closed\n")


@pytest.mark.parametrize("name, kept", [("pope", 3), ("mme", 28), ("mmvp", 2)])
def test_fewer_prompts_per_tag_keep_questions_together_that_are_scored_together(
    name: str, kept: int, data: Path
) -> None:
    prompts = open_benchmark(name, PromptPlan(prompts_per_tag=1), data).prompts()
    assert len(prompts) == kept
    pictures = Counter(prompt.source_image for prompt in prompts)
    assert name != "mme" or set(pictures.values()) == {2}


@pytest.mark.parametrize("name", WRITERS)
def test_absent_data_names_the_file_and_where_it_comes_from(name: str, data: Path, tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(PrerequisiteMissing) as error:
            open_benchmark(name, ALL, folder)
        assert "--benchmark-data" in error.value.remedy
        assert name in str(error.value)


def _spoil(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    "name, file, old, new, says",
    [
        ("pope", "pope/coco_pope_popular.json", '"label": "no"', '"label": "maybe"', "line 2"),
        ("pope", "pope/coco_pope_popular.json", '"image"', '"picture"', "lacks image"),
        ("pope", "pope/coco_pope_random.json", "{", "", "line 1: not JSON"),
        ("pope", "pope/coco_pope_random.json", '"question_id": 1', '"question_id": 0', "twice"),
        ("mme", "mme/MME_Benchmark_release_version/count/0001.txt", "\tNo", "", "two lines"),
        ("mme", "mme/MME_Benchmark_release_version/count/0001.txt", "Yes", "True", "neither yes nor no"),
        ("mmvp", "mmvp/Questions.csv", "(a)\n", "(d)\n", "none of A, B"),
        ("mmvp", "mmvp/Questions.csv", '6,"Open, or closed?",(a) Open (b) Closed,(a)', "", "do not make pairs"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(
    name: str, file: str, old: str, new: str, says: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path)
    _spoil(tmp_path / file, old, new)
    with pytest.raises(BadInput, match=says):
        open_benchmark(name, ALL, tmp_path)


# --- numbers ----------------------------------------------------------------------------------------------------------


def answered(benchmark: QuestionBenchmark, say: Callable[[Prompt], str | None], arithmetic: str) -> list[Judgment]:
    """Judgments of replies; None is a reply that was not made."""
    found = []
    for prompt in benchmark.prompts():
        reply = say(prompt)
        if reply is None:
            found.append(benchmark.unscored(prompt, prompt.seeds[0], Unscored(reason="not made")))
            continue
        sample = Sample(
            prompt_id=prompt.prompt_id, seed=prompt.seeds[0], text=prompt.text, image_path="", sha256="", reply=reply
        )
        (question,) = benchmark.questions(prompt, sample, {})
        exchange = Exchange(question=question, replies=[Reply(text=reply)], answer=Answer(reply=Reply(text=reply)))
        known = {question.key: exchange}
        assert benchmark.questions(prompt, sample, known) == []
        found.append(benchmark.judgment(prompt, sample, known, arithmetic))  # type: ignore[arg-type]
    return found


def right_answers(benchmark: QuestionBenchmark) -> dict[str, str]:
    return {name: item.answer for name, item in benchmark._items.items()}


def values(benchmark: type[QuestionBenchmark], judgments: list[Judgment], arithmetic: str) -> dict[str, float | None]:
    rows = benchmark.rows(judgments, arithmetic)  # type: ignore[attr-defined]
    return {name: row.value for name, row in score_rows(rows, resamples=100).items()}


@pytest.mark.parametrize("seed", range(10))
def test_popes_numbers_are_those_of_its_confusion_table(seed: int, data: Path) -> None:
    benchmark = Pope.open("pope", ALL, data)
    labels = right_answers(benchmark)
    source = random.Random(seed)
    said = {name: source.choice(REPLIES) for name in labels}
    found = values(Pope, answered(benchmark, lambda prompt: said[prompt.prompt_id], "parity"), "parity")
    for split in SPLITS:
        pairs = [(labels[name], pope_reading(said[name])) for name in labels if name.startswith(split)]
        table = Counter(pairs)
        tp, fp, tn, fn = (table[pair] for pair in (("yes", "yes"), ("no", "yes"), ("no", "no"), ("yes", "no")))
        assert found[f"{split}/accuracy"] == pytest.approx((tp + tn) / len(pairs), abs=TOLERANCE)
        assert found[f"{split}/recall"] == pytest.approx(tp / (tp + fn), abs=TOLERANCE)
        assert found[f"{split}/yes_ratio"] == pytest.approx((tp + fp) / len(pairs), abs=TOLERANCE)
        if tp + fp:
            precision, recall = tp / (tp + fp), tp / (tp + fn)
            assert found[f"{split}/precision"] == pytest.approx(precision, abs=TOLERANCE)
            if tp:
                expected = 2 * precision * recall / (precision + recall)
                assert found[f"{split}/f1"] == pytest.approx(expected, abs=TOLERANCE)
    mean = sum(found[f"{split}/accuracy"] or 0 for split in SPLITS) / len(SPLITS)
    assert found["accuracy"] == pytest.approx(mean, abs=TOLERANCE)


def test_a_model_that_never_says_yes_has_no_precision_rather_than_a_zero(data: Path) -> None:
    benchmark = Pope.open("pope", ALL, data)
    found = values(Pope, answered(benchmark, lambda prompt: "no", "corrected"), "corrected")
    assert (found["precision"], found["recall"], found["f1"], found["accuracy"]) == (None, 0.0, 0.0, 0.5)


@pytest.mark.parametrize("seed", range(10))
def test_mmes_scores_are_the_sums_of_both_accuracies(seed: int, data: Path) -> None:
    benchmark = Mme.open("mme", ALL, data)
    labels = right_answers(benchmark)
    source = random.Random(seed)
    said = {name: source.choice(REPLIES) for name in labels}
    found = values(Mme, answered(benchmark, lambda prompt: said[prompt.prompt_id], "parity"), "parity")
    scores = {}
    for subtask in (*PERCEPTION, *COGNITION):
        right = {name: mme_reading(said[name]) == labels[name] for name in labels if name.startswith(f"{subtask}/")}
        pictures = {name.rsplit("/", 1)[0] for name in right}
        both = sum(right[f"{picture}/0"] and right[f"{picture}/1"] for picture in pictures)
        scores[subtask] = 100 * sum(right.values()) / len(right) + 100 * both / len(pictures)
        assert found[subtask] == pytest.approx(scores[subtask], abs=1e-9)
    assert found["perception"] == pytest.approx(sum(scores[name] for name in PERCEPTION), abs=1e-9)
    assert found["cognition"] == pytest.approx(sum(scores[name] for name in COGNITION), abs=1e-9)
    assert list(found)[:3] == ["perception", "cognition", "existence"]


def test_mme_is_full_for_right_answers_and_half_of_accuracy_for_one_word(data: Path) -> None:
    benchmark = Mme.open("mme", ALL, data)
    labels = right_answers(benchmark)
    full = values(Mme, answered(benchmark, lambda prompt: labels[prompt.prompt_id], "corrected"), "corrected")
    assert (full["perception"], full["cognition"]) == (2000.0, 800.0)
    always = values(Mme, answered(benchmark, lambda prompt: "yes", "corrected"), "corrected")
    assert (always["perception"], always["cognition"]) == (500.0, 200.0)


def test_mmvp_counts_pairs(data: Path) -> None:
    benchmark = Mmvp.open("mmvp", ALL, data)
    labels = right_answers(benchmark)
    full = values(Mmvp, answered(benchmark, lambda prompt: f"{labels[prompt.prompt_id]}.", "corrected"), "corrected")
    assert full == {"pair_accuracy": 1.0, "accuracy": 1.0}
    always = values(Mmvp, answered(benchmark, lambda prompt: "A", "parity"), "parity")
    assert always == {"pair_accuracy": 0.0, "accuracy": 0.5}
    wrong = {"1": "C"}
    one = values(
        Mmvp,
        answered(benchmark, lambda prompt: wrong.get(prompt.prompt_id, labels[prompt.prompt_id]), "parity"),
        "parity",
    )
    assert one == {"pair_accuracy": pytest.approx(2 / 3), "accuracy": pytest.approx(5 / 6)}


@pytest.mark.parametrize("entry, name", [(Pope, "pope"), (Mme, "mme"), (Mmvp, "mmvp")])
def test_a_reply_that_was_not_made_is_unscored_and_shows_in_the_coverage(
    entry: type[QuestionBenchmark], name: str, data: Path
) -> None:
    benchmark = open_benchmark(name, ALL, data)
    assert isinstance(benchmark, entry)
    labels = right_answers(benchmark)
    lost = next(iter(labels))
    judgments = answered(
        benchmark, lambda prompt: None if prompt.prompt_id == lost else labels[prompt.prompt_id], "parity"
    )
    rows = entry.rows(judgments, "parity")  # type: ignore[attr-defined]
    headline = next(iter(rows.values()))
    assert headline.n_scored == headline.n_expected - 1
    assert score_rows(rows, resamples=100)[next(iter(rows))].value in (1.0, 2000.0)


# --- through the runner, in the rendered world ------------------------------------------------------------------------


def measured(folder: Path, say: Callable[[Prompt, str], str], benchmark_id: str = "pope.shapeworld") -> Path:
    """The answers directory of replies that ``say`` gives, knowing the right one."""
    benchmark = open_benchmark(benchmark_id, ALL, None)
    samples, output = folder / "samples", folder / "answers"
    write_prompt_files(samples, benchmark)
    labels = right_answers(benchmark)  # type: ignore[arg-type]
    rows = [
        Sample(
            prompt_id=prompt.prompt_id,
            seed=prompt.seeds[0],
            text=prompt.text,
            image_path="",
            sha256="",
            reply=say(prompt, labels[prompt.prompt_id]),
        )
        for prompt in benchmark.prompts()
    ]
    append_jsonl(samples / "samples.jsonl", [row.model_dump() for row in rows])
    runner.main(
        JudgeRequest(
            benchmark=benchmark_id,
            prompts_sha256=sha256_file(samples / PROMPTS_FILE),
            samples_sha256=sha256_file(samples / "samples.jsonl"),
            numerics_version=numerics_version(benchmark_id),
            prompts_file=str(samples / PROMPTS_FILE),
            samples_directory=str(samples),
            output_directory=str(output),
        )
    )
    return output


def test_base_trained_and_difference_of_understanding_are_compared_like_any_benchmark(tmp_path: Path) -> None:
    always = measured(tmp_path / "base", lambda prompt, label: "yes")
    right = measured(tmp_path / "trained", lambda prompt, label: label)
    comparison = compare_directories(always, right, "corrected", resamples=200)
    row = comparison.rows["accuracy"]
    assert (row.base, row.trained, row.delta) == (0.5, 1.0, 0.5)
    assert row.low is not None
    assert 0.4 < row.low <= 0.5
    assert comparison.rows["precision"].delta == 0.5
    metrics = read_measurement(right, "corrected").table.metrics()
    assert metrics["pope.shapeworld/accuracy"] == 1.0
    assert metrics["pope.shapeworld/accuracy/n_scored"] == metrics["pope.shapeworld/accuracy/n_expected"] == 576


def test_ratios_are_paired_over_the_same_pictures_whatever_was_answered(tmp_path: Path) -> None:
    """Two models that agree have a difference of exactly zero also in numbers whose denominator depends on replies."""
    source = random.Random(1)
    said = measured(tmp_path / "one", lambda prompt, label: source.choice(["yes", "no"]))
    side = read_measurement(said, "corrected")
    comparison = compare(side, Measurement(side.table, side.judgments), resamples=200)
    assert {(row.delta, row.low, row.high) for row in comparison.rows.values()} == {(0.0, 0.0, 0.0)}


def test_world_questions_are_balanced_answerable_in_its_words_and_judged_by_the_reader_alike(tmp_path: Path) -> None:
    from PIL import Image

    from evaluation.judges.shapeworld_answers import answer
    from evaluation.judges.shapeworld_marks import objects_of
    from evaluation.judges.shapeworld_reader import read_cells

    benchmark = Pope.open("pope.shapeworld", ALL, None, "shapeworld")
    write_prompt_files(tmp_path, benchmark)
    labels = right_answers(benchmark)
    for prompt in benchmark.prompts():
        assert set(words_of(prompt.text)) <= set(VOCABULARY)
        with Image.open(tmp_path / prompt.source_image) as picture:
            assert answer(prompt.text, objects_of(read_cells(picture))) == labels[prompt.prompt_id]
    tags = Counter((item.tag, item.answer) for item in benchmark._items.values())
    assert set(tags.values()) == {144}
    tuning = Pope.open("pope.shapeworld", PromptPlan(first_seed=0), None, "shapeworld")
    assert tuning.prompts()[:6] != benchmark.prompts()[:6]


def test_the_judge_of_questions_repeats_the_model_and_invents_nothing() -> None:
    from evaluation.benchmark import JudgeTask

    prompt = Prompt(prompt_id="p", text="q", source_image="s.png", seeds=[0], outputs=[])
    sample = Sample(prompt_id="p", seed=0, text="q", image_path="", sha256="", reply=" Yes ")
    benchmark = Pope.open("x", ALL, None, "shapeworld")
    (question,) = benchmark.questions(prompt, sample, {})
    task = JudgeTask(prompt, sample, Path("s.png"), Path("s.png"), question)
    assert ReplyJudge().answer([task]) == [Reply(text=" Yes ")]


def test_evidence_says_what_was_said_read_and_right(data: Path) -> None:
    benchmark = Pope.open("pope", ALL, data)
    judgment = answered(benchmark, lambda prompt: "I cannot tell", "corrected")[0]
    assert isinstance(judgment.outcome, Scored)
    assert judgment.outcome.evidence == {
        "reply": "I cannot tell",
        "read": "other",
        "answer": "yes",
        "picture": "0.jpg",
        "unit": "",
    }
    assert json.loads(judgment.model_dump_json())["tag"] == "random"
    assert not any(math.isnan(value) for value in judgment.outcome.values.values())
