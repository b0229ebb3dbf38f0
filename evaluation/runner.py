"""One judging, resumable at any moment: prompts and pictures in, transcript, judgments and scores out.

``answers/<hash>/``: ``transcript.jsonl`` (one line per ask, written as replies come), ``judgments.jsonl`` and
``parity_judgments.jsonl`` (one line per expected picture), ``scores.json`` (both arithmetics), ``DONE.json`` last. The
directory has one writer at a time; a second process waits for the first and finds its result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from evaluation.aggregate import score_rows
from evaluation.asking import Asking, windows
from evaluation.benchmark import Benchmark, Judge, LooksAhead, PromptPlan
from evaluation.helpers import Ahead
from evaluation.judges.opening import JudgePlace
from evaluation.records import (
    ARITHMETICS,
    Arithmetic,
    JudgeIdentity,
    JudgeRequest,
    JudgeResult,
    Judgment,
    Scored,
    ScoreTable,
    Unscored,
)
from evaluation.registry import open_benchmark, open_judge, split_id
from evaluation.subjects import SAMPLES_FILE, Subject, read_prompts, read_subjects, why_not
from evaluation.transcript import Transcript
from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.files import atomic_write_text, remove_leftovers, write_json
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.lifeline import StopRequest, stop_requests, turn
from reca_core.contracts.progress import Progress, report_progress
from reca_core.contracts.records import Prompt

log = logging.getLogger(__name__)

STAGE = "judge"
TRANSCRIPT_FILE = "transcript.jsonl"
IDENTITY_FILE = "judge.json"
SCORES_FILE = "scores.json"
JUDGMENTS_FILES: dict[Arithmetic, str] = {"corrected": "judgments.jsonl", "parity": "parity_judgments.jsonl"}


def main(request: JudgeRequest) -> JudgeResult | None:
    """Judge one samples directory.

    Returns: the result, which is also DONE.json; the old one where it is complete. A share has none: its replies are
        in its transcript, and whoever shared the work out concludes.
    Raises: BadInput if prompts or samples are not those of the request; PrerequisiteMissing for absent benchmark data;
        StageFailed where the judge cannot go on; Interrupted when asked to stop. What was answered is kept.
    """
    directory = RunDirectory(Path(request.output_directory))
    with stop_requests() as stop, turn(directory.lock, stop):
        remove_leftovers(directory.path)
        if (finished := _finished(directory)) is not None:
            log.info("already judged: %s", directory.path)
            return finished
        judging = _Judging(request, directory, stop)
        judging.ask_all()
        return None if request.share.is_part else judging.conclude()


def _finished(directory: RunDirectory) -> JudgeResult | None:
    """An earlier result, unless asking again may complete it."""
    if not directory.done.is_file():
        return None
    try:
        result = JudgeResult.model_validate_json(directory.done.read_text(encoding="utf-8"))
    except ValidationError:
        log.warning("%s cannot be read and is made again", directory.done)
        return None
    return None if result.outages else result


class _Judging:
    """The state of one attempt."""

    def __init__(self, request: JudgeRequest, directory: RunDirectory, stop: StopRequest) -> None:
        self.began = time.monotonic()
        self.request = request
        self.directory = directory
        self.benchmark = open_rules(request)
        self.prompts = checked_prompts(request, self.benchmark)
        samples = Path(request.samples_directory)
        _same_file(samples / SAMPLES_FILE, request.samples_sha256)
        self.subjects = request.share.of(read_subjects(self.prompts, Path(request.prompts_file), samples))
        self.judge = judge_of(request, directory)
        self.transcript = Transcript(directory.path / TRANSCRIPT_FILE, self.benchmark)
        self.asking = Asking(self.benchmark, self.judge, self.transcript, stop)
        self.unusable: dict[tuple[str, int], str] = {}
        helpers = request.judge.decoding_processes if isinstance(self.judge, LooksAhead) else 0
        self.looks = Ahead(why_not, helpers, key=lambda subject: subject.key)

    def ask_all(self) -> None:
        """Ask what is open."""
        log.info(
            "%s: %d pictures, %d replies already there", self.benchmark.id, len(self.subjects), self.transcript.rows
        )
        done = 0
        parts = list(windows(self.subjects, self.judge.batch_size))
        for number, window in enumerate(parts):
            self._ask(window, parts[number + 1] if number + 1 < len(parts) else [])
            done += len(window)
            self._progress(done)
        self.looks.close()

    def _ask(self, window: Sequence[Subject], following: Sequence[Subject]) -> None:
        """Ask about those of some pictures that can be looked at, while the following ones are being decoded."""
        reasons = self.looks.results(window)
        self.looks.expect(following)
        if isinstance(self.judge, LooksAhead):
            self.judge.look_ahead([subject.picture for subject in following if subject.picture.is_file()])
        self.unusable |= {subject.key: reason for subject, reason in zip(window, reasons, strict=True) if reason}
        self.asking.ask([subject for subject in window if subject.key not in self.unusable])

    def conclude(self) -> JudgeResult:
        """Write judgments, scores and DONE.json."""
        judgments = {arithmetic: self._judgments(arithmetic) for arithmetic in ARITHMETICS}
        tables = {arithmetic: self._table(found, arithmetic) for arithmetic, found in judgments.items()}
        for arithmetic, found in judgments.items():
            lines = "".join(judgment.model_dump_json() + "\n" for judgment in found)
            atomic_write_text(self.directory.path / JUDGMENTS_FILES[arithmetic], lines)
        scores = {arithmetic: table.model_dump(mode="json") for arithmetic, table in tables.items()}
        write_json(self.directory.path / SCORES_FILE, scores)
        outcomes = [judgment.outcome for judgment in judgments["corrected"]]
        result = JudgeResult(
            tables=tables,
            judged=sum(isinstance(outcome, Scored) for outcome in outcomes),
            unscored=sum(isinstance(outcome, Unscored) for outcome in outcomes),
            outages=sum(isinstance(outcome, Unscored) and outcome.outage for outcome in outcomes),
            asked=self.transcript.rows,
            seconds=time.monotonic() - self.began,
        )
        write_json(self.directory.done, result.model_dump(mode="json"))
        return result

    def _judgments(self, arithmetic: Arithmetic) -> list[Judgment]:
        return [self._judgment(subject, arithmetic) for subject in self.subjects]

    def _judgment(self, subject: Subject, arithmetic: Arithmetic) -> Judgment:
        if subject.sample is None or subject.key in self.unusable:
            reason = self.unusable[subject.key]
            return self.benchmark.unscored(subject.prompt, subject.seed, Unscored(reason=reason))
        known = self.transcript.known(subject.key)
        return self.benchmark.judgment(subject.prompt, subject.sample, known, arithmetic)

    def _table(self, judgments: Sequence[Judgment], arithmetic: Arithmetic) -> ScoreTable:
        return ScoreTable(
            benchmark=self.request.benchmark,
            arithmetic=arithmetic,
            judge=self.judge.identity,
            prompts_sha256=self.request.prompts_sha256,
            seeds=sorted({subject.seed for subject in self.subjects}),
            rows=score_rows(self.benchmark.rows(judgments, arithmetic), self.request.resamples),
        )

    def _progress(self, done: int) -> None:
        unit = "reply" if self.benchmark.task == "describe" else "picture"
        report_progress(Progress(stage=STAGE, done=done, total=len(self.subjects), unit=unit))


def open_rules(request: JudgeRequest) -> Benchmark:
    """The benchmark over the prompts of the request's plan. Raises PrerequisiteMissing for absent or altered data."""
    plan = PromptPlan(request.prompts_per_tag, request.pictures_per_prompt, request.first_seed)
    data = Path(request.benchmark_data) if request.benchmark_data else None
    return open_benchmark(request.benchmark, plan, data)


