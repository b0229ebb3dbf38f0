"""Measure registered versions again, report what moved, and let the better one be champion."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import EvaluationPlan, SamplingSettings, VersionChoice
from reca_core.contracts.versions import Promotion
from tasks.drift import drift
from tasks.find_model import find_versions
from tasks.form import titled
from tasks.measure import measure, occasion
from tasks.outcome import outcome
from tasks.promote import check_approvable, promote
from tasks.run import pipeline_run
from tasks.schedule import drop_missed
from tasks.validate import check
from tasks.version_notes import note_scores


@flow(name="re-evaluate")
@titled
def re_evaluate(
    versions: VersionChoice = VersionChoice(),
    sampling: SamplingSettings = SamplingSettings(),
    evaluation: EvaluationPlan = EvaluationPlan(),
    judge: JudgeSettings = JudgeSettings(),
    promotion: Promotion = Promotion(),
) -> Outcome:
    """Measure the versions behind aliases, such as champion and challenger.

    Args:
        versions: Which registered versions to measure.
        sampling: How pictures are drawn.
        evaluation: What to measure.
        judge: Who judges.
        promotion: Whether the challenger becomes champion.
    """
    check(versions, sampling, evaluation, judge, promotion)
    check_approvable(promotion)
    with pipeline_run("re-evaluate") as run:
        drop_missed()
        found = find_versions(versions)
        judged = [
            measure(run, name, model, sampling, evaluation, judge, occasion(run, versions))
            for model in found.models
            for name in evaluation.benchmarks
        ]
        drifts = [drift(run, found, one, evaluation) for one in judged]
        noted = note_scores(run, found, judged)
        promoted = promote(run, found, judged, evaluation, promotion)
        drop_missed()  # what came due while this was measured
        return outcome(run, [found, *judged, *drifts, noted, *promoted])
