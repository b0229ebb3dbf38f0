"""Faults of a study that show in its arms: settings that are right for RecA alone and wrong for another arm.

Pure, as tasks/validate.py, which asks it. A study whose arms could not be told apart, or of which one would fail after
hours of the others, is refused before anything is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import LossTerms, TrainingPlan
from reca_core.contracts.study import ArmName, StudyPlan
from tasks.study_legs import Leg, legs

FEWEST_STEPS = 2
"""Of a stage: a schedule that falls to zero on its only step trains nothing."""


def arm_faults(study: StudyPlan, losses: LossTerms, training: TrainingPlan) -> Iterator[BadInput]:
    """What is wrong with the arms."""
    made = {arm: legs(arm, losses, training) for arm in dict.fromkeys(study.arms)}
    yield from _reca(losses, training)
    yield from _alike(made)
    yield from _stages(made, training)
    yield from _terms(made, training)


def _reca(losses: LossTerms, training: TrainingPlan) -> Iterator[BadInput]:
    """``losses`` and ``training`` are RecA's; the other arms are made from them."""
    if losses.reconstruction == 0:
        fact = "losses are RecA's in a study, and without reconstruction there is no RecA"
        yield BadInput(fact, field="losses.reconstruction", remedy="give it weight; the arms say who goes without")
    if training.condition != "understanding":
        fact = f"{training.condition} is the condition of an arm of its own"
        yield BadInput(fact, field="training.condition", remedy="leave it, and name reca-own-tokens in study.arms")
    if training.seed != TrainingPlan().seed:
        fact = f"the seed {training.seed} would not be used: every repetition has its own"
        yield BadInput(fact, field="training.seed", remedy="set study.first_training_seed")


def _alike(made: Mapping[ArmName, tuple[Leg, ...]]) -> Iterator[BadInput]:
    names = list(made)
    for place, name in enumerate(names):
        twins = [other for other in names[:place] if made[other] == made[name]]
        if twins:
            fact = f"with these losses {name} is {twins[0]}: the same training"
            yield BadInput(fact, field="study.arms", remedy="leave one out, or change the losses")


def _stages(made: Mapping[ArmName, tuple[Leg, ...]], training: TrainingPlan) -> Iterator[BadInput]:
    """An arm of several trainings divides the steps; each of them has its own warm-up and schedule."""
    for name, planned in made.items():
        if len(planned) < 2:
            continue
        shortest, fewest = min(leg.training.steps for leg in planned), max(FEWEST_STEPS, training.warmup_steps)
        if shortest < fewest:
            yield BadInput(
                f"a stage of {name} has {shortest} of {training.steps} steps, too few for a warm-up and a schedule",
                field="training.steps",
                remedy=f"at least {len(planned) * fewest}, or leave that arm out",
            )
        if training.schedule_steps:
            fact = f"a stage of {name} would end before its schedule of {training.schedule_steps} steps"
            yield BadInput(fact, field="training.schedule_steps", remedy="0 is each training's own length")


def _terms(made: Mapping[ArmName, tuple[Leg, ...]], training: TrainingPlan) -> Iterator[BadInput]:
    """What is asked of every arm is something that every arm has."""
    if training.best_by not in ("off", "loss"):
        without = _lacking(made, training.best_by)
        if without:
            fact = f"{without} computes no {training.best_by} loss"
            yield BadInput(fact, field="training.best_by", choices=("off", "loss"))
    if training.feature_cache == "on":
        without = _lacking(made, "reconstruction")
        if without:
            fact = f"{without} has no reconstruction, hence no features to keep"
            yield BadInput(fact, field="training.feature_cache", remedy="auto keeps what can be kept")


def _lacking(made: Mapping[ArmName, tuple[Leg, ...]], term: str) -> str:
    """Arms of which a training gives a term no weight."""
    return ", ".join(
        name for name, planned in made.items() if any(not leg.losses.model_dump()[term] for leg in planned)
    )
