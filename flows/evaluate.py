"""Measure one model, whoever made it, or pictures that somebody else made."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import EvaluationPlan, ModelChoice, SamplingSettings
from tasks.form import titled
from tasks.measure import measure_choice
from tasks.outcome import outcome
from tasks.run import pipeline_run
from tasks.validate import check


@flow(name="evaluate")
@titled
def evaluate(
    model: ModelChoice = ModelChoice(),
    sampling: SamplingSettings = SamplingSettings(),
    evaluation: EvaluationPlan = EvaluationPlan(),
    judge: JudgeSettings = JudgeSettings(),
) -> Outcome:
    """Measure one model on benchmarks, or the pictures in a folder on one.

    Args:
        model: Which model to measure.
        sampling: How pictures are drawn.
        evaluation: What to measure.
        judge: Who judges.
    """
    check(model, sampling, evaluation, judge)
    with pipeline_run("evaluate") as run:
        return outcome(run, measure_choice(run, model, sampling, evaluation, judge))
