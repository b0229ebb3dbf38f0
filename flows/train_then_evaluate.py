"""The whole story: pictures and a model go in; a better model and the evidence for it come out."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    FineTuning,
    ImageSource,
    LossTerms,
    ModelChoice,
    Registration,
    SamplingSettings,
    TrainingPlan,
)
from tasks.compare import compare
from tasks.conclude import report
from tasks.find_model import find_model
from tasks.fine_tune import fine_tune, start
from tasks.form import titled
from tasks.measure import measure
from tasks.outcome import outcome
from tasks.preflight import preflight
from tasks.prepare import prepare
from tasks.register import register
from tasks.run import pipeline_run
from tasks.train import train
from tasks.trainings import Trainings
from tasks.validate import check
from tasks.version_notes import note_trained


@flow(name="train-then-evaluate")
@titled
def train_then_evaluate(
    images: ImageSource = ImageSource(),
    model: ModelChoice = ModelChoice(),
    losses: LossTerms = LossTerms(),
    captions: CaptionSource = CaptionSource(),
    training: TrainingPlan = TrainingPlan(),
    fine_tuning: FineTuning = FineTuning(),
    sampling: SamplingSettings = SamplingSettings(),
    evaluation: EvaluationPlan = EvaluationPlan(),
    judge: JudgeSettings = JudgeSettings(),
    registration: Registration = Registration(),
) -> Outcome:
    """Post-train a model with Reconstruction Alignment, register it, and measure what changed.

    Args:
        images: Which pictures to learn from.
        model: Which model to start from.
        losses: Weights of the loss terms.
        captions: Where captions and questions of the replay terms come from.
        training: How to train.
        fine_tuning: Fine-tuning on captions before, if any.
        sampling: How pictures are drawn.
        evaluation: What to measure.
        judge: Who judges.
        registration: Under which name the trained model is kept.
    """
    check(images, model, losses, captions, training, fine_tuning, sampling, evaluation, judge, registration)
    with pipeline_run("train-then-evaluate") as run:
        preflight(images, model, training, Trainings.chain(losses, captions, training, fine_tuning), evaluation)
        base = find_model(model)
        prepared = prepare(images)
        tuned = fine_tune(run, base, prepared.data, fine_tuning, captions, training)
        trained = train(run, start(base, tuned), prepared.data, losses, captions, training)
        registered = register(run, trained, registration)
        pairs = [
            compare(
                run,
                measure(run, benchmark, base, sampling, evaluation, judge),
                measure(run, benchmark, registered.model, sampling, evaluation, judge),
                evaluation,
            )
            for benchmark in evaluation.benchmarks
        ]
        noted = note_trained(run, registered, pairs)
        reported = report(run, prepared, trained, registered, pairs, evaluation)
        return outcome(run, [prepared, *tuned, trained, registered, *pairs, noted, reported])
