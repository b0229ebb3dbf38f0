"""Half of the story: pictures and a model go in; a registered checkpoint comes out."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import (
    CaptionSource,
    FineTuning,
    ImageSource,
    LossTerms,
    ModelChoice,
    Registration,
    TrainingPlan,
)
from tasks.find_model import find_model
from tasks.fine_tune import fine_tune, start
from tasks.form import titled
from tasks.outcome import outcome
from tasks.preflight import preflight
from tasks.prepare import prepare
from tasks.register import register
from tasks.run import pipeline_run
from tasks.train import train
from tasks.trainings import Trainings
from tasks.validate import check


@flow(name="post-train")
@titled
def post_train(
    images: ImageSource = ImageSource(),
    model: ModelChoice = ModelChoice(),
    losses: LossTerms = LossTerms(),
    captions: CaptionSource = CaptionSource(),
    training: TrainingPlan = TrainingPlan(),
    fine_tuning: FineTuning = FineTuning(),
    registration: Registration = Registration(),
) -> Outcome:
    """Post-train a model with Reconstruction Alignment and register it.

    Args:
        images: Which pictures to learn from.
        model: Which model to start from.
        losses: Weights of the loss terms.
        captions: Where captions and questions of the replay terms come from.
        training: How to train.
        fine_tuning: Fine-tuning on captions before, if any.
        registration: Under which name the trained model is kept.
    """
    check(images, model, losses, captions, training, fine_tuning, registration)
    with pipeline_run("post-train") as run:
        preflight(images, model, training, Trainings.chain(losses, captions, training, fine_tuning))
        base = find_model(model)
        prepared = prepare(images)
        tuned = fine_tune(run, base, prepared.data, fine_tuning, captions, training)
        trained = train(run, start(base, tuned), prepared.data, losses, captions, training)
        registered = register(run, trained, registration)
        return outcome(run, [prepared, *tuned, trained, registered])
