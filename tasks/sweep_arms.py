"""The settings of a sweep as trainings, each with a name that says in what it differs from the others. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from reca_core.contracts.requests import LossTerms, TrainingPlan
from reca_core.contracts.sweep import SweepPlan


@dataclass(frozen=True)
class SweepArm:
    """One training of a sweep."""

    name: str
    losses: LossTerms
    training: TrainingPlan


def sweep_arms(sweep: SweepPlan, losses: LossTerms, training: TrainingPlan) -> list[SweepArm]:
    """Every learning rate with every set of weights, in the order in which they were written."""
    rates = sweep.learning_rates or [training.learning_rate]
    sets = sweep.loss_weights or [losses]
    return [
        SweepArm(_name(sweep, rate, weights), weights, training.model_copy(update={"learning_rate": rate}))
        for weights in sets
        for rate in rates
    ]


def _name(sweep: SweepPlan, rate: float, weights: LossTerms) -> str:
    """Such as ``lr 0.0003, weights 1 1 0 1``: the order of the weights is that of ``LossTerms``.

    The unconditional term is named where it has weight: no published recipe has it.
    """
    parts = [f"lr {rate!r}"] if sweep.learning_rates or not sweep.loss_weights else []
    if sweep.loss_weights:
        *always, unconditional = weights.model_dump().values()
        parts.append("weights " + " ".join(f"{weight:g}" for weight in always))
        parts += [f"unconditional {unconditional:g}"] if unconditional else []
    return ", ".join(parts)
