"""The report is one self-contained page that says the truth whatever the sign, and escapes whatever it is given."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from evaluation.records import (
    Comparison,
    DeltaRow,
    JudgeIdentity,
    Judgment,
    Scored,
    ScoreRow,
    ScoreTable,
    Unscored,
)
from reca_core.contracts.files import append_jsonl, write_json
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.records import PreviewRow, Prompt, Sample
from tasks.report import write_report
from tasks.report_inputs import BenchmarkPair, Links, Measured, ReportInputs
from tasks.report_reading import spread
from tasks.report_scores import Scores, number, verdict

HOSTILE = "<script>alert('x')</script>\"'&|`"
TAGS = ("counting", "position")
JUDGE = JudgeIdentity(name="shapeworld")


class Page(HTMLParser):
    """Which elements and addresses a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def table(value: float, scored: int = 8) -> ScoreTable:
    rows = {
        name: ScoreRow(value=value, low=value - 0.1, high=value + 0.1, n_scored=scored, n_expected=8)
        for name in ("overall", *TAGS)
    }
    return ScoreTable(
        benchmark="geneval.shapeworld",
        arithmetic="corrected",
        judge=JUDGE,
        prompts_sha256="ab" * 32,
        seeds=[1000, 1001],
        rows=rows,
    )


def comparison(delta: float | None, half: float | None = 0.05) -> Comparison:
    known = delta is not None and half is not None
    row = DeltaRow(
        base=0.5,
        trained=None if delta is None else 0.5 + delta,
        delta=delta,
        low=delta - half if known else None,
        high=delta + half if known else None,
        n=8,
    )
    rows = dict.fromkeys(("overall", *TAGS), row)
    return Comparison(benchmark="geneval.shapeworld", arithmetic="corrected", judge=JUDGE, n_prompts=4, rows=rows)


