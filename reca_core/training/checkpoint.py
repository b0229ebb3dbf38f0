"""What a checkpoint holds, how it is taken from a running training and put back into one, gathered in one place.

``weights.safetensors`` (trained parameters), ``optimizer.safetensors`` (moments), ``average.safetensors`` (if a moving
average is kept) and ``state.json``; models that fit no single process have ``shards/`` instead
(``reca_core.training.checkpoint_shards``). Folders and their rules: ``reca_core.training.checkpoint_folder``.

The random state is part of ``state.json`` by being two numbers: every draw is keyed by seed and stream position, and
the global generators are re-seeded from seed, step and rank at the start of every step (``reca_core.training.loop``).
No pickle anywhere: safetensors and JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reca_core.contracts.errors import CheckpointRefused
from reca_core.training import checkpoint_folder
from reca_core.training.checkpoint_folder import Found, Sizes
from reca_core.training.distributed import placed_like, whole

WEIGHTS, MOMENTS, AVERAGE = "weights.safetensors", "optimizer.safetensors", "average.safetensors"
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

    @property
    def files(self) -> dict[str, Tensors]:
        """Tensors by the file that holds them; only files that are needed."""
        named = {WEIGHTS: self.weights, MOMENTS: self.moments, AVERAGE: self.average}
        return {name: tensors for name, tensors in named.items() if tensors}

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.nbytes for tensors in self.files.values() for tensor in tensors.values())


def save(directory: Path, state: TrainState, keep: int) -> Path:
    """Write a gathered checkpoint; remove all but the newest ``keep`` and the best.

    Raises StageFailed if the disk is full or the folder cannot be written; earlier checkpoints stay untouched.
    """

    def fill(folder: Path) -> Sizes:
        for name, tensors in state.files.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
        return checkpoint_folder.sizes_of([folder / name for name in state.files], folder)

    try:
        checkpoint_folder.check_space(directory, state.nbytes)
    except OSError as error:
        raise checkpoint_folder.cannot_be_written(directory, state.step, error) from error
    written = checkpoint_folder.publish(directory, state.step, state.facts, fill)
    checkpoint_folder.prune(directory, keep)
    return written


def load_newest(directory: Path, request_hash: str) -> TrainState | None:
    """The state to resume from, or None where nothing was saved yet.

    Raises CheckpointRefused for a damaged checkpoint and for one of another request.
    """
    found = checkpoint_folder.newest(directory, request_hash)
    return read(found) if found else None


def read(found: Found) -> TrainState:
    """The tensors of a gathered checkpoint, mapped from its files."""
    tensors = {
        name: load_file(found.folder / name) if (found.folder / name).exists() else {}
        for name in (WEIGHTS, MOMENTS, AVERAGE)
    }
    return TrainState(found.step, tensors[WEIGHTS], tensors[MOMENTS], tensors[AVERAGE], found.facts)


def moments_of(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's tensors by parameter and moment name."""
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}{MOMENT_SEPARATOR}{key}", value


def capture(
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    facts: dict[str, Any],
    leads: bool = True,
) -> TrainState:
    """Copy the state to the CPU, gathered where it is sharded: every rank must call this, the leading one keeps it.

    The copy shares no memory with the training, which may go on at once.
    """

    def copies(tensors: Mapping[str, Tensor]) -> Tensors:
        gathered = ((name, whole(value), value) for name, value in tensors.items())
        return {name: _apart(found, value) for name, found, value in gathered if leads}

    moments = copies(dict(moments_of(parameters, optimizer)))
    return TrainState(step, copies(parameters), moments, copies(average), facts)


def _apart(found: Tensor, origin: Tensor) -> Tensor:
    return found.clone() if found.untyped_storage().data_ptr() == origin.untyped_storage().data_ptr() else found


@torch.no_grad()
def restore(
    state: TrainState,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> None:
    """Put a state back in place, sharded as the parameters are. Raises CheckpointRefused if names or shapes differ."""
    shapes = {name: tuple(value.shape) for name, value in state.weights.items()}
    check_fit(state.step, parameters, shapes, set(state.average) == set(average))
    for name, parameter in parameters.items():
        parameter.copy_(placed_like(state.weights[name], parameter))
    for name in average:
        average[name] = placed_like(state.average[name], parameters[name])
    for key, value in state.moments.items():
        name, moment = key.split(MOMENT_SEPARATOR)
        parameter = parameters[name]
        optimizer.state[parameter][moment] = placed_like(value, parameter) if value.ndim else value.to(parameter.device)


def check_fit(
    step: int, parameters: Mapping[str, nn.Parameter], found: Mapping[str, tuple[int, ...]], same_average: bool
) -> None:
    """Raises CheckpointRefused if a checkpoint's weights have other names or shapes than the model's."""
    expected = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if expected != found or not same_average:
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise CheckpointRefused(
            f"does not fit the model; first differences: {odd[:5]}", field=checkpoint_folder.step_name(step)
        )
