"""What the trainings of a run need together: memory of those that run beside each other, disks for everything.

Each fits alone or has been refused for itself (tasks/preflight.py). Results stay where they are, so on disk all
trainings add up; file systems are told apart, because downloads, results and frozen features may lie on several.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reca_core.contracts.base import Record
from reca_core.contracts.disks import Filling, Put, fillings
from reca_core.contracts.estimate import (
    CUDA_CONTEXT,
    Estimate,
    checkpoints_at_once,
    checkpoints_left,
    sized,
)
from reca_core.contracts.home import Home
from reca_core.contracts.requests import TrainingPlan
from tasks.trainings import dearest

RESULTS, DOWNLOAD, SAMPLES, FEATURES = "trainings", "download", "samples", "frozen features"
FEWEST: dict[str, object] = {"keep_checkpoints": 1, "best_by": "off"}
"""The settings with which checkpoints take least."""


class StageNeed(Record):
    """One training of the run, or several that need the same."""

    stage: str
    """Such as fine-tune, train, ``train lr 0.0001 and 2 like it``."""
    training: TrainingPlan = TrainingPlan()
    trainings: int = 1
    """How many are still to be done."""
    measured: bool = True
    """Whether pictures are drawn from their weights."""
    written: list[int] = []
    """Bytes on disk of earlier attempts, by training."""
    estimate: Estimate | None = None
    unknown: str = ""
    """Why there is no estimate; empty where there is one."""
    seconds: float | None = None
    """All steps of all of them, at the speed of an earlier run; None where there was none."""
    seconds_from: str = ""
    """That run's directory."""


class Shortage(Record):
    """Why the whole does not fit where every part does, and what would make it fit."""

    fact: str
    field: str
    choices: list[str]
    remedy: str


def side_by_side(stages: Sequence[StageNeed], at_a_time: int) -> Shortage | None:
    """Trainings that run at the same time, on one machine and from its first GPU on; None where they fit."""
    known = [(stage.trainings, stage.estimate) for stage in stages if stage.estimate]
    together = min(at_a_time, sum(count for count, _ in known))
    if together < 2:
        return None
    hosts = [(answer.need.host_peak + answer.processes * answer.imports, count) for count, answer in known]
    gpus = [(answer.need.device_peak + CUDA_CONTEXT, count) for count, answer in known]
    free = min((answer.host_available for _, answer in known if answer.host_available is not None), default=None)
    free_gpu = min((size for _, answer in known for size in answer.device_available), default=None)

    def short(count: int) -> list[str]:
        needs = (("host memory", dearest(hosts, count), free), ("GPU memory", dearest(gpus, count), free_gpu))
        return [
            f"{what}: {sized(needed)} needed, {sized(there)} free"
            for what, needed, there in needs
            if there is not None and needed > there
        ]

    found = short(together)
    if not found:
        return None
    most = next((count for count in range(together - 1, 0, -1) if not short(count)), 1)
    return Shortage(
        fact=f"{together} trainings at a time do not fit: {'; '.join(found)}",
        field="sweep.parallel_trainings",
        choices=[f"sweep.parallel_trainings={most}"],
        remedy="so many fit beside each other; training.preflight=off starts it all the same",
    )


def disks(home: Home, stages: Sequence[StageNeed], at_a_time: int, download: int, cache: Path) -> list[Filling]:
    """What every file system will receive.

    Args:
        download: bytes.
        cache: where downloads go.
    """
    known = [stage for stage in stages if stage.estimate]
    puts = (
        Put(RESULTS, home.root / "runs", results_bytes(known, at_a_time)),
        Put(SAMPLES, home.root / "samples", _samples_bytes(known)),
        Put(
            FEATURES, home.features, max((stage.estimate.need.features for stage in known if stage.estimate), default=0)
        ),
        Put(DOWNLOAD, cache, download),
    )
    return fillings([put for put in puts if put.bytes])


def results_bytes(stages: Sequence[StageNeed], at_a_time: int, fewest: bool = False) -> int:
    """Of all trainings at their fullest, less what earlier attempts have left; ``fewest``: with ``FEWEST``.

    That is while the last one, or those that run beside each other, write a checkpoint beside those that stay.
    """
    left, passing = 0, []
    for stage in stages:
        if stage.estimate is None:
            continue
        need, plan = stage.estimate.need, stage.training
        plan = plan.model_copy(update=FEWEST) if fewest else plan
        stays = need.checkpoint * checkpoints_left(plan) + need.final
        left += sum(max(stays - size, 0) for size in stage.written or [0] * stage.trainings)
        passing.append((need.checkpoint * (checkpoints_at_once(plan) - checkpoints_left(plan)), stage.trainings))
    return left + dearest(passing, at_a_time)


def _samples_bytes(stages: Sequence[StageNeed]) -> int:
    """At most; an estimate counts those of a training and those of the model it starts from, which are drawn once."""
    drawn = max((stage.estimate.need.samples for stage in stages if stage.estimate), default=0) // 2
    return drawn * (1 + sum(stage.trainings for stage in stages if stage.measured))


def overfull(found: Sequence[Filling], stages: Sequence[StageNeed], at_a_time: int) -> Shortage | None:
    """The first file system that has too little room; None where all have enough."""
    filling = next((filling for filling in found if filling.needed > filling.free), None)
    if filling is None:
        return None
    parts = ", ".join(f"{what} {sized(size)}" for what, size in filling.parts.items())
    choices = _smaller(filling, stages, at_a_time)
    results, download = RESULTS in filling.parts, DOWNLOAD in filling.parts
    elsewhere = [
        f"{name} for {what}"
        for name, what, here in (("RECA_HOME", "results", results or not download), ("HF_HOME", "downloads", download))
        if here
    ]
    advice = f"make room, or name a directory on a larger disk ({', '.join(elsewhere)})"
    return Shortage(
        fact=f"the disk does not suffice at {filling.place}: {sized(filling.needed)} needed ({parts}), "
        f"{sized(filling.free)} free",
        field="training" if results else "model.source" if download else "training.feature_cache",
        choices=choices,
        remedy=f"{'each choice was added up and fits; ' if choices else ''}{advice}; "
        "training.preflight=off starts it all the same",
    )


def _smaller(filling: Filling, stages: Sequence[StageNeed], at_a_time: int) -> list[str]:
    """Settings with which it would fit."""
    saved = filling.parts[RESULTS] - results_bytes(stages, at_a_time, fewest=True) if RESULTS in filling.parts else 0
    fewer = " ".join(f"training.{name}={value}" for name, value in FEWEST.items())
    ways = (
        ("training.feature_cache=auto", filling.parts.get(FEATURES, 0)),
        (fewer, saved),
        (f"training.feature_cache=auto {fewer}", saved + filling.parts.get(FEATURES, 0)),
    )
    fitting = [words for words, less in ways if less and filling.needed - less <= filling.free]
    return fitting[:1]
