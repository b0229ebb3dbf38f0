"""``judge``: one model's pictures become a table of scores; every verdict and its reason is in files and in MLflow."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from evaluation.records import JudgeRequest, JudgeResult, Judgment, Unscored
from evaluation.registry import numerics_version
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.requests import EvaluationPlan
from tasks import plan, tracking, tracking_lineage, tracking_models, tracking_views
from tasks.ahead import ahead_request, take_over
from tasks.evidence import JUDGMENTS_FILE, log_evidence, show_scores
from tasks.home import benchmark_data, current_home
from tasks.judging import api_key
from tasks.policies import verb
from tasks.progress import note
from tasks.report_scores import score_in_words
from tasks.results import Judged, Sampled
from tasks.run import RunContext
from tasks.stage import Finished, Stage, run_or_reuse
from tasks.tracking import TrackedRun

SCORES_FILE = "scores.json"
ASKED_BY_KEY = ("openai", "published")
"""Judges that may need a key."""


@verb("judge", "judge {sampled.benchmark} of {sampled.model.name}")
def judge(
    run: RunContext, sampled: Sampled, evaluation: EvaluationPlan, judging: SettledJudge, occasion: str = ""
) -> Judged:
    """The scores of a model's pictures, judged now, completed, or found.

    Args:
        judging: as ``tasks.judging.settled`` gives it.
        occasion: set, the judge is asked anew whatever it said before; the same one finds what it was told.
    """
    request = _request(sampled, evaluation, judging, occasion)
    samples = RunDirectory(Path(sampled.directory))
    ahead = ahead_request(sampled.benchmark, samples, sampled.prompts_sha256, evaluation, judging, occasion)
    take_over(ahead, RunDirectory(Path(request.output_directory)))
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
    tracked = _log(run, judged, finished.result, evaluation)
    show_scores(judged)
    return judged.model_copy(update={"mlflow_run_id": tracked.run_id})


def _request(sampled: Sampled, evaluation: EvaluationPlan, judging: SettledJudge, occasion: str) -> JudgeRequest:
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
        occasion=occasion,
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


def _log(run: RunContext, judged: Judged, result: JudgeResult, evaluation: EvaluationPlan) -> TrackedRun:
    """One MLflow run per model and benchmark; its numbers also gather on the model's page."""
    identity = {"stage": "benchmark", "benchmark": judged.benchmark, "request_hash": judged.request_hash}
    name = f"{judged.model.name} {judged.benchmark}"
    with tracking.tracked_run(name, identity, _tags(judged), run.tracked) as child:
        if tracking.finished(child):
            return child
        model_id = (
            tracking_models.logged_model(judged.model, child.run_id, {}, copy=False) if judged.model.family else ""
        )
        tracking_models.link_models(child.run_id, reads=model_id)
        tracking.log_params(child, _params(judged, evaluation))
        digest = judged.sampled.prompts_sha256
        tracking.log_dataset(child, judged.benchmark, digest, judged.sampled.directory, "evaluation")
        for table in result.tables.values():
            tracking.log_metrics(child, table.metrics(), model_id, (judged.benchmark, digest))
        if model_id:
            tracking_lineage.describe_lineage(model_id)
        log_evidence(child, judged, evaluation.preview_prompts)
        if not result.outages:
            tracking.mark_finished(child)
    headline = next(iter(judged.table.rows))
    note(f"{name}: {headline} {score_in_words(judged.table.rows[headline])}")
    return child


def _tags(judged: Judged) -> dict[str, str]:
    row = next(iter(judged.table.rows.values()))
    return {
        "model": judged.model.name,
        "model_sha256": judged.model.sha256,
        "prompts_sha256": judged.sampled.prompts_sha256,
        "run_directory": judged.directory,
        tracking_views.SCORE_TAG: score_in_words(row),
    }


def _params(judged: Judged, evaluation: EvaluationPlan) -> dict[str, object]:
    return {
        **tracking.flat({"evaluation": evaluation, "judge": judged.table.judge}),
        "model": judged.model.name,
        "model_sha256": judged.model.sha256,
        "benchmark": judged.benchmark,
    }
