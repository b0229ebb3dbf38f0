"""``judge``: one model's pictures become a table of scores; every verdict and its reason is in files and in MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from evaluation.records import JudgeRequest, JudgeResult, Judgment, Scored, Unscored
from evaluation.registry import numerics_version
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.requests import EvaluationPlan
from tasks import plan, tracking, tracking_models
from tasks.home import benchmark_data, current_home
from tasks.judging import api_key
from tasks.policies import verb
from tasks.progress import note
from tasks.results import Judged, Sampled
from tasks.run import RunContext
from tasks.sample import SAMPLES_FILE
from tasks.stage import Finished, Stage, run_or_reuse
from tasks.tracking import TrackedRun

JUDGMENTS_FILE = "judgments.jsonl"
SCORES_FILE = "scores.json"
ASKED_BY_KEY = ("openai", "published")
"""Judges that may need a key."""


@verb("judge", "judge {sampled.benchmark} of {sampled.model.name}")
def judge(run: RunContext, sampled: Sampled, evaluation: EvaluationPlan, judging: JudgeSettings) -> Judged:
    """The scores of a model's pictures, judged now, completed, or found.

    Args:
        judging: as ``tasks.judging.settled`` gives it.
    """
    request = _request(sampled, evaluation, judging)
    name = f"judge {sampled.benchmark}, {sampled.model.name}"
    with api_key() if judging.judge in ASKED_BY_KEY else nullcontext():
        finished = _run(name, request)
    judged = Judged(
        stage=name,
        seconds=finished.seconds,
        reused=finished.reused,
        benchmark=sampled.benchmark,
        model=sampled.model,
        request_hash=request_hash(request),
        sampled=sampled,
        directory=request.output_directory,
        table=finished.result.tables[evaluation.arithmetic],
        unscored=reasons(Path(request.output_directory)),
    )
    _log(run, judged, finished.result, evaluation)
    return judged


def _request(sampled: Sampled, evaluation: EvaluationPlan, judging: JudgeSettings) -> JudgeRequest:
    data = benchmark_data()
    return plan.judge_request(
        home=current_home(),
        benchmark=sampled.benchmark,
        numerics_version=numerics_version(sampled.benchmark, judging),
        samples=RunDirectory(Path(sampled.directory)),
        prompts_sha256=sampled.prompts_sha256,
        samples_sha256=sampled.samples_sha256,
        evaluation=evaluation,
        judge=judging,
        benchmark_data=str(data) if data else "",
    )


def _run(name: str, request: JudgeRequest) -> Finished[JudgeResult]:
    directory = RunDirectory(Path(request.output_directory))
    stage = Stage(
        name=name,
        module="evaluation.launch",
        command="judge",
        request=request,
        directory=directory,
        result=JudgeResult,
        fault=lambda result: answers_fault(directory.path, result),
        unfinished=unanswered,
    )
    return run_or_reuse(stage)


def answers_fault(directory: Path, result: JudgeResult) -> str:
    """Why finished answers cannot be used; empty where they can."""
    rows = sum(1 for _ in read_jsonl(directory / JUDGMENTS_FILE))
    if rows != result.judged + result.unscored:
        return f"{rows} judgments are listed, {result.judged + result.unscored} were made"
    if not (directory / SCORES_FILE).is_file():
        return f"{directory / SCORES_FILE} is missing"
    return ""


def unanswered(result: JudgeResult) -> str:
    """Why asking again may bring more; empty where all was answered. Until then those pictures are unscored."""
    return f"the judge did not answer for {result.outages} pictures" if result.outages else ""


def reasons(directory: Path) -> list[str]:
    """Why pictures are unscored, each reason once with its count."""
    outcomes = (Judgment.model_validate(row).outcome for row in read_jsonl(directory / JUDGMENTS_FILE))
    counted = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Unscored))
    return [f"{count} x {reason}" for reason, count in counted.most_common()]


def _log(run: RunContext, judged: Judged, result: JudgeResult, evaluation: EvaluationPlan) -> None:
    """One MLflow run per model and benchmark; its numbers also gather on the model's page."""
    identity = {"stage": "benchmark", "benchmark": judged.benchmark, "request_hash": judged.request_hash}
    name = f"{judged.benchmark} {judged.model.name}"
    with tracking.tracked_run(name, identity, {"model": judged.model.name}, run.tracked) as child:
        if tracking.finished(child):
            return
        model_id = (
            tracking_models.logged_model(judged.model, child.run_id, {}, copy=False) if judged.model.family else ""
        )
        tracking_models.link_models(child.run_id, reads=model_id)
        tracking.log_params(child, _params(judged, evaluation))
        digest = judged.sampled.prompts_sha256
        tracking.log_dataset(child, judged.benchmark, digest, judged.sampled.directory, "evaluation")
        for table in result.tables.values():
            tracking.log_metrics(child, table.metrics(), model_id, (judged.benchmark, digest))
        _log_pictures(child, judged, evaluation.preview_prompts)
        if not result.outages:
            tracking.mark_finished(child)
    headline = next(iter(judged.table.rows))
    value = judged.table.rows[headline].value
    note(f"{name}: {headline} {'not scored' if value is None else value}")


