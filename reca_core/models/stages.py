"""Which parameters a training stage may change, by the prefixes of their names. Every family has its own two tables."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from reca_core.contracts.errors import BadInput

Prefixes = Mapping[str, tuple[str, ...]]
"""Stage -> prefixes of names of parameters."""


def stage_names(family: str, network: nn.Module, stage: str, alone: Prefixes, left_alone: Prefixes) -> frozenset[str]:
    """Names of ``network``'s parameters that a stage changes.

    Args:
        alone: stages that change nothing but these.
        left_alone: stages that change everything but these.
    Raises: BadInput for a stage that is in neither, with the choices.
    """
    names = [name for name, _ in network.named_parameters()]
    if stage in alone:
        return frozenset(name for name in names if name.startswith(alone[stage]))
    if stage in left_alone:
        return frozenset(name for name in names if not name.startswith(left_alone[stage]))
    raise BadInput(
        f"{family} has no stage {stage!r}", field="training.stage", choices=tuple(sorted({*alone, *left_alone}))
    )
