"""Checkpoints that survive a kill at any moment, and are believed only when they are whole.

``checkpoints/step-NNNNNNNN/`` holds ``weights.safetensors`` (trained parameters), ``optimizer.safetensors`` (moments),
``average.safetensors`` (if a moving average is kept), ``state.json`` and, written last, ``DONE.json``: size and SHA-256
of every file. The folder is written under a temporary name, synced and renamed, so a kill leaves no half folder.

Which one is read on resume: the newest with ``DONE.json``. A folder without it was never finished (a power cut before
the data reached the disk) and the one before it is used, with a line in the log. A folder *with* it whose files do not
match was finished and damaged later: that is refused, because going back silently would hide a failing disk.

The random state is part of ``state.json`` by being two numbers: every draw is keyed by seed and stream position, and
the global generators are re-seeded from seed, step and rank at the start of every step (``reca_core.training.loop``).
No pickle anywhere: safetensors and JSON.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reca_core.contracts.errors import CheckpointRefused, StageFailed
from reca_core.contracts.files import sync_directory, write_json
from reca_core.contracts.hashing import sha256_file
from reca_core.training.distributed import placed_like, whole

log = logging.getLogger(__name__)

WEIGHTS, MOMENTS, AVERAGE = "weights.safetensors", "optimizer.safetensors", "average.safetensors"
FACTS, COMPLETE = "state.json", "DONE.json"
STEP_PREFIX, TEMPORARY_SUFFIX = "step-", ".tmp"
SPACE_MARGIN = 1.05
"""Free disk space asked for, relative to the tensors: headers, JSON and the file system's own blocks."""
MOMENT_SEPARATOR = "|"
"""Between parameter name and moment name in optimizer.safetensors; parameter names hold dots."""

Tensors = dict[str, Float[Tensor, "..."]]


@dataclass(frozen=True)
class TrainState:
    """All that the next step depends on besides the request and the base weights."""

    step: int
    """Optimizer steps done; the stream position is this times ``images_per_step``."""
    weights: Tensors
    moments: Tensors
    average: Tensors = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """``request_hash`` and ``frozen_sha256``, which must agree on resume; versions and layout, which are reported."""


def step_name(step: int) -> str:
    """``step-00000050``: sorts as text in the order of the numbers."""
    return f"{STEP_PREFIX}{step:08d}"


def save(directory: Path, state: TrainState, keep: int) -> Path:
    """Write a checkpoint and remove all but the newest ``keep``.

    Raises StageFailed if the disk is full or the folder cannot be written; earlier checkpoints stay untouched.
    """
    final = directory / step_name(state.step)
    temporary = directory / f".{final.name}.{os.getpid()}{TEMPORARY_SUFFIX}"
    try:
        _check_space(directory, state)
        temporary.mkdir(parents=True)
        _write(temporary, state)
        if final.exists():  # left unfinished by a power cut; a finished one would have been resumed from
            _remove(final)
        os.replace(temporary, final)
        sync_directory(directory)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StageFailed(
            f"checkpoint of step {state.step} cannot be written: {error}",
            field=str(directory),
            remedy="make room or make it writable, then run again: it resumes from " + _last_words(directory),
        ) from error
    for old in _folders(directory)[:-keep]:
        _remove(old)
    return final


def load_newest(directory: Path, request_hash: str) -> TrainState | None:
    """The state to resume from, or None where nothing was saved yet.

    Raises CheckpointRefused for a damaged checkpoint and for one of another request.
    """
    for folder in reversed(_folders(directory)):
        if not (folder / COMPLETE).exists():
            log.warning("%s was never finished (it has no %s): using the one before it", folder, COMPLETE)
            continue
        _verify(folder)
        state = _read(folder)
        if state.facts["request_hash"] != request_hash:
            raise CheckpointRefused(
                f"is of request {state.facts['request_hash']}, this is request {request_hash}",
                field=str(folder),
                remedy="every request has a run directory of its own; move this folder away",
            )
        return state
    return None


