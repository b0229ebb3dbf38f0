"""FSDP2: every process holds a part of each parameter and gathers it when a layer runs.

Apart from ``distributed`` because importing it takes half a second, which trainings without it need not pay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import register_dataclass

from reca_core.objectives.loss_sum import LossSum
from reca_core.training.step import TrainingStep


def shard(step: TrainingStep, device: str, world: int) -> TrainingStep:
    """Shard each repeated layer and then the rest, in place; returns ``step``."""
    # FSDP2 finds the tensors of an output through pytrees; without this it would not see those inside a LossSum.
    with contextlib.suppress(ValueError):  # already registered by an earlier call in this process
        register_dataclass(LossSum)
    mesh = init_device_mesh(device, (world,))
    for block in repeated_blocks(step.network):
        fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)
    return step


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The layers that stand in a list and that the network declares as indivisible (``_no_split_modules``).

    Both, because a declared module outside a list, such as a codebook, is read past its ``forward``.
    """
    names = {name for module in network.modules() for name in (getattr(module, "_no_split_modules", None) or ())}
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    return [layer for layers in lists for layer in layers if type(layer).__name__ in names]


@contextlib.contextmanager
def whole_parameters(module: nn.Module) -> Iterator[None]:
    """Inside the block sub-modules of a sharded module may be called past its ``forward``, by all ranks together.

    ``state_dict`` still gives shards there.
    """
    shards = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in shards:
        part.unshard()
    try:
        yield
    finally:
        for part in shards:
            part.reshard()


def gathered(tensor: Tensor) -> Float[Tensor, "..."]:
    """A sharded tensor's full value; every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distributed_like(value: Float[Tensor, "..."], model: Tensor) -> Tensor:
    """``value`` divided as ``model`` is."""
    if not isinstance(model, DTensor):
        return value
    return distribute_tensor(value, model.device_mesh, model.placements)