def _params(judged: Judged, evaluation: EvaluationPlan) -> dict[str, object]:
    return {
        **tracking.flat({"evaluation": evaluation, "judge": judged.table.judge}),
        "model": judged.model.name,
        "model_sha256": judged.model.sha256,
        "benchmark": judged.benchmark,
    }


def _log_pictures(child: TrackedRun, judged: Judged, limit: int) -> None:
    """The per-prompt table and the grid: the same prompts for every model, chosen by place and never by result."""
    samples_directory = Path(judged.sampled.directory)
    prompts = [Prompt.model_validate(row) for row in read_jsonl(samples_directory / plan.PROMPTS_FILE)]
    samples = [Sample.model_validate(row) for row in read_jsonl(samples_directory / SAMPLES_FILE)]
    judgments = [Judgment.model_validate(row) for row in read_jsonl(Path(judged.directory) / JUDGMENTS_FILE)]
    columns, rows = per_prompt_table(samples, judgments)
    tracking.log_table(child, columns, rows)
    made = [sample for sample in samples if sample.image_path]
    files = {(sample.prompt_id, sample.seed): samples_directory / sample.image_path for sample in made}
    shown = [(prompt_id, files.get((prompt_id, seed))) for prompt_id, seed in shown_pictures(prompts, judgments, limit)]
    grid = [(f"{judged.benchmark}_{prompt_id}", 0, file) for prompt_id, file in shown if file is not None]
    tracking.log_pictures(child, grid)


def per_prompt_table(samples: list[Sample], judgments: list[Judgment]) -> tuple[list[str], list[list[object]]]:
    """One row per picture: what was asked for, how it scored, or why it did not."""
    texts = {(sample.prompt_id, sample.seed): sample.text for sample in samples}
    names = list(dict.fromkeys(name for item in judgments for name in _values(item)))
    columns = ["prompt_id", "seed", "tag", "prompt", *names, "unscored"]
    rows: list[list[object]] = [
        [
            item.prompt_id,
            item.seed,
            item.tag,
            texts.get((item.prompt_id, item.seed), ""),
            *(_values(item).get(name) for name in names),
            item.outcome.reason if isinstance(item.outcome, Unscored) else "",
        ]
        for item in judgments
    ]
    return columns, rows


def _values(judgment: Judgment) -> dict[str, float]:
    return dict(judgment.outcome.values) if isinstance(judgment.outcome, Scored) else {}


def shown_pictures(prompts: list[Prompt], judgments: list[Judgment], limit: int) -> Iterator[tuple[str, int]]:
    """Prompt id and first seed of the first prompts of each tag in turn."""
    tags = {judgment.prompt_id: judgment.tag for judgment in judgments}
    by_tag: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_tag.setdefault(tags.get(prompt.prompt_id, ""), []).append(prompt)
    most = max(map(len, by_tag.values()), default=0)
    turns = [members[turn] for turn in range(most) for members in by_tag.values() if turn < len(members)]
    for prompt in turns[:limit]:
        yield prompt.prompt_id, prompt.seeds[0]
