"""The checkpoints of a running training: taken in an instant, written while it goes on.

A save copies the state to the host's memory and hands the copy to a thread; one is written at a time, so a disk that
is slower than the interval slows the training down instead of filling the memory. What fails in the thread stops the
training at its next step.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reca_core.contracts.errors import StageFailed
from reca_core.contracts.requests import TrainingPlan
from reca_core.training import checkpoint, checkpoint_folder
from reca_core.training.checkpoint_folder import Found
from reca_core.training.distributed import Layout, sharded, shared

log = logging.getLogger(__name__)


class Writer:
    """Runs one job at a time, in a thread or at once."""

    def __init__(self, background: bool) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if background else None
        self._running: Future[None] | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Wait for the job before, then begin this one. Raises what the job before raised."""
        self.wait()
        if self._pool is None:
            job()
        else:
            self._running = self._pool.submit(job)

    def check(self) -> None:
        """Raise what a finished job raised; return at once where it still runs."""
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is being written. Raises what the job raised, once."""
        running, self._running = self._running, None
        if running is not None:
            running.result()


class Checkpoints:
    """Those of one run. Every method is called by all ranks together, except ``check``.

    Args:
        directory: ``checkpoints`` of the run.
        plan: format, how many are kept, and whether writing is waited for.
        layout: this process.
    """

    def __init__(self, directory: Path, plan: TrainingPlan, layout: Layout) -> None:
        self.directory, self.plan, self.layout = directory, plan, layout
        self.writer = Writer(plan.checkpoint_in_background)
        self._shards: Any = None
        in_parts = plan.checkpoint_format == "shards" or (plan.checkpoint_format == "auto" and sharded(layout, plan))
        if in_parts and layout.world > 1:  # one process has one part: the whole
            from reca_core.training.checkpoint_shards import ShardWriter

            self._shards = ShardWriter(directory, layout, plan.keep_checkpoints)

    def newest(self, request_hash: str) -> Found | None:
        """The one to resume from, read and checked by rank 0. Raises CheckpointRefused on every rank."""
        return shared(lambda: checkpoint_folder.newest(self.directory, request_hash), self.layout)

    def restore(
        self,
        found: Found,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: dict[str, Tensor],
    ) -> None:
        """Put the state of a checkpoint back in place, whatever its format and this training's layout.

        Raises CheckpointRefused if names or shapes differ.
        """
        if not is_in_parts(found):
            checkpoint.restore(checkpoint.read(found), parameters, optimizer, average)
            return
        from reca_core.training import checkpoint_shards

        checkpoint_shards.restore(found, parameters, optimizer, average)

    def save(
        self,
        step: int,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, Tensor],
        facts: dict[str, Any],
    ) -> None:
        """Take the state of a step and begin to write it. Raises what the save before failed with."""
        self.writer.wait()  # before the copy: two of them would be in memory
        if self._shards is not None:
            self.writer.start(self._shards.start(step, parameters, optimizer, average, facts))
            return
        state = checkpoint.capture(step, parameters, optimizer, average, facts, self.layout.leads)
        if self.layout.leads:
            self.writer.start(lambda: _save(self.directory, state, self.plan.keep_checkpoints))

    def check(self) -> None:
        """Raises StageFailed if the last save failed meanwhile."""
        self.writer.check()

    def wait(self) -> None:
        """Return when the last save is on disk. Raises StageFailed where it failed."""
        self.writer.wait()

    @contextlib.contextmanager
    def finished(self) -> Iterator[None]:
        """Whatever ends the block, the save under way is finished first; its failure counts if nothing else failed."""

        def end(kind: type[BaseException] | None, *_: object) -> None:
            try:
                self.writer.wait()
            except StageFailed as error:
                if kind is None:
                    raise
                log.error("%s", error)

        with contextlib.ExitStack() as ending:
            ending.push(end)
            yield


def is_in_parts(found: Found) -> bool:
    """True for a checkpoint whose processes wrote a part each."""
    return (found.folder / checkpoint_folder.SHARDS).is_dir()


def _save(directory: Path, state: checkpoint.TrainState, keep: int) -> None:
    checkpoint.save(directory, state, keep)
