"""Where the processes of one training meet: who am I, wrap the module, add numbers up, gather and scatter tensors.

torch's own stack (torchrun, DDP, FSDP2 ``fully_shard``): gloo on CPUs, nccl on GPUs. With one process nothing of it is
touched. The wrapped module is always ``TrainingStep``; results agree with one process to 5 digits
(tests/reca_core/test_distributed.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reca_core.contracts.errors import BadInput, RecaError
from reca_core.contracts.requests import TrainingPlan
from reca_core.device import choose_device
from reca_core.training.step import TrainingStep

Value = TypeVar("Value")

LOCAL_WORLD_VARIABLE = "LOCAL_WORLD_SIZE"
"""Set by torchrun: how many of the processes are on this machine."""
WAIT_MINUTES = 30
"""How long ranks wait for each other: saving a large checkpoint or drawing previews happens on rank 0 alone."""


@dataclass(frozen=True)
class Layout:
    """This process's place."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Rank 0 writes files and speaks."""
        return self.rank == 0


@contextlib.contextmanager
def joined(device_choice: str) -> Iterator[Layout]:
    """Join the process group that torchrun's environment describes, or be the only process; leave it afterwards.

    Not after a failure: gloo may abort a process that closes connections which a peer has closed, before it has said
    why it fails. Its end closes them as well (``reca_core.launch``).
    """
    device = choose_device(device_choice)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Layout(0, 1, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=WAIT_MINUTES))
    yield Layout(dist.get_rank(), world, device)
    dist.destroy_process_group()


def wrap(step: TrainingStep, layout: Layout, plan: TrainingPlan) -> nn.Module:
    """The module to call in training: ``step`` itself, DDP around it, or ``step`` with its parameters sharded in place.

    Args:
        step: on its device, with gradients switched as the stage wants them.
        layout: this process.
        plan: its ``sharding`` and ``shard_group``; with one process neither does anything.

    Raises BadInput where the processes cannot be divided into groups of ``shard_group``.
    """
    if layout.world == 1:
        return step
    if plan.sharding != "replicate":
        from reca_core.training.sharding import shard

        return shard(step, layout.device.type, layout.world, shard_group(layout, plan))
    devices = [layout.device] if layout.device.type == "cuda" else None
    # A term that is switched off leaves parameters without gradient, hence the search for unused ones.
    return DistributedDataParallel(step, devices, broadcast_buffers=False, find_unused_parameters=True)


def shard_group(layout: Layout, plan: TrainingPlan) -> int:
    """How many processes share one copy of the parameters."""
    if plan.sharding == "shard":
        return layout.world
    group = plan.shard_group or int(os.environ.get(LOCAL_WORLD_VARIABLE, layout.world))
    if layout.world % group:
        raise BadInput(
            f"{layout.world} processes cannot be divided into groups of {group}",
            field="training.shard_group",
            choices=[str(size) for size in range(1, layout.world + 1) if layout.world % size == 0],
        )
    return group


@contextlib.contextmanager
def local_gradients(module: nn.Module, last_pass: bool) -> Iterator[None]:
    """Keep DDP from adding up gradients before the last pass of a step. FSDP2 adds shards in every pass."""
    if isinstance(module, DistributedDataParallel) and not last_pass:
        with module.no_sync():
            yield
    else:
        yield


@contextlib.contextmanager
def callable_parts(module: nn.Module, sharded: bool) -> Iterator[None]:
    """Inside the block sub-modules may be called past ``forward``; by all ranks together where they are sharded."""
    if not sharded:
        yield
        return
    from reca_core.training.sharding import whole_parameters

    with whole_parameters(module):
        yield


def add_up(values: Float[Tensor, " numbers"], layout: Layout) -> Float[Tensor, " numbers"]:
    """The sum over all ranks, on every rank."""
    if layout.world > 1:
        dist.all_reduce(values)
    return values


def gather(value: Value, layout: Layout, group: dist.ProcessGroup | None = None) -> list[Value]:
    """Every rank's value, in rank order, on every rank; ``group`` holds all ranks, the default one if none is given."""
    if layout.world == 1:
        return [value]
    values: list[Any] = [None] * layout.world
    dist.all_gather_object(values, value, group=group)
    return values


def shared(work: Callable[[], Value], layout: Layout, group: dist.ProcessGroup | None = None) -> Value:
    """What ``work`` returns on rank 0, on every rank. What it raises of ours is raised on every rank."""
    if layout.world == 1:
        return work()
    said: list[Any] = [None, None]
    if layout.leads:
        try:
            said[0] = work()
        except RecaError as error:
            said[1] = error
    dist.broadcast_object_list(said, src=0, group=group)
    if said[1] is not None:
        raise said[1]
    result: Value = said[0]
    return result


def wait_for_all(layout: Layout) -> None:
    """Return when every rank is here."""
    if layout.world > 1:
        dist.barrier()


def whole(tensor: Tensor) -> Tensor:
    """A tensor's full value on the CPU; gathered where it is sharded, so every rank must call this."""
    if not is_sharded(tensor):
        return tensor.detach().cpu()
    from reca_core.training.sharding import gathered

    return gathered(tensor).detach().cpu()


def placed_like(value: Tensor, model: Tensor) -> Tensor:
    """``value`` on ``model``'s device, sharded as ``model`` is."""
    moved = value.to(model.device)
    if not is_sharded(model):
        return moved
    from reca_core.training.sharding import distributed_like

    return distributed_like(moved, model)


def sharded(layout: Layout, plan: TrainingPlan) -> bool:
    """True where no process holds the whole model."""
    return layout.world > 1 and plan.sharding != "replicate"


def is_sharded(tensor: Tensor) -> bool:
    """True for a DTensor, recognised without importing its module."""
    return hasattr(tensor, "full_tensor")
