"""What the processes of one machine hold together at each moment of a training, from sizes that ``needs`` has found.

The moments are those of ``run``: loading, steps, previews, a checkpoint being written, and the end, whose checkpoint is
on disk before the export begins. Rank 0 writes a whole checkpoint and the finished model for all; in parts every rank
writes its own. On a GPU only what passes through the host's memory counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reca_core.contracts.requests import TrainingPlan
from reca_core.training.checkpoint_folder import FILE_BYTES, FILE_COPIES
from reca_core.training.distributed import Layout, shard_group

LOADING, STEP, SAVING, END = "loading", "a step", "a step while a checkpoint is written", "the end"
DRAWING = "previews"


@dataclass(frozen=True)
class Held:
    """Bytes that follow from the network alone."""

    weights: int
    narrowed: int
    """Bytes by which frozen weights have become less since they were loaded."""
    trained: int
    converted: int
    """Of the checkpoint's files in another type than float32, which is read beside the weights."""
    layer: int
    """The largest repeated layer."""
    outside: int
    """All that is outside of the repeated layers."""
    merged: int
    """Weights that LoRA adds to, which the end puts together."""
    largest: int
    """The largest trained tensor."""


def host_needs(plan: TrainingPlan, held: Held, saved: int, peak: int, on_cpu: bool, fed: int) -> dict[str, int]:
    """Moment -> bytes of all processes of one machine.

    Args:
        saved: bytes of a checkpoint's tensors.
        peak: of one rank in a step, on its device.
        fed: of one rank's batches that are made ahead.
    """
    ranks, share = plan.processes, ranks_of_a_copy(plan)
    resident = between_steps(plan, held, saved, share) * ranks if on_cpu else 0
    loaded = held.weights + held.narrowed
    stepping = peak * ranks * on_cpu + fed * ranks
    writing = _writing(plan, held, saved, share)
    together = exporting(plan, held, share, on_cpu)
    moments = {
        LOADING: (loaded + held.converted) * ranks,
        STEP: stepping,
        DRAWING: resident + (held.weights + fed) * ranks if on_cpu and share > 1 else 0,
        SAVING: stepping + writing if plan.checkpoint_every_steps < plan.steps else 0,
        END: resident + max(writing, together) + fed * ranks,
    }
    if not plan.checkpoint_in_background:
        moments[SAVING] = resident + writing + fed * ranks
    return {name: size for name, size in moments.items() if size}


def between_steps(plan: TrainingPlan, held: Held, saved: int, share: int) -> int:
    """Of one rank: weights, the state that a checkpoint has beside the trained ones, and DDP's buckets."""
    return (held.weights + saved - held.trained) // share + buckets(plan, held)


def buckets(plan: TrainingPlan, held: Held) -> int:
    """DDP's of one rank, from its first step to the end."""
    return held.trained if plan.processes * plan.nodes > 1 and plan.sharding == "replicate" else 0


def _divided(plan: TrainingPlan) -> bool:
    return plan.processes * plan.nodes > 1 and plan.sharding != "replicate"


def _writing(plan: TrainingPlan, held: Held, saved: int, share: int) -> int:
    """A checkpoint's copies on one machine: rank 0's of everything, or every rank's and the file that it writes."""
    world = plan.processes * plan.nodes
    in_parts = plan.checkpoint_format == "shards" or (plan.checkpoint_format == "auto" and _divided(plan))
    if world == 1 or not in_parts:
        return saved + _one_tensor(plan, held)
    file = min(saved // world, FILE_BYTES + held.largest // share)  # ranks share tensors out, not the bytes of a file
    return (saved // share + FILE_COPIES * file) * plan.processes


def exporting(plan: TrainingPlan, held: Held, share: int, on_cpu: bool) -> int:
    """Beside what stays: what rank 0 puts together, one tensor of each rank, and what the average is exchanged with."""
    loaded = held.weights + held.narrowed
    again = loaded + held.converted  # a fresh base
    if plan.lora_rank:
        together = again + held.merged
    elif _divided(plan) or (held.narrowed and not on_cpu):
        together = again + held.trained
    elif held.narrowed:  # the trained weights are where they were
        together = again
    else:
        together = 0 if on_cpu else loaded
    exchanged = held.trained // share * plan.processes if plan.ema_decay and on_cpu else 0
    return together + exchanged + _one_tensor(plan, held)


def _one_tensor(plan: TrainingPlan, held: Held) -> int:
    """Sharded ones are gathered one after another, by every rank."""
    return held.largest * plan.processes if _divided(plan) else 0


def ranks_of_a_copy(plan: TrainingPlan) -> int:
    """How many ranks hold one copy of the weights together."""
    world = plan.processes * plan.nodes
    if world == 1 or plan.sharding == "replicate":
        return 1
    if plan.sharding == "hybrid" and not plan.shard_group:
        return plan.processes
    return shard_group(Layout(0, world, torch.device("cpu")), plan)
