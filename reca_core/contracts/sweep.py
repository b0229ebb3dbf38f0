"""What a sweep asks for: learning rates and weights of the loss terms to try on the same base, data and measure.

A sweep tunes: it looks for a setting. Whether the best one is better is for a measurement with other seeds to say
(docs/tiny_protocol.md: seeds below ``FIRST_REPORTING_SEED`` tune, those from there on report).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from reca_core.contracts.base import Config
from reca_core.contracts.requests import LossTerms

LearningRate = Annotated[float, Field(gt=0, le=1)]


class SweepPlan(Config):
    """Which settings are tried: every learning rate with every set of loss weights."""

    model_config = ConfigDict(title="Sweep")

    learning_rates: list[LearningRate] = Field([1e-4, 3e-4, 1e-3], max_length=64, title="Peak learning rates")
    """Each is one training per set of loss weights. Empty: the learning rate of the training above."""
    loss_weights: list[LossTerms] = Field([], max_length=64, title="Sets of loss weights")
    """Each is one training per learning rate. Empty: the loss terms above."""
    parallel_trainings: int = Field(1, ge=1, le=64, title="Trainings at a time")
    """More than one needs memory for as many, and in the stack a limit reca-accelerator of as many. No result depends
    on it."""