def picture(path: Path, colour: str, side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


def measured(root: Path, model: str, words: str, name: str) -> Measured:
    """Four prompts in two tags with two seeds each; one picture is missing, one unscored."""
    samples, answers = root / "samples" / model, root / "answers" / model
    for place in range(4):
        tag, prompt_id = TAGS[place % 2], f"{place:05d}"
        outputs = [f"{place}/{name}-{seed}.png" for seed in (1000, 1001)]
        prompt = Prompt(prompt_id=prompt_id, text=f"{words} prompt {place}", seeds=[1000, 1001], outputs=outputs)
        append_jsonl(samples / "prompts.jsonl", [prompt.model_dump()])
        for seed, output in zip(prompt.seeds, outputs, strict=True):
            picture(samples / output, "red" if place != 3 else "blue")
            sample = Sample(prompt_id=prompt_id, seed=seed, text=prompt.text, image_path=output, sha256="")
            append_jsonl(samples / "samples.jsonl", [sample.model_dump()])
            judgment = Judgment(
                id=f"{prompt_id}/{seed}", prompt_id=prompt_id, seed=seed, tag=tag, outcome=outcome(place, words)
            )
            append_jsonl(answers / "judgments.jsonl", [judgment.model_dump()])
    (samples / "2" / f"{name}-1000.png").unlink()
    return Measured(model, table(0.5), samples, answers)


def outcome(number: int, words: str) -> Scored | Unscored:
    if number == 1:
        return Unscored(reason=f"{words} outage")
    return Scored(values={"correct": float(number == 0)}, evidence={"reason": f"{words} expected"})


def inputs(root: Path, delta: float | None = 0.2, words: str = "plain", name: str = "k") -> ReportInputs:
    run = root / "runs" / "0123456789abcdef"
    picture(run / "previews" / f"{name}.png", "green")
    for step in range(12):
        row = PreviewRow(step=step, task="reconstruct", path=f"{name}.png", text=words, source=f"{name}.png")
        append_jsonl(run / "previews" / "index.jsonl", [row.model_dump()])
        append_jsonl(run / "metrics.jsonl", [{"step": step, "train/reconstruction_loss": 5.0 - step / 4}])
    request = {"model": {"source": words, "sha256": "cd" * 32}, "data": {"source": words, "digest": "ef" * 32}}
    write_json(run / "request.json", request)
    pair = BenchmarkPair(
        "geneval.shapeworld",
        measured(root, "base", words, name),
        measured(root, "trained", words, name),
        comparison(delta),
    )
    return ReportInputs(
        title=f"{words} title",
        base_name=f"{words} base",
        trained_name=f"{words} trained",
        version="reca/1",
        benchmarks=(pair,),
        training_directory=run,
        pictures=64,
        quarantined=1,
        data_directory=root / "data" / "ef",
        output=root / "reports" / "one" / "report.html",
        links=Links(prefect="javascript:alert(1)", mlflow="http://127.0.0.1:5000/#/x", mlflow_store="sqlite:///x.db"),
        seconds={"train": 61.0},
    )


def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = Page(write_report(inputs(tmp_path)).read_text())
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(page.tags)
    pictures = [source for source in page.sources if not source.startswith("http")]
    assert pictures
    assert all(source.startswith("data:image/png;base64,") for source in pictures)
    assert [source for source in page.sources if source.startswith("http")] == ["http://127.0.0.1:5000/#/x"]


def test_whatever_a_run_contains_is_escaped_in_page_and_tables(tmp_path: Path) -> None:
    page_file = write_report(inputs(tmp_path, words=HOSTILE, name="<script>k"))
    page = Page(page_file.read_text())
    assert "script" not in page.tags
    shown = "".join(page.words)
    for place in ("prompt 0", "title", "base", "outage", "expected"):
        assert f"{HOSTILE} {place}" in shown, place
    markdown = page_file.with_name("report.md").read_text()
    assert "<" not in markdown
    assert all(line.count("|") == 7 for line in markdown.splitlines() if line.startswith("|"))
    assert json.loads(page_file.with_name("report.json").read_text())["base"] == f"{HOSTILE} base"


def test_captions_that_a_training_left_out_are_on_the_page(tmp_path: Path) -> None:
    asked = inputs(tmp_path)
    assert "captions left out" not in write_report(asked).read_text()
    listing = RunDirectory(asked.training_directory).left_out_captions
    append_jsonl(listing, [{"row": 3, "reason": "truncated"}, {"row": 7, "reason": "no such file"}])
    text = write_report(asked).read_text()
    assert "2, whose pictures could not be used: left_out_captions.jsonl" in text


def test_a_missing_picture_is_named_and_stops_nothing(tmp_path: Path) -> None:
    text = write_report(inputs(tmp_path)).read_text()
    assert text.count("no picture") == 2
    assert "k-1000.png cannot be read" in text


@pytest.mark.parametrize(
    ("delta", "half", "tone", "word"),
    [
        (0.2, 0.05, "better", "improved"),
        (-0.2, 0.05, "worse", "worse"),
        (0.02, 0.05, "unclear", "No difference is shown"),
        (0.2, None, "unclear", "no interval"),
        (None, None, "unclear", "Nothing was measured"),
    ],
)
def test_the_verdict_follows_the_interval(delta: float | None, half: float | None, tone: str, word: str) -> None:
    found = verdict(Scores("geneval.shapeworld", table(0.5), table(0.5), comparison(delta, half)))
    assert found.tone == tone
    assert word in found.headline


def test_a_refused_comparison_shows_both_tables_and_the_reason(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    (pair,) = given.benchmarks
    refused = BenchmarkPair(pair.benchmark, pair.base, pair.trained, None, "coverage differs: 8/8 and 7/8")
    text = write_report(ReportInputs(**(vars(given) | {"benchmarks": (refused,)}))).read_text()
    assert "Not compared: coverage differs: 8/8 and 7/8" in text
    assert text.count("0.500") == 2 * 3


def test_numbers_have_a_true_minus_and_no_signed_zero() -> None:
    assert number(-0.25, 3, sign=True) == "−0.250"
    assert number(0.25, 3, sign=True) == "+0.250"
    assert number(-0.0001, 3, sign=True) == number(0.0, 3, sign=True) == "0.000"
    assert number(None, 3) == "–"


def test_rendered_world_numbers_are_never_called_geneval(tmp_path: Path) -> None:
    text = write_report(inputs(tmp_path)).read_text()
    assert "These are not GenEval numbers" in text


def test_pictures_are_chosen_by_position_in_turn_over_tags(tmp_path: Path) -> None:
    text = write_report(inputs(tmp_path)).read_text()
    shown = re.findall(r"<h3>plain prompt (\d)</h3>", text)
    assert shown == ["0", "1", "2", "3"]
    assert re.findall(r'class="tag">(\w+)<', text) == ["counting", "position"] * 2


def test_latest_points_at_the_newest_report(tmp_path: Path) -> None:
    first = inputs(tmp_path)
    write_report(first)
    second = ReportInputs(**(vars(first) | {"output": tmp_path / "reports" / "two" / "report.html"}))
    write_report(second)
    latest = tmp_path / "reports" / "latest"
    assert latest.resolve() == second.output.parent
    assert not latest.readlink().is_absolute()


def test_a_strip_keeps_first_and_last(tmp_path: Path) -> None:
    assert spread(list(range(12)), 6)[0] == 0
    assert spread(list(range(12)), 6)[-1] == 11
    assert spread([1, 2], 6) == [1, 2]
