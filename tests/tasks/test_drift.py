"""Drift: the last judging of the same pictures is found, and a judge that changed under its name is told from noise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evaluation.benchmark import PromptPlan
from evaluation.compare import ComparisonRefused
from evaluation.records import JudgeIdentity, JudgeRequest, JudgeResult, Judgment, Scored, ScoreTable
from reca_core.contracts.files import atomic_write_text, write_json
from reca_core.contracts.hashing import request_hash, sha256_text
from reca_core.contracts.home import Home
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.requests import EvaluationPlan, SampleRequest, SamplingSettings
from tasks import plan
from tasks.drift import differ, judge_changes, markdown, moved, sentence
from tasks.history import before
from tasks.results import DriftChecked, Judged
from tests.tasks.rig import BASE, BENCHMARK, judged

PROMPTS = 24
PLAN = PromptPlan(prompts_per_tag=0, pictures_per_prompt=1, first_seed=1000)
EVALUATION = EvaluationPlan(pictures_per_prompt=1)


class Past:
    """Finished judgings of one model's pictures in a home, one after another."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.time = 1_700_000_000
        sampling = plan.sample_request(self.home, BASE, "p" * 64, SamplingSettings())
        self.samples = self._save_samples(sampling)

    def _save_samples(self, request: SampleRequest) -> Path:
        folder = Path(request.output_directory)
        atomic_write_text(folder / "request.json", request.model_dump_json())
        return folder

    def judging(
        self,
        right: int,
        occasion: str = "",
        outages: int = 0,
        sha256: str = "",
        samples: Path | None = None,
        **judge: str,
    ) -> Judged:
        """One in which the first ``right`` prompts are right."""
        settings = SettledJudge.model_validate(judge)
        given = {"benchmark": BENCHMARK, "prompts_sha256": "p" * 64, "samples_sha256": "s" * 64}
        request = JudgeRequest(
            **given, judge=settings, numerics_version=1, occasion=occasion, prompts_file="", output_directory="",
            samples_directory=str(samples or self.samples),
        )  # fmt: skip
        folder = self.home.answers(request_hash(request)).path
        identity = JudgeIdentity(name="shapeworld", sha256=sha256)
        self._save(folder, request, self._judgments(right), identity, outages)
        return judged(BASE, 0.5).model_copy(update={"directory": str(folder), "request_hash": request_hash(request)})

    def _judgments(self, right: int) -> list[Judgment]:
        return [
            Judgment(
                id=f"{number}/1000", prompt_id=str(number), seed=1000, tag="colors",
                outcome=Scored(values={"correct": float(number < right)}),
            )
            for number in range(PROMPTS)
        ]  # fmt: skip

    def _save(
        self, folder: Path, request: JudgeRequest, rows: list[Judgment], judge: JudgeIdentity, outages: int
    ) -> None:
        atomic_write_text(folder / "request.json", request.model_dump_json())
        atomic_write_text(folder / "judgments.jsonl", "".join(row.model_dump_json() + "\n" for row in rows))
        table = ScoreTable(
            benchmark=BENCHMARK, arithmetic="corrected", judge=judge, prompts_sha256="p" * 64, seeds=[1000], rows={}
        )
        result = JudgeResult(
            tables={"corrected": table}, judged=PROMPTS, unscored=outages, outages=outages, asked=1, seconds=1.0
        )
        write_json(folder / "DONE.json", result.model_dump(mode="json"))
        self.time += 60
        os.utime(folder / "DONE.json", (self.time, self.time))


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return Past(tmp_path)


def test_the_first_judging_has_none_before_it_and_a_later_one_finds_the_newest(past: Past) -> None:
    first = past.judging(10)
    assert before(past.home, first) is None
    second, third = past.judging(10, "second"), past.judging(12, "third")
    assert before(past.home, third) == Path(second.directory)
    assert before(past.home, second) == Path(first.directory)


