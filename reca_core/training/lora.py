"""LoRA: a linear layer's weight W is used as W + (alpha / rank) B A, and only A and B are trained (arXiv 2106.09685).

The layers come from peft, which is an extra of this project: ``pip install 'reca-pipeline[lora]'``. What is exported
is W + (alpha / rank) B A under W's own name, so a checkpoint trained this way is an ordinary one.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.requests import TrainingPlan
from reca_core.draws import keyed_generator
from reca_core.training.blocks import repeated_blocks
from reca_core.training.distributed import whole
from reca_core.training.optimizer import set_modes

PACKAGE = "peft"
ADDITIONS = "lora_"
"""What peft puts into the names of the parameters that it adds."""
WRAPPED = ".base_layer."
"""What it puts into the names of the weights that it wraps."""
ADAPTER = "default"
"""peft's name for the only set of additions."""


def add(network: nn.Module, plan: TrainingPlan) -> list[str]:
    """Put additions beside the chosen linear layers and freeze everything else; returns the weights they belong to.

    Args:
        network: with gradients switched as the stage wants them without LoRA.
        plan: rank, alpha and module names; the seed decides the additions' first values.

    Raises PrerequisiteMissing without peft, BadInput where no layer is chosen.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise PrerequisiteMissing(
            "LoRA needs the package peft", field="training.lora_rank", remedy="pip install 'reca-pipeline[lora]'"
        )
    from peft import LoraConfig, inject_adapter_in_model

    chosen = targets(network, plan.lora_modules)
    config = LoraConfig(
        r=plan.lora_rank, lora_alpha=plan.lora_alpha, target_modules="|".join(re.escape(name) for name in chosen)
    )
    with torch.random.fork_rng():
        torch.manual_seed(keyed_generator(plan.seed, PACKAGE, 0).initial_seed())
        inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(ADDITIONS in name)
    set_modes(network)
    return [f"{name}.weight" for name in chosen]


def targets(network: nn.Module, wanted: Iterable[str]) -> list[str]:
    """Names of the linear layers that get additions.

    Args:
        network: with gradients switched as the stage wants them without LoRA.
        wanted: last parts of names; none takes every trained linear layer inside the repeated layers.

    Raises BadInput naming the choices.
    """
    trained = dict(_trained_linears(network))
    last = {name: name.rsplit(".", 1)[-1] for name in trained}
    unknown = sorted(set(wanted) - set(last.values()))
    inside = {id(module) for block in repeated_blocks(network) for module in block.modules()}
    chosen = [name for name in trained if (last[name] in wanted if wanted else id(trained[name]) in inside)]
    if unknown or not chosen:
        raise BadInput(
            f"no linear layer that this stage trains is called {', '.join(unknown)}"
            if unknown
            else "this stage trains no linear layer",
            field="training.lora_modules",
            choices=sorted(set(last.values())),
        )
    return chosen


def _trained_linears(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """A weight that two modules share has one name only, so a head tied to an embedding is not among them."""
    named = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    for name, module in network.named_modules():
        if type(module) is nn.Linear and f"{name}.weight" in named:
            yield name, module


def plain(name: str) -> str:
    """A wrapped weight's own name."""
    return name.replace(WRAPPED, ".")


def merged(network: nn.Module) -> Iterator[tuple[str, Float[Tensor, "out in"]]]:
    """Every chosen weight with its additions added in, on the CPU, under its own name; all ranks must take part."""
    from peft.tuners.lora import LoraLayer

    for name, module in network.named_modules():
        if isinstance(module, LoraLayer):
            down, up = (whole(part[ADAPTER].get_parameter("weight")) for part in (module.lora_A, module.lora_B))
            weight = whole(module.get_base_layer().get_parameter("weight"))
            yield f"{name}.weight", weight + up @ down * module.scaling[ADAPTER]


def idle_weights(idle_additions: Iterable[str]) -> list[str]:
    """The weights none of whose additions ever had a gradient, from the names of such additions."""
    return sorted({f"{name.split(f'.{ADDITIONS}')[0]}.weight" for name in idle_additions})
