"""Which parameters a stage changes, and how: freezing, AdamW with decay on matrices only, the learning rate's course.

Settings and their published values: ``TrainingPlan``; reference numbers per model in docs/numbers.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import TrainingPlan

MATRIX_DIMENSIONS = 2
"""Weight decay pulls matrices only: biases, norms and other vectors carry scale, not capacity."""


def set_trainable(network: nn.Module, names: frozenset[str]) -> None:
    """Weights in float32; gradients for ``names`` and nothing else; training mode only where something is trained.

    Frozen modules stay in evaluation mode, so that their dropout or batch statistics do not move either.

    Raises:
        BadInput: ``names`` is empty or holds a name that the network does not have.
    """
    parameters = dict(network.named_parameters())
    unknown = sorted(names - parameters.keys())
    if unknown or not names:
        raise BadInput(
            f"trainable parameters that do not exist: {unknown[:5]}" if unknown else "no parameter is trainable",
            field="training.stage",
            remedy="correct trainable_names of the family's adapter",
        )
    network.float()
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    set_modes(network)


def set_modes(network: nn.Module) -> None:
    """Training mode for modules that hold a parameter with a gradient, evaluation mode for all others."""
    for module in network.modules():
        module.training = any(parameter.requires_grad for parameter in module.parameters())


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with a gradient, by name, in the network's order."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], plan: TrainingPlan, undecayed: tuple[str, ...] = ()
) -> torch.optim.AdamW:
    """Fused AdamW over two groups: matrices with weight decay, vectors and what the family leaves out without.

    ``undecayed``: prefixes of names of the latter.
    """
    decayed = {
        name
        for name, parameter in parameters.items()
        if parameter.ndim >= MATRIX_DIMENSIONS and not name.startswith(undecayed)
    }
    groups: list[dict[str, Any]] = [
        {"params": [parameters[name] for name in parameters if name in decayed], "weight_decay": plan.weight_decay},
        {"params": [parameters[name] for name in parameters if name not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=plan.learning_rate,
        betas=(plan.beta1, plan.beta2),
        eps=plan.epsilon,
        fused=True,
    )


def learning_rate(plan: TrainingPlan, step: int) -> float:
    """Rate of a step, counted from 0: a ramp from 0 that reaches the peak on the last warm-up step, then the schedule.

    A run that ends with its warm-up is a pure ramp, as the published BAGEL run was (docs/numbers.md).
    """
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    if plan.schedule == "constant":
        return plan.learning_rate
    length = plan.schedule_steps or plan.steps
    progress = min(1.0, (step + 1 - plan.warmup_steps) / max(1, length - plan.warmup_steps))
    left = 1 - progress if plan.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return plan.learning_rate * left


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
