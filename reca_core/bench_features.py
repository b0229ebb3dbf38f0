"""What reusing frozen features saves: section ``features`` of ``make bench``.

The same training step with ``training.feature_cache`` off and on, in one process, in turns: what the frozen encoders
cost of a step is what can be saved, so the ratio depends on the model's proportions and on nothing that is cached.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from reca_core.contracts.bench import BenchPlace, Figure
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.home import Home
from reca_core.contracts.lifeline import StopRequest
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.registry import FAMILIES, family_entry
from reca_core.contracts.requests import CaptionSource, ImageSource, LossTerms, TrainingPlan, TrainRequest
from reca_core.data.prepare import prepare
from reca_core.models.load import adapter_class
from reca_core.training.distributed import Layout
from reca_core.training.run import Training

TINY_JANUS = Path(__file__).parent / "models" / "janus" / "tiny"
PICTURES, IMAGES_PER_STEP = 64, 16
ROUNDS, QUICK_ROUNDS = 5, 1
STEPS = PICTURES // IMAGES_PER_STEP
"""Of one round: an epoch, so that every round sees the same pictures."""
RECA_ALONE = LossTerms(reconstruction=1, image_to_text=0, text_to_image=0, text=0)


@dataclass
class Timed:
    """One training that takes a round of steps when it is asked to."""

    training: Training
    done: int = 0

    def round(self) -> float:
        """Seconds per step of the next round, waiting for data included."""
        end = self.done + STEPS
        began = time.perf_counter()
        for number, batches in zip(range(self.done, end), self.training.data.steps(self.done, end), strict=True):
            self.training.updater.step(number, batches, stop=False)
            if self.training.features:
                self.training.features.passed((number + 1) * IMAGES_PER_STEP)
        self.done = end
        return (time.perf_counter() - began) / STEPS


def features(place: BenchPlace) -> list[Figure]:
    """Seconds per step without and with kept features, and how many times faster, per model."""
    data = prepare(_source(), Home(place.folder / "home"), lambda progress: None, workers=1)
    models = [("tiny-janus", "janus", TINY_JANUS)]
    for family in FAMILIES:
        directory = place.folder / family
        adapter_class(family).smallest(seed=0).save(directory)
        models.append((f"smallest {family}", family, directory))
    chosen = models[1:2] if place.quick else models
    return [figure for name, family, directory in chosen for figure in _measured(place, data, name, family, directory)]


def _source() -> ImageSource:
    return ImageSource(source="shapeworld", scenes=PICTURES, scene_size_pixels=64)


def _measured(place: BenchPlace, data: PreparedData, name: str, family: str, directory: Path) -> list[Figure]:
    model = ResolvedModel(name=name, family=family, path=str(directory), sha256=sha256_tree(directory))
    rounds = QUICK_ROUNDS if place.quick else ROUNDS
    off, on = (Timed(_training(place, data, model, choice, rounds)) for choice in ("off", "on"))
    for timed in (off, on):
        timed.round()  # pictures are decoded, features computed
    seconds = [(off.round(), on.round()) for _ in range(rounds)]
    assert on.training.features is not None  # asked for and not refused
    on.training.features.close()
    how = (
        f"{IMAGES_PER_STEP} pictures per step, reconstruction alone, float32, {torch.get_num_threads()} thread(s), "
        f"median of {rounds} epochs of {STEPS} steps in turns"
    )
    without, kept = (statistics.median(part) for part in zip(*seconds, strict=True))
    ratio = statistics.median(one / other for one, other in seconds)
    return [
        Figure(what=f"{name}, step, features computed", value=without, unit="s", how=how),
        Figure(what=f"{name}, step, features kept", value=kept, unit="s", how=how),
        Figure(what=f"{name}, computed / kept", value=ratio, unit="times", how=how),
    ]


def _training(place: BenchPlace, data: PreparedData, model: ResolvedModel, choice: str, rounds: int) -> Training:
    steps = (rounds + 1) * STEPS
    plan = TrainingPlan.model_validate(
        {
            "steps": steps,
            "images_per_step": IMAGES_PER_STEP,
            "preview_every_steps": steps,
            "device": "cpu",
            "feature_cache": choice,
        }
    )
    request = TrainRequest(
        model=model,
        data=data,
        losses=RECA_ALONE,
        captions=CaptionSource(),
        training=plan,
        numerics_version=family_entry(model.family).numerics_version,
        feature_directory=str(Home(place.folder / "home").features),
        run_directory=str(place.folder / f"{model.family}-{model.sha256[:8]}-{choice}"),
    )
    return Training(request, Layout(0, 1, torch.device("cpu")), StopRequest())
