"""What the engine adds to a training step: section ``training`` of ``make bench``.

A step of a real training (``Training.take``: keyed draws, exact counts, clipping, guards, metrics with their file,
progress lines) against the least that trains: forward, backward, optimizer of the same module with the same optimizer
on the same prepared batches. Both in turn, so that a machine that slows down slows both; the overhead is told by the
clock and by processor time, which work of others on the machine does not lengthen. Waiting for data is the
section ``data``; checkpoints and previews come every so many steps and are no part of a step.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from reca_core.contracts.bench import BenchPlace, Figure
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.home import Home
from reca_core.contracts.lifeline import StopRequest
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.registry import BUNDLED_MODELS, FAMILIES
from reca_core.contracts.requests import CaptionSource, ImageSource, LossTerms, TrainingPlan, TrainRequest
from reca_core.data.prepare import prepare
from reca_core.device import choose_device
from reca_core.models.load import adapter_class
from reca_core.models.unified import AnswersInText
from reca_core.training.batch import Batch
from reca_core.training.distributed import Layout
from reca_core.training.loop import Clock
from reca_core.training.run import Training

STEPS, QUICK_STEPS = 40, 2
"""Of each kind."""
WARM_STEPS, QUICK_WARM_STEPS = 5, 1
"""Of each kind, not counted: the first ones allocate."""
BATCHES, QUICK_BATCHES = 8, 1
"""Different ones, in turn."""
IMAGES_PER_STEP, QUICK_IMAGES_PER_STEP = 64, 2
SCENES, QUICK_SCENES = 256, 8
NEVER = 10_000_000
PERCENT, MILLISECONDS = 100.0, 1000.0
PACKAGE_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Seconds:
    """Of each step, in the order in which they were taken."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    """Of all threads of this process."""


@dataclass(frozen=True)
class Timed:
    """Steps of both kinds."""

    engine: Seconds = field(default_factory=Seconds)
    plain: Seconds = field(default_factory=Seconds)


def overhead(engine: Sequence[float], plain: Sequence[float]) -> float:
    """Per cent that the engine's median step takes more than the plain one. Pure."""
    return PERCENT * (statistics.median(engine) / statistics.median(plain) - 1)


def training(place: BenchPlace) -> list[Figure]:
    """Milliseconds of a step both ways, and the overhead in per cent: every family's smallest model, then the bundled
    bases, with the loss terms of RecA that the family has."""
    data = prepare(
        ImageSource(scenes=QUICK_SCENES if place.quick else SCENES),
        Home(place.folder / "home"),
        lambda progress: None,
        workers=1,
    )
    found: list[Figure] = []
    for model in models(place.folder):
        timed = time_steps(opened(place, model, data), place.quick)
        found += figures(model.name, timed, place)
    return found


def figures(name: str, timed: Timed, place: BenchPlace) -> list[Figure]:
    """Medians, and the overhead. Pure but for the device's name."""
    device = choose_device("auto").type
    images = QUICK_IMAGES_PER_STEP if place.quick else IMAGES_PER_STEP
    engine, plain = timed.engine, timed.plain
    how = f"median of {len(engine.clock)}, {images} pictures, float32, {device}, {torch.get_num_threads()} threads"
    values = [
        ("engine's step", MILLISECONDS * statistics.median(engine.clock), "ms"),
        ("plain step", MILLISECONDS * statistics.median(plain.clock), "ms"),
        ("engine over plain", overhead(engine.clock, plain.clock), "%"),
        ("engine over plain, processor time", overhead(engine.processor, plain.processor), "%"),
    ]
    return [Figure(what=f"{name}, {what}", value=value, unit=unit, how=how) for what, value, unit in values]


def models(folder: Path) -> Iterator[ResolvedModel]:
    """The smallest model of every family, written below ``folder``, and the bundled ones where they are."""
    for family in FAMILIES:
        directory = folder / "models" / family
        adapter_class(family).smallest().save(directory)
        yield _resolved(f"smallest {family}", family, directory)
    for name, path in BUNDLED_MODELS.items():
        yield _resolved(name, Path(path).parent.name, PACKAGE_ROOT / path)


def _resolved(name: str, family: str, directory: Path) -> ResolvedModel:
    return ResolvedModel(name=name, family=family, path=str(directory), sha256=sha256_tree(directory))


def opened(place: BenchPlace, model: ResolvedModel, data: PreparedData) -> Training:
    """A training of the model that has not taken a step."""
    answers = float(issubclass(adapter_class(model.family), AnswersInText))
    plan = TrainingPlan(
        steps=NEVER,
        images_per_step=QUICK_IMAGES_PER_STEP if place.quick else IMAGES_PER_STEP,
        learning_rate=1e-5,
        checkpoint_every_steps=NEVER,
        preview_every_steps=NEVER,
    )
    request = TrainRequest(
        model=model,
        data=data,
        losses=LossTerms(reconstruction=1, image_to_text=answers, text=answers),
        captions=CaptionSource(),
        training=plan,
        numerics_version=FAMILIES[model.family].numerics_version,
        run_directory=str(place.folder / "runs" / model.name),
    )
    return Training(request, Layout(0, 1, choose_device(plan.device)), StopRequest())


def time_steps(run: Training, quick: bool) -> Timed:
    """Steps of both kinds in turn; which comes first alternates."""
    wanted = range(QUICK_BATCHES if quick else BATCHES)
    batches = [next(iter(run.data.steps(number, number + 1))) for number in wanted]
    clock, device = Clock(), run.layout.device
    timed = Timed()
    warm, steps = (QUICK_WARM_STEPS, QUICK_STEPS) if quick else (WARM_STEPS, STEPS)
    run.run.path.mkdir(parents=True, exist_ok=True)
    with run.run.log.open("w") as log, contextlib.redirect_stdout(log):  # progress lines go where they always go
        for number in range(warm + steps):
            given = batches[number % len(batches)]
            both: Sequence[tuple[Seconds, Callable[[], object]]] = (
                (timed.engine, partial(_engine_step, run, given, clock)),
                (timed.plain, partial(_plain_step, run, given[0].to(device))),
            )
            for seconds, step in both[:: 1 if number % 2 else -1]:
                _time(step, device, seconds if number >= warm else Seconds())
        if run.metrics:
            run.metrics.flush()
    return timed


def _engine_step(run: Training, batches: Sequence[Batch], clock: Clock) -> None:
    clock.start()
    clock.data_arrived()
    run.take(batches, clock)


def _plain_step(run: Training, batch: Batch) -> None:
    weights: Mapping[str, float] = run.updater.weights
    sums = run.module(batch)
    torch.stack([weights[name] * part.total / part.count for name, part in sums.items()]).sum().backward()
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)


def _time(step: Callable[[], object], device: torch.device, seconds: Seconds) -> None:
    began, processor = time.perf_counter(), time.process_time()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds.clock.append(time.perf_counter() - began)
    seconds.processor.append(time.process_time() - processor)
