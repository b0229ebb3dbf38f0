"""What a study asks for: which arms, how many repetitions. The claims and rules are in docs/tiny_protocol.md.

An arm is a way to spend the same number of optimizer steps on the same base. Tuning uses seeds below
``FIRST_REPORTING_SEED``, reporting uses seeds from there on, for training and drawing alike.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import ConfigDict, Field

from reca_core.contracts.base import Config

ArmName = Literal[
    "reca",
    "fine-tuning",
    "reca-without-image-to-text",
    "reca-own-tokens",
    "fine-tuning-then-reca",
    "reca-with-text-to-image",
    "reca-with-unconditional",
    "unconditional",
]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
FIRST_STUDY: tuple[ArmName, ...] = ARMS[:6]
"""What docs/tiny.md reports first. The others came later and are judged on seeds of their own."""
UNCONDITIONAL_SHARE = 0.1
"""Weight of the unconditional term, per weight of reconstruction, in the arms that have it."""


class StudyPlan(Config):
    """Which arms are trained, and how often."""

    model_config = ConfigDict(title="Study")

    arms: list[ArmName] = Field(list(FIRST_STUDY), min_length=1, title="Arms")
    """reca is what losses says; every other arm changes one thing of it. The base is always measured."""
    repetitions: int = Field(3, ge=1, le=100, title="Repetitions")
    """Trainings per arm. Each has its own seed, hence its own order of pictures and instructions, and its own replay
    scenes."""
    first_training_seed: int = Field(1000, ge=0, title="First training seed")
    """Seeds from 1000 on report, those below tune; they go together with evaluation.first_seed."""
