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
from reca_core.training.blocks import repeated_blocks
from reca_core.training.step import TrainingStep


def shard(step: TrainingStep, device: str, world: int, group: int) -> TrainingStep:
    """Shard each repeated layer and then the rest, in place; returns ``step``.

    Args:
        group: processes that share one copy of the parameters; below ``world`` the groups are replicas of each other
            (hybrid sharding), which keeps the gathering of parameters inside a group.
    """
    # FSDP2 finds the tensors of an output through pytrees; without this it would not see those inside a LossSum.
    with contextlib.suppress(ValueError):  # already registered by an earlier call in this process
        register_dataclass(LossSum)
    mesh = init_device_mesh(device, (world // group, group), mesh_dim_names=("replicas", "shards"))
    if group == world:
        mesh = mesh["shards"]
    for block in repeated_blocks(step.network):
        fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)
    return step


@contextlib.contextmanager
def whole_parameters(module: nn.Module) -> Iterator[None]:
    """Inside the block sub-modules of a sharded module may be called past its ``forward``, by all ranks together.

    ``state_dict`` still gives shards there. Layers stay whole after their own ``forward`` too: drawing calls them for
    every token, and each call would gather them again.
    """
    shards = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in shards:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in shards:
            part.reshard()
            part.set_reshard_after_forward(part is not module, recurse=False)  # as fully_shard has it


def gathered(tensor: Tensor) -> Float[Tensor, "..."]:
    """A sharded tensor's full value; every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def distributed_like(value: Float[Tensor, "..."], model: Tensor) -> Tensor:
    """``value`` divided as ``model`` is."""
    if not isinstance(model, DTensor):
        return value
    # Every rank has the value already, so none needs to be sent it.
    return distribute_tensor(value, model.device_mesh, model.placements, src_data_rank=None)
