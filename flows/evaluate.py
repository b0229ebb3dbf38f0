"""Measure one model, whoever made it."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import EvaluationPlan, ModelChoice, SamplingSettings
from tasks.find_model import find_model
from tasks.measure import measure
from tasks.outcome import outcome
from tasks.run import pipeline_run
from tasks.validate import check


@flow(name="evaluate")
def evaluate(
    model: ModelChoice = ModelChoice(),
    sampling: SamplingSettings = SamplingSettings(),
    evaluation: EvaluationPlan = EvaluationPlan(),
) -> Outcome:
    """Measure one model on benchmarks.

    Args:
        model: Which model to measure.
        sampling: How pictures are drawn.
        evaluation: What to measure.
    """
    check(model, sampling, evaluation)
    with pipeline_run("evaluate") as run:
        found = find_model(model)
        judged = [measure(run, name, found, sampling, evaluation) for name in evaluation.benchmarks]
        return outcome(run, judged)
