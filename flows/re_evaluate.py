"""Measure registered versions again; what was measured with the same weights, rules and judge is found."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import EvaluationPlan, SamplingSettings, VersionChoice
from tasks.find_model import find_versions
from tasks.form import titled
from tasks.measure import measure
from tasks.outcome import outcome
from tasks.run import pipeline_run
from tasks.validate import check


@flow(name="re-evaluate")
@titled
def re_evaluate(
    versions: VersionChoice = VersionChoice(),
    sampling: SamplingSettings = SamplingSettings(),
    evaluation: EvaluationPlan = EvaluationPlan(),
    judge: JudgeSettings = JudgeSettings(),
) -> Outcome:
    """Measure the versions behind aliases, such as champion and challenger.

    Args:
        versions: Which registered versions to measure.
        sampling: How pictures are drawn.
        evaluation: What to measure.
        judge: Who judges.
    """
    check(versions, sampling, evaluation, judge)
    with pipeline_run("re-evaluate") as run:
        found = find_versions(versions)
        judged = [
            measure(run, name, model, sampling, evaluation, judge)
            for model in found.models
            for name in evaluation.benchmarks
        ]
        return outcome(run, [found, *judged])
