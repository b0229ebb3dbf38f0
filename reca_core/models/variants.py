"""What a person may ask of a family beside the published settings, and what no family may silently ignore.

Training: its documented slips, another bottleneck. A family that has any of it follows ``VariesTraining``; one that has
none refuses what is asked. What was used is written into the checkpoint's own configuration and its card.
Drawing: 0 and "published" mean what the checkpoint was published with (its configuration); the rest is a departure.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import SamplingSettings, TrainingPlan
from reca_core.models.unified import UnifiedModel

TRAINING: dict[str, object] = {
    "upstream_parity": False,
    "understanding_downscale": 0,
    "understanding_picture": "published",
    "attention": "dense",
}
DRAWING: dict[str, object] = {"steps": 0, "image_guidance_scale": 0.0, "renorm": "published"}
"""The fields of a plan and of the sampling settings that not every family has, and their values as published."""


@runtime_checkable
class VariesTraining(Protocol):
    """A family whose published training had slips that can be repeated, or whose bottleneck can be chosen."""

    parity: str
    """The slips that ``upstream_parity`` repeats, in words; empty where there are none."""
    parity_average: float
    """Decay of the moving average that upstream exported by mistake instead of the weights; 0 where it did not."""
    undecayed: tuple[str, ...]
    """Prefixes of parameters that the published training left out of weight decay, besides all vectors."""

    def following(self, plan: TrainingPlan) -> UnifiedModel:
        """The same weights, trained as the plan says. Raises BadInput for what the family does not have."""
        ...


def following(adapter: UnifiedModel, plan: TrainingPlan) -> UnifiedModel:
    """The adapter as the plan wants it. Raises BadInput naming what the family does not have."""
    if isinstance(adapter, VariesTraining):
        return adapter.following(plan)
    refuse_others(adapter.family, plan, ())
    return adapter


def refuse_others(family: str, settings: TrainingPlan | SamplingSettings, known: Collection[str]) -> None:
    """Raises BadInput for a field outside ``known`` that is not as published."""
    part, table = ("training", TRAINING) if isinstance(settings, TrainingPlan) else ("sampling", DRAWING)
    for name, published in table.items():
        if name not in known and getattr(settings, name) != published:
            raise BadInput(
                f"the family {family} has no such choice",
                field=f"{part}.{name}",
                choices=(str(published),),
                remedy="docs/families.md lists what each family can vary",
            )


def rounds_of(settings: SamplingSettings, published: int, tokens: int) -> int:
    """Rounds to draw ``tokens`` in. Raises BadInput where there are more of them than tokens."""
    rounds = settings.steps or published
    if rounds > tokens:
        raise BadInput(
            f"{rounds} rounds cannot draw {tokens} tokens", field="sampling.steps", remedy=f"at most {tokens}"
        )
    return rounds


def parity_average(adapter: UnifiedModel, plan: TrainingPlan) -> float:
    """Decay of the average that is exported instead of the weights; 0 in every correct training."""
    return adapter.parity_average if plan.upstream_parity and isinstance(adapter, VariesTraining) else 0.0


def undecayed(adapter: UnifiedModel) -> tuple[str, ...]:
    """Prefixes of parameters without weight decay, besides all vectors."""
    return adapter.undecayed if isinstance(adapter, VariesTraining) else ()


def slips(adapter: UnifiedModel, plan: TrainingPlan) -> str:
    """What was repeated of the published training, in words, for a checkpoint's card; empty for the correct one."""
    return adapter.parity if plan.upstream_parity and isinstance(adapter, VariesTraining) else ""
