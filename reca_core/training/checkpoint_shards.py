"""Checkpoints in parts: every process writes and reads its own, so that nobody holds the whole state.

torch's distributed checkpoints in their safetensors form: ``shards/shard-RRRRR-model-*.safetensors`` have the pieces of
rank R - 1 with their offsets, and any number of processes, one included, can read the pieces that it needs. The copy to
the host's memory is made before ``start`` returns; the rest happens in threads, over a process group of their own, so
that collectives of the training and of the writing never mix. torch puts a file together in memory, twice, before it
writes it, so a rank writes files of ``checkpoint_folder.FILE_BYTES`` instead of one: the state is then held once and a
little, not three times.

Apart from ``checkpoint`` because importing it takes half a second, which trainings without it need not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import (
    CheckpointException,
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
    async_save,
    load,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from reca_core.contracts.errors import CheckpointRefused
from reca_core.training import checkpoint_folder
from reca_core.training.checkpoint import MOMENT_SEPARATOR, TrainState, check_fit, moments_of
from reca_core.training.checkpoint_folder import SHARDS, Found, Sizes
from reca_core.training.distributed import Layout, gather, shared

WEIGHT, MOMENT, AVERAGE = "weight/", "moment/", "average/"
"""First part of a tensor's name in the files."""


def files_of(sizes: Mapping[str, int], world: int) -> dict[str, int]:
    """The number of the file, from 1, of every tensor: the same on every rank, as whole tensors have the same sizes.

    Args:
        sizes: of the whole tensors, in bytes, in the order of writing.
        world: ranks that write, each about as much of everything. A single file may be fuller: replicas share out whole
            tensors, and a first dimension need not divide evenly.
    """
    files: dict[str, int] = {}
    number, filled = 1, 0
    for name, size in sizes.items():
        part = -(-size // world)
        if filled and filled + part > checkpoint_folder.FILE_BYTES:
            number, filled = number + 1, 0
        files[name] = number
        filled += part
    return files


class ShardWriter:
    """Writes checkpoints in parts. Made by all ranks together."""

    def __init__(self, directory: Path, layout: Layout, keep: int) -> None:
        self.directory, self.layout, self.keep = directory, layout, keep
        self.group = dist.new_group(backend="gloo")

    def start(
        self,
        step: int,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, Tensor],
        facts: Mapping[str, Any],
    ) -> Callable[[], None]:
        """Copy this rank's part and begin to write it; returns what waits for the end and publishes the checkpoint.

        Every rank must call both. Both raise StageFailed, on every rank, where one cannot write.
        """
        state = {f"{WEIGHT}{name}": parameter.detach() for name, parameter in parameters.items()}
        state |= {f"{MOMENT}{name}": value for name, value in moments_of(parameters, optimizer)}
        state |= {f"{AVERAGE}{name}": value for name, value in average.items()}
        self._make_room(step, sum(value.nbytes for value in state.values()))
        folder = checkpoint_folder.temporary_folder(self.directory, step)
        files = files_of({name: value.nbytes for name, value in state.items()}, self.layout.world)
        writer = HuggingFaceStorageWriter(str(folder / SHARDS), files, save_distributed=True)
        writing = cast("Future[Any]", async_save(state, storage_writer=writer, process_group=self.group))

        def finish() -> None:
            try:
                writing.result()
            except CheckpointException as error:
                raise checkpoint_folder.cannot_be_written(self.directory, step, _cause(error)) from error
            self._publish(step, facts)

        return finish

    def _make_room(self, step: int, tensor_bytes: int) -> None:
        def check() -> None:
            try:
                checkpoint_folder.check_space(self.directory, tensor_bytes)
                (checkpoint_folder.temporary_folder(self.directory, step) / SHARDS).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise checkpoint_folder.cannot_be_written(self.directory, step, error) from error

        shared(check, self.layout)

    def _publish(self, step: int, facts: Mapping[str, Any]) -> None:
        """Every rank hashes its own files; rank 0 writes them down and gives the folder its name."""
        folder = checkpoint_folder.temporary_folder(self.directory, step)
        mine = sorted((folder / SHARDS).glob(f"shard-{self.layout.rank + 1:05d}-*"))
        sizes: Sizes = {}
        for part in gather(checkpoint_folder.sizes_of(mine, folder), self.layout, self.group):
            sizes |= part

        def publish() -> None:
            checkpoint_folder.publish(self.directory, step, facts, lambda _: sizes)
            checkpoint_folder.prune(self.directory, self.keep)

        shared(publish, self.layout, self.group)


def restore(
    found: Found,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> None:
    """Put a state back in place, reading only what this process holds. Raises CheckpointRefused if it does not fit."""
    sizes = _sizes(found)
    weights = {name.removeprefix(WEIGHT): size for name, size in sizes.items() if name.startswith(WEIGHT)}
    averaged = {name.removeprefix(AVERAGE) for name in sizes if name.startswith(AVERAGE)}
    check_fit(found.step, parameters, weights, averaged == set(average))
    state = {f"{WEIGHT}{name}": parameter.detach() for name, parameter in parameters.items()}
    state |= {f"{AVERAGE}{name}": value for name, value in average.items()}
    for key, size in sizes.items():
        if key.startswith(MOMENT):
            name, moment = key.removeprefix(MOMENT).split(MOMENT_SEPARATOR)
            parameter = parameters[name]
            value = torch.zeros_like(parameter) if size else torch.zeros((), device=parameter.device)
            state[key] = optimizer.state[parameter][moment] = value.detach()
    _read(found, state)


def read(found: Found) -> TrainState:
    """The whole state on the CPU, by one process alone."""
    state = {key: torch.zeros(size) for key, size in _sizes(found).items()}
    _read(found, state)

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    return TrainState(found.step, part(WEIGHT), part(MOMENT), part(AVERAGE), found.facts)


def _read(found: Found, state: dict[str, Tensor]) -> None:
    """Fill the tensors of ``state``. Every process reads for itself: nobody waits for anybody."""
    try:
        load(state, storage_reader=HuggingFaceStorageReader(str(found.folder / SHARDS)), no_dist=True)
    except CheckpointException as error:
        raise CheckpointRefused(f"cannot be read: {_cause(error)}", field=str(found.folder)) from error


def _sizes(found: Found) -> dict[str, tuple[int, ...]]:
    metadata = HuggingFaceStorageReader(str(found.folder / SHARDS)).read_metadata().state_dict_metadata
    return {name: tuple(facts.size) for name, facts in metadata.items() if isinstance(facts, TensorStorageMetadata)}


def _cause(error: CheckpointException) -> str:
    """What went wrong on which rank, without the ranks' tracebacks."""
    return "; ".join(f"rank {rank}: {failure[0]}" for rank, failure in sorted(error.failures.items()))
