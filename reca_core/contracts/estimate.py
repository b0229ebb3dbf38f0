"""What a training will need: the request and the answer of ``python -m reca_core.launch estimate``.

All sizes are bytes. Which parts there are, how each was found and how far it may be off: ``reca_core.training.needs``
and docs/operations.md.
"""

from __future__ import annotations

import math
from typing import Self

from pydantic import model_validator

from reca_core.contracts.base import Config, Record, unhashed
from reca_core.contracts.requests import CaptionSource, LossTerms, TrainingPlan

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SMALL_BYTES = 64 * MIB
"""Weights of a model whose memory is nobody's worry."""
CUDA_CONTEXT = 600 * MIB
"""Of a process's GPU memory, before any tensor; not measured here."""
MOMENTS = 2
"""AdamW's, each as large as the parameter."""
Changes = dict[str, int | bool | float | str]
"""Training settings by name."""


class EstimateRequest(Config):
    """One estimate, complete."""

    family: str
    """Registry key of the family."""
    path: str = ""
    """Absolute checkpoint directory. Empty: a published size, which need not be on this disk."""
    size: str = ""
    """Instead of a path: key of ``models.published_sizes.PUBLISHED``."""
    losses: LossTerms
    captions: CaptionSource
    training: TrainingPlan
    picture_pixels: int = 1024
    """Side of the pictures, where the family keeps their sizes (BAGEL)."""
    pictures: int = 0
    """How many there are; 0 is not known."""
    samples: int = 0
    """Pictures that will be drawn for measuring."""
    directory: str = unhashed()
    """Absolute directory on the disk that receives the results."""
    written: int = unhashed(0)
    """Bytes of an earlier attempt that lie there and that this one takes the place of."""
    feature_directory: str = unhashed("")
    """Absolute directory of frozen features. Empty: they are not counted."""
    answer: str = unhashed()
    """Absolute path of the JSON file, an ``Estimate``, that is written."""

    @model_validator(mode="after")
    def _one_of_path_and_size(self) -> Self:
        if bool(self.path) == bool(self.size):
            raise ValueError(f"path and size: exactly one is needed, not {self.path!r} and {self.size!r}")
        return self


class Need(Record):
    """What one training needs with one set of settings."""

    changed: Changes = {}
    """Training settings in which it differs from what was asked."""
    images_per_pass: int
    """Pictures of one forward pass of one process."""
    process: dict[str, int]
    """Part -> bytes of one process on its device at the peak of a step. On a CPU the device is the host."""
    device_peak: int
    """Most bytes on one GPU; 0 on a CPU."""
    host: dict[str, int]
    """Moment -> bytes of host memory that all processes of one machine have allocated then, without their imports."""
    host_peak: int
    """The most of these."""
    checkpoint: int
    """One checkpoint on disk."""
    checkpoints_kept: int
    """Most at one time: those that are kept, the best, and the one being written."""
    final: int
    """The finished model on disk, and that of the moving average."""
    samples: int
    """Pictures drawn for measuring, at most."""
    features: int = 0
    """Frozen features that are still to be written where the plan insists on them, at least. What ``auto`` keeps never
    takes the room of anything else (``reca_core.training.feature_choice``)."""

    @property
    def disk(self) -> int:
        """Everything on disk at its largest."""
        return self.checkpoint * self.checkpoints_kept + self.final + self.samples + self.features


class Estimate(Record):
    """The answer."""

    device: str
    """cpu or cuda."""
    processes: int
    """On each machine."""
    published: bool
    """True where the sizes are those of a published model and not read from the weights in question."""
    parameters: dict[str, int]
    """Type -> how many."""
    trained: int
    """How many of them have a gradient."""
    need: Need
    imports: int
    """Host memory of one process before it loads anything."""
    host_available: int | None
    """Of this machine, or below a limit on this process's control groups where that is less; None is not known."""
    device_available: list[int]
    """Free on every GPU."""
    disk_available: int
    """On the disk that receives the results: free, or taken by an earlier attempt at the same training."""
    features_available: int | None = None
    """Free on the disk of the frozen features, where that is another one."""
    shortages: list[str] = []
    """What does not fit, in words; empty where everything does."""
    remedies: list[Need] = []
    """Changes of settings with which it was estimated again and fits."""
    notes: list[str] = []
    """What is not counted or not certain."""


def checkpoint_bytes(trained: int, plan: TrainingPlan) -> int:
    """One checkpoint, of so many bytes of trained weights: these, the optimizer's state, the moving average."""
    return trained * (1 + MOMENTS + (plan.ema_decay > 0))


def final_bytes(weights: int, plan: TrainingPlan) -> int:
    """The finished model, and that of the moving average."""
    return weights * (1 + (plan.ema_decay > 0))


def checkpoints_left(plan: TrainingPlan) -> int:
    """How many stay when the training is over, at most: the newest, and the best."""
    return min(_saves(plan), plan.keep_checkpoints + (plan.best_by != "off"))


def checkpoints_at_once(plan: TrainingPlan) -> int:
    """The same while one more is being written."""
    return min(_saves(plan), plan.keep_checkpoints + (plan.best_by != "off") + 1)


def _saves(plan: TrainingPlan) -> int:
    return math.ceil(plan.steps / plan.checkpoint_every_steps)


def sized(size: int) -> str:
    """Such as ``1.5 GiB``, ``12 MiB``, ``3 KiB``."""
    if size >= GIB:
        return f"{size / GIB:.1f} GiB"
    return f"{size / MIB:.0f} MiB" if size >= MIB else f"{-(-size // KIB)} KiB"
