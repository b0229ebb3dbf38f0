"""``python -m reca_core.launch train REQUEST.json``: one training from its request to ``final/`` and ``DONE.json``.

    load the base -> freeze -> resume if there is a checkpoint -> steps -> guards -> final

Everything is written inside the run directory (``reca_core.contracts.home.RunDirectory``). Running it again after any
interruption goes on from the last checkpoint; after the end it does nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused, DamagedFile, StageFailed
from reca_core.contracts.files import remove_leftovers, run_lock, sync_directory, write_json
from reca_core.contracts.hashing import request_hash, sha256_tree
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.lifeline import Interrupted, StopRequest, stop_requests
from reca_core.contracts.progress import Progress, report_progress
from reca_core.contracts.records import CheckpointRef, TrainResult
from reca_core.contracts.requests import TrainRequest
from reca_core.models import variants
from reca_core.models.unified import UnifiedModel
from reca_core.training import guards, lora, setup, usage
from reca_core.training.allocator import give_back_large_blocks
from reca_core.training.batch import Batch
from reca_core.training.blocks import prepare_blocks
from reca_core.training.card import write_card
from reca_core.training.checkpoint_folder import SCORE, Found, best_step
from reca_core.training.distributed import (
    Layout,
    callable_parts,
    gather,
    joined,
    sharded,
    shared,
    wait_for_all,
    whole,
    wrap,
)
from reca_core.training.ema import MovingAverage
from reca_core.training.feature_choice import open_features
from reca_core.training.loop import LOSS, SECONDS, Clock, StepReport, Updater
from reca_core.training.metrics import MetricsLog, loss_key
from reca_core.training.narrow import narrow_frozen
from reca_core.training.optimizer import make_optimizer, trainable
from reca_core.training.previews import PICTURES, Previews
from reca_core.training.saving import Checkpoints
from reca_core.training.step import TrainingStep

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
"""Progress lines come at most this often."""
ENDS = "first_and_last_losses"
"""Fact of a checkpoint: what the result says of the log, which may be lost."""
AVERAGE_FOLDER = "final-average"
"""Weights of the moving average, beside ``final`` and never instead of it."""


def main(request: TrainRequest) -> None:
    """Train what is asked for. Raises RecaError of the kind that fits."""
    run = RunDirectory(Path(request.run_directory))
    with stop_requests() as stop, contextlib.ExitStack() as held:
        if os.environ.get("RANK", "0") == "0":
            held.enter_context(run_lock(run.lock))
            remove_leftovers(run.path)
        layout = held.enter_context(joined(request.training.device))
        _write_pids(run, layout)
        if any(gather(run.done.exists(), layout)):
            log.info("%s is done already", run.path)
            return
        give_back_large_blocks(Path(request.model.path))
        Training(request, layout, stop).complete()


class Training:
    """One attempt at a training.

    Args:
        request: what to train.
        layout: this process's place.
        stop: set when the process is asked to end; the attempt then saves after the running step.
    """

    def __init__(self, request: TrainRequest, layout: Layout, stop: StopRequest) -> None:
        self.request, self.plan, self.layout, self.stop = request, request.training, layout, stop
        self.run = RunDirectory(Path(request.run_directory))
        self.identity = request_hash(request)
        self.began = self.spoke = time.monotonic()
        self.adapter = setup.load_model(request, layout)
        self.base = setup.base_digests(self.adapter.network, layout)
        if self.plan.lora_rank:
            self.base = self.base.with_additions(lora.add(self.adapter.network, self.plan))
        self.checkpoints = Checkpoints(self.run.checkpoints, self.plan, layout)
        found = self.checkpoints.newest(self.identity)
        self.data = setup.open_data(request, self.adapter, layout, found)
        setup.check_method(request, self.adapter, self.data)
        self.resumed = self.done = found.step if found else 0
        rows = self.data.builder.pictures.rows
        self.features = open_features(request, self.adapter, self.base, rows, self.done, layout)
        self.data.builder.features = self.features
        self.narrowed = narrow_frozen(self.adapter.network, self.plan, self.adapter.image_tokenizer)
        self.scores: list[float] = []
        self.previews = self._open_previews()
        if self.previews and not self.done:
            self.previews.make(0)
        self._assemble()
        if found:
            self._resume(found)
        self.metrics = MetricsLog(self.run.metrics, self.done) if layout.leads else None
        logged = shared(lambda: self.metrics.kept if self.metrics else [], layout)  # every rank watches for collapse
        self.ends = self._ends_so_far(logged, found) if layout.leads else []
        self.monitor = guards.CollapseMonitor(stops=self.plan.on_collapse == "stop")
        for row in logged:
            self._watch(int(row["step"]), self._terms(row))

    def _open_previews(self) -> Previews | None:
        """Sharded models are drawn from by all ranks together, others by rank 0 alone."""
        if not (self.layout.leads or self._sharded):
            return None
        prompts = self.data.captions.prompts(PICTURES) if self.data.captions else []
        rows, template = self.data.builder.pictures.rows, self.adapter.templates[0]
        return Previews(self.run, self.adapter, rows, prompts, template, self.plan, self.done, self.layout.leads)

    def _assemble(self) -> None:
        """Wrap the step and make its optimizer: in this order, because sharding replaces the parameters."""
        step = TrainingStep(self.adapter, self.plan, self.request.losses, self.features)
        setup.check_divided(self.plan)
        setup.check_best(self.plan, step.weights)
        prepare_blocks(step.network, self.plan)
        module = self.module = wrap(step, self.layout, self.plan)
        self.parameters = trainable(step.network)
        self.optimizer = make_optimizer(self.parameters, self.plan, variants.undecayed(self.adapter))
        decay = self.plan.ema_decay or variants.parity_average(self.adapter, self.plan)
        self.average = MovingAverage(self.parameters, decay) if decay else None
        blame = setup.Blame(step, self.data.builder, self.layout)
        # With features that are reused no two steps need take the same operations.
        flops = usage.FlopCount.of(self.plan) if self.features is None else None
        self.updater = Updater(
            module, self.plan, step.weights, self.parameters, self.optimizer, self.average, self.layout, blame, flops
        )

    @property
    def _sharded(self) -> bool:
        return sharded(self.layout, self.plan)

    def _resume(self, found: Found) -> None:
        """Put a checkpoint's state in place. Raises CheckpointRefused if the frozen base is no longer the same."""
        average = self.average.average if self.average else {}
        self.checkpoints.restore(found, self.parameters, self.optimizer, average)
        if self.layout.leads and found.facts["frozen_sha256"] != self.base.frozen_sha256:
            raise CheckpointRefused(
                f"was trained beside other frozen weights than {self.request.model.path} holds now",
                field=str(self.run.checkpoints),
                remedy="restore the base model, or move the checkpoints away to start again",
            )
        log.info("going on from step %d of %d", found.step, self.plan.steps)
        changed = setup.differences(found.facts["environment"], setup.environment_facts(self.layout, self.plan))
        if changed:
            log.warning("since the checkpoint: %s; losses agree to 5 digits, bits may differ", "; ".join(changed))

    def _ends_so_far(self, logged: Sequence[Mapping[str, float]], found: Found | None) -> list[dict[str, float]]:
        """Losses of the first and the last step done: from the log, or from the checkpoint where the log lost rows."""
        if not found:
            return []
        if len(logged) == self.done:
            return [_losses(logged[0]), _losses(logged[-1])]
        fact = f"has {len(logged)} of the {self.done} steps done before"
        ends: list[dict[str, float]] = found.facts.get(ENDS, [])
        if not ends:
            raise DamagedFile(
                f"{fact}, and the checkpoint of step {self.done} has no losses",
                field=str(self.run.metrics),
                remedy="put the file back, or move the checkpoints away to start again",
            )
        log.warning("%s %s: curves and the watch for collapse go without the others", self.run.metrics, fact)
        return ends

    def complete(self) -> None:
        """Take the steps that are left, check, export, and write DONE.json."""
        with self.checkpoints.finished():
            with contextlib.closing(self.features) if self.features else contextlib.nullcontext():
                self._train()
            idle = self._idle()
            # Before the last checkpoint: an attempt after a failed check must meet the fault again, not skip past it.
            self._check_weights(idle)
            if self.done > self.resumed:
                self._save()
                self.checkpoints.wait()  # its copy and the model that is put together for the export need room each
            self._export()
        if self.layout.leads:
            write_json(self.run.done, self._result(idle).model_dump())
        wait_for_all(self.layout)

    def _idle(self) -> list[str]:
        """Weights that no active term ever reached."""
        idle = [name for name, parameter in self.parameters.items() if not self.optimizer.state.get(parameter)]
        return lora.idle_weights(idle) if self.plan.lora_rank else sorted(idle)

    def _train(self) -> None:
        clock = Clock()
        clock.start()
        for batches in self.data.steps(self.done, self.plan.steps):
            clock.data_arrived()
            self._look_and_save(self.take(batches, clock))
            clock.start()

    def take(self, batches: Sequence[Batch], clock: Clock) -> StepReport:
        """The next optimizer step from its batches, with all that every step has: guards, metrics, progress."""
        self.checkpoints.check()
        report = self.updater.step(self.done, batches, self.stop.requested)
        self.done += 1
        if self.features:
            self.features.passed(self.done * self.plan.images_per_step)
        if self.plan.best_by != "off":
            self.scores.append(report.losses.get(self.plan.best_by, report.loss))
        row = clock.row(self.done, report, self.plan.images_per_step)
        self._note(row | usage.row(self.updater.flops.total, row[SECONDS], self.layout.device), report)
        return report

    def _note(self, row: dict[str, float], report: StepReport) -> None:
        """Log a step; raises Collapsed where the monitor stops."""
        warning = self._watch(self.done, report.losses)
        if warning:
            log.warning("%s", warning)
        if not self.metrics:
            return
        self.metrics.add(row)
        self.ends = [*self.ends[:1], _losses(row)]
        if time.monotonic() - self.spoke > PROGRESS_SECONDS or self.done == self.plan.steps:
            self.spoke = time.monotonic()
            shown = {name: value for name, value in row.items() if name.startswith("train/")}
            report_progress(
                Progress(stage=self.plan.stage, done=self.done, total=self.plan.steps, unit="step", metrics=shown)
            )

    def _watch(self, step: int, losses: Mapping[str, float]) -> str | None:
        """Only post-training can collapse: in the stages before, losses are meant to fall a long way."""
        return self.monitor.observe(step, losses) if self.plan.stage == "post" else None

    def _look_and_save(self, report: StepReport) -> None:
        last = self.done == self.plan.steps
        if self.previews and (last or self.done % self.plan.preview_every_steps == 0):
            with callable_parts(self.module, self._sharded):
                self.previews.make(self.done)
        if last:
            return
        if report.stop or self.done % self.plan.checkpoint_every_steps == 0:
            self._save()
        if report.stop:
            self.checkpoints.wait()
            wait_for_all(self.layout)  # rank 0 may write for all: none may leave, and end the others, before it is done
            raise Interrupted(
                f"stopped on request after step {self.done} of {self.plan.steps}; the checkpoint is written",
                field=str(self.run.path),
                remedy="run it again to go on",
            )

    def _save(self) -> None:
        facts: dict[str, Any] = {
            "request_hash": self.identity,
            "frozen_sha256": self.base.frozen_sha256,
            "stream_position": self.done * self.plan.images_per_step,
            "seed": self.plan.seed,
            "environment": setup.environment_facts(self.layout, self.plan),
            setup.LEFT_OUT: self.data.left_out.sha256,
            SCORE: sum(self.scores) / len(self.scores) if self.scores else None,
            ENDS: self.ends,
        }
        self.scores = []
        if self.metrics:
            self.metrics.flush()
        if self.features:
            self.features.write()
        average = self.average.average if self.average else {}
        self.checkpoints.save(self.done, self.parameters, self.optimizer, average, facts)

    def _check_weights(self, idle: list[str]) -> None:
        """The guards at the end: frozen weights untouched, every trained one changed."""
        tensors = guards.frozen_tensors(self.adapter.network)
        frozen = guards.digests((lora.plain(name), tensor) for name, tensor in tensors)
        trained = guards.digests(self._trained())
        if self.layout.leads:
            guards.check_frozen(self.base.frozen, frozen)
            guards.check_changed(self.base.trained, trained, idle)

    def _export(self) -> None:
        """``final`` holds the weights, or the average where a published slip is to be repeated (variants.py)."""
        self._write_model(self.run.final)
        if self.average is None:
            return
        repeats_the_slip = variants.parity_average(self.adapter, self.plan) > 0
        with self.average.applied():
            self._write_model(self.run.final if repeats_the_slip else self.run.path / AVERAGE_FOLDER)

    def _write_model(self, folder: Path) -> None:
        """The family's own layout, whole or not at all."""
        adapter = self._gathered()
        if not self.layout.leads:
            return
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            adapter.save(temporary)
            write_card(temporary, self.request, variants.slips(adapter, self.plan))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
            sync_directory(folder.parent)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise StageFailed(
                f"the trained model cannot be written: {error}",
                field=str(folder),
                remedy="make room or make it writable, then run again: it goes on from the last checkpoint",
            ) from error

    def _gathered(self) -> UnifiedModel:
        """The adapter to save. Weights in parts, sharded, narrowed or with additions, go into a fresh base."""
        if not self._sharded and not self.plan.lora_rank and not self.narrowed:
            return self.adapter
        weights = {name: value for name, value in self._trained() if self.layout.leads}
        return setup.base_with(self.request, weights) if self.layout.leads else self.adapter

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        """The trained weights as they are exported, one after another; all ranks must take part."""
        if self.plan.lora_rank:
            return lora.merged(self.adapter.network)
        return ((name, whole(parameter)) for name, parameter in self.parameters.items())

    def _result(self, idle: list[str]) -> TrainResult:
        final = CheckpointRef(path=str(self.run.final), step=self.done, sha256=sha256_tree(self.run.final))
        return TrainResult(
            checkpoint=final,
            steps=self.done,
            seconds=time.monotonic() - self.began,
            resumed_from_step=self.resumed,
            first_losses=self.ends[0],
            last_losses=self.ends[-1],
            trained_tensors=len(self.base.trained) - len(idle),
            best_step=best_step(self.run.checkpoints),
            idle_tensors=idle,
            warnings=self.monitor.warnings,
            leaked_captions=self.data.captions.leaked if self.data.captions else 0,
            left_out_captions=self.data.captions.left_out if self.data.captions else 0,
        )

    def _terms(self, row: dict[str, float]) -> dict[str, float]:
        """Losses of a logged row under their terms' names. Raises DamagedFile where one is not there."""
        losses = {term: row.get(loss_key(term)) for term in self.updater.weights or ()}
        if missing := [term for term, loss in losses.items() if not isinstance(loss, float | int)]:
            raise DamagedFile(
                f"the row of step {row['step']:.0f} has no number under {', '.join(map(loss_key, missing))}",
                field=str(self.run.metrics),
                remedy="mend the row, or move the file away: its curve then begins at the resumed step",
            )
        return {term: loss for term, loss in losses.items() if loss is not None}


def _losses(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name == LOSS or name.endswith("_loss")}


def _write_pids(run: RunDirectory, layout: Layout) -> None:
    """Who works here, for people and for tests; the lock decides, not this file."""
    ranks = gather(os.getpid(), layout)
    launcher = os.getppid() if layout.world > 1 else os.getpid()
    if layout.leads:
        write_json(run.pids, {"launcher": launcher, "ranks": ranks})
