"""One RecA step and one drawing at a published size with random weights: time and memory on the device at hand.

    python -m reca_core.models.published_size --size bagel-7b-mot [--device cuda] [--tiny] [--output FILE]

Prints one JSON object with the command; a line for docs/numbers.md. Made for one GPU of 80 GB and to end within eight
minutes; ``--tiny`` runs the same code on the family's smallest model, which is what the tests do on a CPU. Sizes:
reference "model_goldens", section 3, and "reca_recipe", section 4.2. It has not been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reca_core.contracts.files import append_jsonl
from reca_core.contracts.requests import SamplingSettings, TrainingPlan
from reca_core.draws import KeyedDraws
from reca_core.models.load import adapter_class
from reca_core.models.published_sizes import PUBLISHED, family_of
from reca_core.models.unified import DrawRequest, UnifiedModel
from reca_core.models.variants import undecayed
from reca_core.training.optimizer import make_optimizer, set_trainable

PIXELS = 512
AUTOENCODER = "vae"
HALVED = ("bagel",)
"""Families whose weights are bfloat16 here, autoencoder aside: in float32 their AdamW does not fit one GPU. The others
have float32 weights and bfloat16 autocast, as in training."""
BYTES_PER_GIB = 1 << 30
KIBIBYTE = 1024


def measure(adapter: UnifiedModel, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Seconds of a RecA step (forward, backward, AdamW) and of a drawing, and the peak memory in GiB."""
    plan = TrainingPlan(learning_rate=1e-5)
    set_trainable(adapter.network, adapter.trainable_names("post"))
    if dtype != torch.float32:
        adapter.network.to(dtype)
        adapter.network.get_submodule(AUTOENCODER).float()  # it makes targets
    trained = {name: p for name, p in adapter.network.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(trained, plan, undecayed(adapter))
    step = timed(lambda: reca_step(adapter, optimizer, device), device)
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        draw = timed(lambda: list(adapter.generate([DrawRequest(adapter.templates[0], 0)], SamplingSettings())), device)
    return {
        "parameters": float(sum(p.numel() for p in adapter.network.parameters())),
        "trained": float(sum(p.numel() for p in trained.values())),
        "step_seconds": round(step, 3),
        "draw_seconds": round(draw, 3),
        "peak_gib": round(peak_bytes(device) / BYTES_PER_GIB, 3),
    }


def reca_step(adapter: UnifiedModel, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """One picture, one optimizer step."""
    noise = np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
    images = adapter.prepare([Image.fromarray(noise)]).to(device)
    target = adapter.encode_target(images)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        seen = adapter.understand(images)
        condition = adapter.condition(seen, adapter.templates[:1], torch.zeros(1, dtype=torch.bool))
        loss = adapter.reconstruction_loss(condition, target, KeyedDraws(0, [0])).mean()
    loss.backward()
    optimizer.step()


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    began = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - began


def peak_bytes(device: torch.device) -> int:
    """Of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE


def build(size: str, device: torch.device, tiny: bool) -> UnifiedModel:
    """Random weights, made on the device. Raises KeyError for a size that is not listed."""
    if tiny:
        adapter = adapter_class(family_of(size)).smallest(seed=0)
        adapter.network.to(device)
        return adapter
    with torch.device(device):
        return PUBLISHED[size]()


def main(arguments: list[str] | None = None) -> int:
    """Measure one size and print the record."""
    parser = argparse.ArgumentParser(prog="python -m reca_core.models.published_size", description=__doc__)
    parser.add_argument("--size", choices=tuple(PUBLISHED), required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="the smallest model instead of the published size")
    parser.add_argument("--output", type=Path, help="append the record to this file")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if family_of(given.size) in HALVED else torch.float32
    record: dict[str, Any] = measure(build(given.size, device, given.tiny), device, dtype)
    words = ["python -m reca_core.models.published_size", *(sys.argv[1:] if arguments is None else arguments)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    facts = {"size": given.size, "tiny": given.tiny, "weights": str(dtype), "device": name}
    record = {**facts, **record, "command": " ".join(words)}
    if given.output:
        append_jsonl(given.output, [record])
    sys.stdout.write(json.dumps(record) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
