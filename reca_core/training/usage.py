"""What a step takes of the machine: memory at its peak, and arithmetic against what the device can do.

The floating-point operations of an optimizer step, forward and backward of this rank, are counted once, in a rehearsal
of the first step of an attempt (``torch.utils.flop_counter``). Model FLOPs utilisation is as in PaLM (arXiv 2204.02311,
appendix B): operations of the model per second over the device's peak; what is computed again to save memory, or
without gradients to count tokens ahead, is no work of the model and is left out. Texts are not equally long in every
step, so both numbers are estimates where answers are trained. Where frozen features are reused none are counted.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from reca_core.contracts.requests import TrainingPlan

HOST_MEMORY, DEVICE_MEMORY = "train/host_memory_gib", "train/device_memory_gib"
TFLOPS, UTILISATION = "train/tflops_per_second", "train/mfu"
GIB, TERA = 1 << 30, 1e12
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes that getrusage(2) counts the resident set in."""

DENSE_BF16_TFLOPS: dict[str, float] = {
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.5,
    "NVIDIA H100 NVL": 835.5,
    "NVIDIA H100": 989.5,
    "NVIDIA H200 NVL": 835.5,
    "NVIDIA H200": 989.5,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
}
"""Beginning of the device's name -> peak without sparsity, 10^12 operations per second: NVIDIA's data sheets of these
products, which give A100 and L40S as they are and the others with sparsity, twice as much."""

Shape = Sequence[int]


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""torch counts these operations on a GPU only."""


class FlopCount:
    """Operations of one optimizer step of this process, all its passes together.

    Args:
        wanted: False counts nothing: where compiled code hides its operations.
    """

    def __init__(self, wanted: bool) -> None:
        self.open = wanted
        self.total = 0

    @classmethod
    def of(cls, plan: TrainingPlan) -> FlopCount:
        """The count of a training, the same on every rank: a rehearsal needs all of them."""
        return cls(plan.compile == "off" and plan.attention != "flex")

    @contextlib.contextmanager
    def one_pass(self) -> Iterator[None]:
        """Count forward and backward of a pass, while this count is open."""
        if not self.open:
            yield
            return
        with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
            _running.append(counter)
            try:
                yield
            finally:
                _running.remove(counter)
        self.total += counter.get_total_flops() - _again.pop(id(counter), 0)

    def close(self) -> None:
        """The step is complete: later ones are not counted."""
        self.open = False


_running: list[FlopCounterMode] = []
_again: dict[int, int] = {}
"""Operations of a running counter that were computed again."""


@contextlib.contextmanager
def computed_again() -> Iterator[None]:
    """Inside the block activations are computed a second time: no work of the model."""
    counters = list(_running)
    before = [counter.get_total_flops() for counter in counters]
    try:
        yield
    finally:
        for counter, flops in zip(counters, before, strict=True):
            _again[id(counter)] = _again.get(id(counter), 0) + counter.get_total_flops() - flops


def row(flops: int, seconds: float, device: torch.device) -> dict[str, float]:
    """Columns of metrics.jsonl: memory of this process so far, and operations of a step of ``flops`` in ``seconds``.

    Utilisation is there only for a device whose peak is known.
    """
    found = {HOST_MEMORY: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / GIB}
    if device.type == "cuda":
        found[DEVICE_MEMORY] = torch.cuda.max_memory_allocated(device) / GIB
    if flops:
        found[TFLOPS] = flops / seconds / TERA
        peak = peak_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        if peak is not None:
            found[UTILISATION] = found[TFLOPS] / peak
    return found


def peak_tflops(device_name: str) -> float | None:
    """Of the longest name in the table that this one begins with, as a word; None for a device not in it."""
    known = [name for name in DENSE_BF16_TFLOPS if f"{device_name} ".replace("-", " ").startswith(f"{name} ")]
    return DENSE_BF16_TFLOPS[max(known, key=len)] if known else None
