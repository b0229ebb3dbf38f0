"""The layers that a network repeats, and two ways to run them: computed again on the way back, or compiled.

Both replace a layer's ``forward`` on the instance, so that no parameter changes its name and whatever is hooked to
calling the layer (FSDP2's gathering of parameters) stays outside of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from reca_core.contracts.requests import TrainingPlan
from reca_core.training.usage import computed_again

Forward = Callable[..., Any]


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The layers that stand in a list and that the network declares as indivisible (``_no_split_modules``).

    Both, because a declared module outside a list, such as a codebook, is read past its ``forward``.
    """
    names = {name for module in network.modules() for name in (getattr(module, "_no_split_modules", None) or ())}
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    return [layer for layers in lists for layer in layers if type(layer).__name__ in names]


def prepare_blocks(network: nn.Module, plan: TrainingPlan) -> None:
    """Compile the repeated layers, then make them forget their activations, as the plan says; before sharding."""
    for block in repeated_blocks(network):
        if plan.compile != "off":
            block.forward = torch.compile(block.forward, backend=plan.compile)  # type: ignore[method-assign]
        if plan.activation_checkpointing:
            block.forward = recomputed(block.forward)  # type: ignore[method-assign]


def recomputed(forward: Forward) -> Forward:
    """``forward`` that keeps its inputs alone and runs a second time for the gradients, with the same random state."""

    def run(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        return checkpoint(forward, *arguments, use_reentrant=False, context_fn=_contexts, **named)

    return run


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first run and of the second."""
    return contextlib.nullcontext(), computed_again()