def capture(
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    facts: dict[str, Any],
) -> TrainState:
    """Copy the state to the CPU, gathered where it is sharded: every rank must call this, rank 0 saves it."""
    moments = {
        f"{name}{MOMENT_SEPARATOR}{key}": whole(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    weights = {name: whole(parameter) for name, parameter in parameters.items()}
    return TrainState(step, weights, moments, {name: whole(value) for name, value in average.items()}, facts)


@torch.no_grad()
def restore(
    state: TrainState,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> None:
    """Put a state back in place, sharded as the parameters are. Raises CheckpointRefused if names or shapes differ."""
    expected = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    found = {name: tuple(value.shape) for name, value in state.weights.items()}
    if expected != found or set(state.average) != set(average):
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise CheckpointRefused(f"does not fit the model; first differences: {odd[:5]}", field=step_name(state.step))
    for name, parameter in parameters.items():
        parameter.copy_(placed_like(state.weights[name], parameter))
    for name in average:
        average[name] = placed_like(state.average[name], parameters[name])
    for key, value in state.moments.items():
        name, moment = key.split(MOMENT_SEPARATOR)
        parameter = parameters[name]
        optimizer.state[parameter][moment] = placed_like(value, parameter) if value.ndim else value.to(parameter.device)


def _write(folder: Path, state: TrainState) -> None:
    files = {WEIGHTS: state.weights, MOMENTS: state.moments, AVERAGE: state.average}
    for name, tensors in files.items():
        if tensors:
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
            _sync_file(folder / name)
    write_json(folder / FACTS, {"step": state.step, **state.facts})
    sizes = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in sorted(folder.iterdir())
    }
    write_json(folder / COMPLETE, sizes)


def _read(folder: Path) -> TrainState:
    facts = json.loads((folder / FACTS).read_text())
    tensors = {
        name: load_file(folder / name) if (folder / name).exists() else {} for name in (WEIGHTS, MOMENTS, AVERAGE)
    }
    return TrainState(facts.pop("step"), tensors[WEIGHTS], tensors[MOMENTS], tensors[AVERAGE], facts)


def _verify(folder: Path) -> None:
    """Compare every file with what ``DONE.json`` says of it."""
    try:
        expected = json.loads((folder / COMPLETE).read_text())
    except ValueError as error:
        raise _damaged(folder, f"{COMPLETE} is no JSON ({error})") from error
    for name, facts in expected.items():
        path = folder / name
        if not path.exists():
            raise _damaged(folder, f"{name} is missing")
        if path.stat().st_size != facts["bytes"]:
            raise _damaged(folder, f"{name} has {path.stat().st_size} bytes, expected {facts['bytes']}")
        if sha256_file(path) != facts["sha256"]:
            raise _damaged(folder, f"{name} has changed since it was written")


def _damaged(folder: Path, fact: str) -> CheckpointRefused:
    earlier = [path.name for path in _folders(folder.parent) if path.name < folder.name]
    resume = f"resume from {earlier[-1]}" if earlier else "start from the base model"
    return CheckpointRefused(
        f"{fact}: the checkpoint was finished and damaged later",
        field=str(folder),
        remedy=f"check the disk; move this folder away to {resume}",
    )


def _check_space(directory: Path, state: TrainState) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    tensors = [*state.weights.values(), *state.moments.values(), *state.average.values()]
    needed = int(sum(tensor.nbytes for tensor in tensors) * SPACE_MARGIN)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(f"{needed} bytes needed, {free} free")


def _last_words(directory: Path) -> str:
    kept = [path.name for path in _folders(directory) if (path / COMPLETE).exists()]
    return kept[-1] if kept else "the base model"


def _folders(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{STEP_PREFIX}*")) if directory.is_dir() else []


def _remove(folder: Path) -> None:
    """The marker goes first, so that a kill in between leaves something that is visibly unfinished."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
