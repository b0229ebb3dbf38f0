"""``python -m reca_core.launch estimate REQUEST.json``: whether a training fits, and what would make it fit.

What it needs is found by ``reca_core.training.needs``. What there is: the GPUs' free memory as the driver says, the
host's as the kernel says (``reca_core.training.host_memory``), the free disk. What does not fit is estimated again with
one setting changed at a time, then with several together, and only changes that fit are named.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from reca_core.contracts import disks
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.estimate import CUDA_CONTEXT, KIB, Changes, Estimate, EstimateRequest, Need, sized
from reca_core.contracts.files import write_json
from reca_core.contracts.requests import TrainingPlan
from reca_core.contracts.stages import AUTOENCODER_STAGES
from reca_core.device import choose_device
from reca_core.training.host_memory import host_available
from reca_core.training.lora import PACKAGE as LORA_PACKAGE
from reca_core.training.needs import Measured, measure

log = logging.getLogger(__name__)

LORA_RANK = 16
"""The rank that is tried as a remedy."""
MOST_RANKS = 64
"""Sharding is tried over 2, 4, ... so many GPUs."""


def main(request: EstimateRequest) -> None:
    """Write the estimate. Raises what loading the model or the captions raises."""
    imports = resident()
    write_json(Path(request.answer), estimate(request, imports).model_dump())


def estimate(request: EstimateRequest, imports: int) -> Estimate:
    """What the training needs, what there is, and what would make it fit."""
    device = _device(request.training.device)
    found = measure(request, device)
    answer = Estimate(
        device=device,
        processes=request.training.processes,
        published=not request.path,
        parameters=found.parameters,
        trained=found.trained,
        need=found.need,
        imports=imports,
        host_available=host_available(),
        device_available=_free_on_devices() if device == "cuda" else [],
        disk_available=disks.free_bytes(Path(request.directory)) + request.written,
        features_available=_elsewhere(request),
        notes=_notes(request, device, found),
    )
    shortages = shortages_of(answer, found.need, request.training.processes)
    remedies = list(_remedies(request, device, answer)) if shortages else []
    return answer.model_copy(update={"shortages": shortages, "remedies": remedies})


def _device(choice: str) -> str:
    """A machine that only plans may have no GPU: then what was asked for is estimated all the same."""
    try:
        return choose_device(choice).type
    except PrerequisiteMissing:
        return choice


def _notes(request: EstimateRequest, device: str, found: Measured) -> list[str]:
    notes = []
    if device == "cuda":
        notes.append("estimated for GPUs without having been compared with one")
        if not torch.cuda.is_available():
            notes.append("no GPU is here: whether it fits one is not known")
    if request.training.compile != "off":
        notes.append("counted as if the layers were not compiled")
    if request.training.feature_cache == "on" and request.feature_directory and not request.pictures:
        notes.append("frozen features are not counted: how many pictures there are is known once they are prepared")
    if found.need.checkpoints_kept > 1:
        notes.append("a checkpoint may be written while others are kept: the disk is counted at its fullest")
    return notes


# ---- what there is ---------------------------------------------------------------------------------------------


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process's memory, from /proc; 0 where there is none (macOS)."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * KIB for line in lines if line.startswith(f"{field}:")), 0)


def _free_on_devices() -> list[int]:
    return [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]


def _elsewhere(request: EstimateRequest) -> int | None:
    """Bytes free where frozen features are kept; None where the results lie on the same disk."""
    directory = Path(request.feature_directory)
    same = not request.feature_directory or disks.same(directory, Path(request.directory))
    return None if same else disks.free_bytes(directory)


# ---- what fits -------------------------------------------------------------------------------------------------


def shortages_of(answer: Estimate, need: Need, processes: int) -> list[str]:
    """What does not fit, in words. What is not known (None, or no GPU here) is not held against it."""
    found = []
    host = need.host_peak + processes * answer.imports
    if answer.host_available is not None and host > answer.host_available:
        found.append(f"host memory: {sized(host)} needed, {sized(answer.host_available)} free")
    least = min(answer.device_available, default=None)
    if least is not None and need.device_peak + CUDA_CONTEXT > least:
        found.append(f"GPU memory: {sized(need.device_peak + CUDA_CONTEXT)} needed, {sized(least)} free")
    apart = 0 if answer.features_available is None else need.features
    if need.disk - apart > answer.disk_available:
        found.append(f"disk: {sized(need.disk - apart)} needed, {sized(answer.disk_available)} free")
    if answer.features_available is not None and apart > answer.features_available:
        found.append(f"disk of frozen features: {sized(apart)} needed, {sized(answer.features_available)} free")
    return found


def _remedies(request: EstimateRequest, device: str, answer: Estimate) -> Iterator[Need]:
    """Single changes that fit, of one kind the mildest; where none does, the first sum of several that fits."""
    together: Changes = {}
    fitting: list[set[str]] = []
    for changed in _changes(request.training, device, answer.need):
        if set(changed) in fitting:
            continue
        need = _estimated(request, device, changed)
        if not shortages_of(answer, need, int(changed.get("processes", answer.processes))):
            fitting.append(set(changed))
            yield need
    if fitting:
        return
    for changed in _changes(request.training, device, answer.need):
        together |= changed
        need = _estimated(request, device, together)
        if not shortages_of(answer, need, int(together.get("processes", answer.processes))):
            yield need
            return


def _estimated(request: EstimateRequest, device: str, changed: Changes) -> Need:
    need = measure(request, device, changed).need
    log.info("with %s: %s on the host, %s on a GPU", changed, sized(need.host_peak), sized(need.device_peak))
    return need


def _changes(plan: TrainingPlan, device: str, need: Need) -> Iterator[Changes]:
    """Settings that need less, those that cost least first."""
    if need.features:
        yield {"feature_cache": "auto"}
    if plan.keep_checkpoints > 1 or plan.best_by != "off":
        yield {"keep_checkpoints": 1, "best_by": "off"}
    if plan.checkpoint_in_background:
        yield {"checkpoint_in_background": False}
    images = need.images_per_pass
    while images > 1:
        images = max(images // 4, 1)
        yield {"images_per_pass": images}
    if not plan.activation_checkpointing:
        yield {"activation_checkpointing": True}
    if plan.ema_decay:
        yield {"ema_decay": 0.0}
    if plan.precision == "float32":
        yield {"precision": "bfloat16"}
    if not plan.lora_rank and plan.stage not in AUTOENCODER_STAGES and importlib.util.find_spec(LORA_PACKAGE):
        yield {"lora_rank": LORA_RANK}
    if device == "cuda":
        ranks = max(2, 2 * plan.processes)
        while ranks <= min(MOST_RANKS, plan.images_per_step):
            yield {"sharding": "shard", "processes": ranks}
            ranks *= 2
