"""Where a judge computes, and with how many threads of a CPU. Imports torch when called, not before.

Children start with one thread each (tasks/processes.py), because several that take every core fight for them. A judge
works alone, and a detector of real size on a CPU is the whole run's time: it takes the cores.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal

from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.judging import JudgeSettings

if TYPE_CHECKING:
    import torch

REAL_SIZE_BYTES = 8 * 1024 * 1024
"""Weights from which more threads pay: the smallest YOLO file in use has 12 MiB, the tests' networks a few KiB."""

log = logging.getLogger(__name__)


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """``auto`` takes a GPU where there is one. Raises PrerequisiteMissing for a GPU that is not there."""
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise PrerequisiteMissing("no CUDA device", field="judge.device", remedy="--set judge.device=cpu")
    return "cuda" if there and wanted != "cpu" else "cpu"


def cpu_threads(settings: JudgeSettings, weight_bytes: int) -> int:
    """As set; else every core that this process may use for weights of real size, and one for smaller ones."""
    if settings.cpu_threads:
        return settings.cpu_threads
    return available_cores() if weight_bytes >= REAL_SIZE_BYTES else 1


def available_cores() -> int:
    """Cores that this process may run on: fewer than the machine has in a container or a batch job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cpu_threads(model: torch.nn.Module, settings: JudgeSettings, name: str) -> None:
    """Give torch the threads for a model that computes on the CPU; never fewer than it has for another one."""
    import torch

    if next(model.parameters()).device.type != "cpu":
        return
    threads = cpu_threads(settings, sum(part.numel() * part.element_size() for part in model.parameters()))
    if settings.cpu_threads or threads > torch.get_num_threads():
        torch.set_num_threads(threads)
    log.info("%s computes with %d threads of the CPU", name, torch.get_num_threads())
