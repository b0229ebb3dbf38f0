"""The arms of a study as trainings: which losses, which condition, how many steps, one after another. Pure.

Every arm spends the same number of optimizer steps; the one in two stages divides them (docs/tiny_protocol.md).
Repetition k of every arm has the same training seed, pictures and replay scenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reca_core.contracts.requests import CaptionSource, LossTerms, TrainingPlan
from reca_core.contracts.study import UNCONDITIONAL_SHARE, ArmName, StudyPlan


@dataclass(frozen=True)
class Leg:
    """One training of an arm."""

    losses: LossTerms
    training: TrainingPlan


@dataclass(frozen=True)
class Repetition:
    """What repetition k of every arm has in common."""

    number: int
    seed: int
    captions: CaptionSource

    @classmethod
    def of(cls, study: StudyPlan, captions: CaptionSource, training: TrainingPlan, number: int) -> Repetition:
        """Its replay scenes come right after those of the repetition before."""
        scenes = captions.seed + number * training.steps * training.images_per_step
        return cls(number, study.first_training_seed + number, captions.model_copy(update={"seed": scenes}))

    def seeded(self, leg: Leg) -> Leg:
        """The leg with this repetition's seed."""
        return Leg(leg.losses, leg.training.model_copy(update={"seed": self.seed}))


def legs(arm: ArmName, losses: LossTerms, training: TrainingPlan) -> tuple[Leg, ...]:
    """The trainings of an arm; ``losses`` are RecA's, every other arm changes one thing."""
    tuned = losses.model_copy(update={"reconstruction": 0.0, "text_to_image": losses.reconstruction})
    null = {"unconditional": UNCONDITIONAL_SHARE * losses.reconstruction}
    first = training.steps // 2
    made: Mapping[ArmName, tuple[Leg, ...]] = {
        "reca": (Leg(losses, training),),
        "fine-tuning": (Leg(tuned, training),),
        "reca-without-image-to-text": (Leg(losses.model_copy(update={"image_to_text": 0.0}), training),),
        "reca-own-tokens": (Leg(losses, training.model_copy(update={"condition": "own_tokens"})),),
        "fine-tuning-then-reca": (
            Leg(tuned, _steps(training, first)),
            Leg(losses, _steps(training, training.steps - first)),
        ),
        "reca-with-text-to-image": (Leg(losses.model_copy(update={"text_to_image": losses.reconstruction}), training),),
        "reca-with-unconditional": (Leg(losses.model_copy(update=null), training),),
        "unconditional": (Leg(losses.model_copy(update={"reconstruction": 0.0, **null}), training),),
    }
    return made[arm]


def _steps(training: TrainingPlan, steps: int) -> TrainingPlan:
    return training.model_copy(update={"steps": steps})