def test_weights_and_date_of_the_judge_may_differ_and_its_name_may_not(past: Past) -> None:
    first = past.judging(10, judge="openai", model="m", date="2026-01-01")
    other = past.judging(10, "other", judge="openai", model="n")
    protocol = past.judging(10, "protocol", judge="openai", model="m", protocol="published")
    assert before(past.home, other) is None
    assert before(past.home, protocol) is None
    later = past.judging(10, "later", judge="openai", model="m", date="2026-02-02", weights_sha256="w")
    assert before(past.home, later) == Path(first.directory)


def test_other_weights_of_the_model_and_other_sampling_are_another_history(past: Past) -> None:
    past.judging(10)
    for model, sampling in (
        (BASE.model_copy(update={"sha256": "e" * 64}), SamplingSettings()),
        (BASE, SamplingSettings(guidance_scale=3.0)),
    ):
        request = plan.sample_request(past.home, model, "p" * 64, sampling)
        there = past._save_samples(request)
        name = sha256_text(str(there))
        assert before(past.home, past.judging(10, name, samples=there)) is None


def test_a_judging_with_outages_is_no_measure_of_another(past: Past) -> None:
    complete = past.judging(10)
    past.judging(0, "outage", outages=3)
    assert before(past.home, past.judging(10, "today")) == Path(complete.directory)


def test_the_same_answers_are_no_drift_and_others_are_with_an_interval(past: Past) -> None:
    first, same, changed = past.judging(20), past.judging(20, "same"), past.judging(5, "changed", sha256="new")
    still = differ(Path(first.directory), Path(same.directory), EVALUATION)
    assert (moved(still.comparison), still.changed, still.judge_changes) == ([], 0, [])
    drifted = differ(Path(first.directory), Path(changed.directory), EVALUATION)
    assert drifted.changed == 15
    assert moved(drifted.comparison)[0] == "overall"
    row = drifted.comparison.rows["overall"]
    assert row.low is not None
    assert row.high is not None
    assert row.low < row.delta < row.high < 0  # type: ignore[operator]
    assert drifted.judge_changes == ["sha256: none then, new now"]


def test_one_changed_verdict_of_many_is_counted_but_is_no_drift(past: Past) -> None:
    first, second = past.judging(20), past.judging(21, "second")
    found = differ(Path(first.directory), Path(second.directory), EVALUATION)
    assert (found.changed, moved(found.comparison)) == (1, [])


def test_the_page_says_what_moved_and_who_judged(past: Past) -> None:
    first, second = past.judging(20), past.judging(5, "second", sha256="new")
    found = differ(Path(first.directory), Path(second.directory), EVALUATION)
    checked = DriftChecked(
        stage="drift", seconds=1.0, benchmark=BENCHMARK, model=BASE, now=second.directory, before=first.directory,
        comparison=found.comparison, changed=found.changed, judge_changes=found.judge_changes,
        moved=moved(found.comparison),
    )  # fmt: skip
    assert "overall moved by -0.625 (95% interval" in sentence(checked)
    page = markdown(checked)
    assert "| last time | now |" in page
    assert "sha256" in page


def test_judgings_of_different_pictures_are_refused(past: Past) -> None:
    first, second = past.judging(20), past.judging(20, "second")
    file = Path(second.directory) / "judgments.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ComparisonRefused, match="not the same pictures"):
        differ(Path(first.directory), Path(second.directory), EVALUATION)


def test_what_two_judges_say_of_themselves_is_compared_field_by_field() -> None:
    first = JudgeIdentity(name="openai", model="m", settings={"date": "2026-01-01", "host": "h"})
    second = JudgeIdentity(name="openai", model="m", settings={"date": "2026-01-02", "host": "h"})
    assert list(judge_changes(first, second)) == ["date: 2026-01-01 then, 2026-01-02 now"]
    assert list(judge_changes(first, first)) == []
