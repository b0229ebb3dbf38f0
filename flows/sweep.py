"""The search: the same base trained with several learning rates or loss weights, and which setting is best."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    ImageSource,
    LossTerms,
    ModelChoice,
    SamplingSettings,
    TrainingPlan,
)
from reca_core.contracts.sweep import SweepPlan
from tasks.arms import stages_of_arms
from tasks.find_model import find_model
from tasks.form import titled
from tasks.outcome import outcome
from tasks.preflight import preflight
from tasks.prepare import prepare
from tasks.run import pipeline_run
from tasks.sweep import conclude_sweep, measure_settings
from tasks.trainings import Trainings
from tasks.validate import check


@flow(name="sweep")
@titled
def sweep(
    images: ImageSource = ImageSource(),
    model: ModelChoice = ModelChoice(),
    losses: LossTerms = LossTerms(),
    captions: CaptionSource = CaptionSource(),
    training: TrainingPlan = TrainingPlan(),
    sampling: SamplingSettings = SamplingSettings(),
    evaluation: EvaluationPlan = EvaluationPlan(),
    judge: JudgeSettings = JudgeSettings(),
    sweep: SweepPlan = SweepPlan(),
) -> Outcome:
    """Train one base with several learning rates or loss weights, measure all of them, and name the best.

    Args:
        images: Which pictures to learn from.
        model: Which model every setting starts from.
        losses: Weights of the loss terms, unless the sweep tries several.
        captions: Where captions and questions of the replay terms come from.
        training: How to train, but for what the sweep changes.
        sampling: How pictures are drawn.
        evaluation: What to measure; the first benchmark decides which setting is best.
        judge: Who judges.
        sweep: Which settings to try.
    """
    check(images, model, losses, captions, training, sampling, evaluation, judge, sweep)
    with pipeline_run("sweep") as run:
        planned = Trainings.of_sweep(sweep, losses, captions, training)
        preflight(images, model, training, planned, evaluation)
        base = find_model(model)
        prepared = prepare(images)
        data = prepared.data
        cells = measure_settings(run, sweep, base, data, losses, captions, training, sampling, evaluation, judge)
        concluded = conclude_sweep(run, sweep, cells, losses, training, evaluation)
        return outcome(run, [prepared, *stages_of_arms(cells), concluded])
