"""The trainings that make a tiny base out of its start (reca_core/make_tiny.py): one of the decoder, then pretraining.

Every family's ``tiny_start`` lists its own STAGES; what they have in common is here. Scenes of captions and questions
begin at 500,000, those of the decoder at 300,000; what is measured uses scenes below 20,000.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from reca_core.contracts.requests import CaptionSource, LossTerms, TrainingPlan

SIDE_PIXELS = 16
"""Of the pictures that tiny models see and draw."""


@dataclass(frozen=True)
class Stage:
    """One training and what it asks about."""

    plan: TrainingPlan
    captions: CaptionSource = CaptionSource()
    losses: LossTerms = LossTerms()

    def with_plan(self, **changed: Any) -> Stage:
        """The same with other settings of the plan."""
        return replace(self, plan=self.plan.model_copy(update=changed))


DECODER = Stage(
    TrainingPlan(
        stage="decoder",
        steps=860,
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=20,
        checkpoint_every_steps=200,
        preview_every_steps=200,
    )
)
"""Pictures from what the encoder, which is set, says of them."""


def base_stage(
    *, seed: int, steps: int, learning_rate: float, warmup_steps: int, image_to_text: float, captions: CaptionSource
) -> Stage:
    """A stage of pretraining. Captions name objects only nine times in ten: it learns to read colours, counts and
    places, and hardly to draw by them. It never reconstructs: that is what post-training is for."""
    plan = TrainingPlan(
        stage="base",
        steps=steps,
        learning_rate=learning_rate,
        schedule="cosine",
        warmup_steps=warmup_steps,
        checkpoint_every_steps=100,
        preview_every_steps=1000,
        seed=seed,
    )
    losses = LossTerms(reconstruction=0, image_to_text=image_to_text, text_to_image=1, text=1)
    return Stage(plan, captions, losses)


BASE = base_stage(
    seed=0,
    steps=3600,
    learning_rate=1.5e-3,
    warmup_steps=50,
    image_to_text=2,
    captions=CaptionSource(rich_fraction=0.1, seed=500_000, described_fraction=0.15, finding_fraction=0.3),
)
"""Everything from the first step on, one schedule."""