def judge_of(request: JudgeRequest, directory: RunDirectory) -> Judge:
    """The judge, ready to answer. Raises what its ``open`` raises, and StageFailed where another judged here before."""
    judge = open_judge(request.benchmark, _place(request, directory), request.judge)
    _same_judge(directory.path / IDENTITY_FILE, judge)
    return judge


def _place(request: JudgeRequest, directory: RunDirectory) -> JudgePlace:
    return JudgePlace(
        benchmark=split_id(request.benchmark)[0],
        directory=directory.path,
        cache=Path(request.cache) if request.cache else directory.path / "cache",
        benchmark_data=Path(request.benchmark_data) if request.benchmark_data else None,
        occasion=request.occasion,
    )


def checked_prompts(request: JudgeRequest, benchmark: Benchmark) -> list[Prompt]:
    """The prompts file, which must be the one that the benchmark writes: its rules are for those prompts.

    Raises BadInput for any other.
    """
    path = Path(request.prompts_file)
    _same_file(path, request.prompts_sha256)
    prompts = read_prompts(path)
    if prompts != list(benchmark.prompts()):
        raise BadInput(
            f"these are not the prompts of {benchmark.id}",
            field=str(path),
            remedy="judge with the plan (prompts per tag, pictures per prompt, first seed) that made them",
        )
    return prompts


def _same_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise BadInput("is not there", field=str(path))
    if sha256_file(path) != sha256:
        raise BadInput("changed after the request was made", field=str(path), remedy="make the request again")


def _same_judge(path: Path, judge: Judge) -> None:
    """Answers of two judges never mix in one transcript."""
    if not path.is_file():
        write_json(path, judge.identity.model_dump(mode="json"))
        return
    before = JudgeIdentity.model_validate_json(path.read_text(encoding="utf-8"))
    if before != judge.identity:
        raise StageFailed(
            f"{before.model_dump_json()} judged here before, now it is {judge.identity.model_dump_json()}",
            field=str(path.parent),
            remedy="raise the judge's numerics version in evaluation/registry.py, or remove this directory",
        )
