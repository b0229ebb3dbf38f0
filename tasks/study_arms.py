"""Training one arm of a study (``tasks/study_legs.py`` says what it is)."""

from __future__ import annotations

from collections.abc import Iterator

from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.requests import LossTerms, TrainingPlan
from reca_core.contracts.study import ArmName
from tasks.results import Trained
from tasks.run import RunContext
from tasks.study_legs import Repetition, legs
from tasks.train import train


def train_arm(
    run: RunContext,
    arm: ArmName,
    base: ResolvedModel,
    data: PreparedData,
    losses: LossTerms,
    training: TrainingPlan,
    repetition: Repetition,
) -> Iterator[Trained]:
    """The arm's trainings in order, each from the weights of the one before; found where they were made before."""
    model, planned = base, legs(arm, losses, training)
    for number, leg in enumerate(planned, 1):
        part = f", stage {number}" if len(planned) > 1 else ""
        trained = train(run, model, data, leg.losses, repetition.captions, repetition.seeded(leg).training)
        yield trained.model_copy(update={"stage": f"train {arm}, seed {repetition.seed}{part}"})
        model = trained.model(f"{arm}, seed {repetition.seed}")
