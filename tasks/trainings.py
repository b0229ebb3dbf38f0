"""The trainings of a run, as far as they can be seen before it: which they are, how many are alike, which are done.

What is done is found as the run will find it, by the hash of its request, which is known where the pictures are
prepared and the weights it starts from are here. Nothing is written and no weights are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from reca_core.contracts.base import Record
from reca_core.contracts.disks import tree_bytes
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.hashing import canonical_json
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.records import PreparedData, ResolvedModel, TrainResult
from reca_core.contracts.requests import CaptionSource, FineTuning, ImageSource, LossTerms, TrainingPlan, TrainRequest
from reca_core.contracts.study import StudyPlan
from reca_core.contracts.sweep import SweepPlan
from tasks import plan
from tasks.home import benchmark_data
from tasks.leaks import leak_file
from tasks.prepare import manifest_fault
from tasks.study_legs import Repetition, legs
from tasks.sweep_arms import sweep_arms

R = TypeVar("R", bound=Record)
NEEDS_NOTHING = ("seed", "learning_rate", "schedule", "schedule_steps", "warmup_steps")
"""Settings of a training on which no size depends."""


@dataclass(frozen=True)
class Planned:
    """One training."""

    stage: str
    losses: LossTerms
    captions: CaptionSource
    training: TrainingPlan
    measured: bool = True
    """Whether pictures are drawn from its weights, if the run draws any."""
    follows: bool = False
    """It starts from the weights of the training before it, not from the run's model."""


@dataclass(frozen=True)
class Trainings:
    """All trainings of a run."""

    planned: tuple[Planned, ...]
    at_a_time: int = 1
    """How many of them run beside each other, at most."""

    @classmethod
    def chain(
        cls, losses: LossTerms, captions: CaptionSource, training: TrainingPlan, fine_tuning: FineTuning
    ) -> Trainings:
        """Fine-tuning, where it is asked for, and the training after it."""
        main = Planned("train", losses, captions, training, follows=fine_tuning.steps > 0)
        if not fine_tuning.steps:
            return cls((main,))
        parts = plan.fine_tuning_parts(fine_tuning, training, captions)
        return cls((Planned("fine-tune", *parts, measured=False), main))

    @classmethod
    def of_sweep(
        cls, sweep: SweepPlan, losses: LossTerms, captions: CaptionSource, training: TrainingPlan
    ) -> Trainings:
        """One of every setting."""
        made = (
            Planned(f"train {arm.name}", arm.losses, captions, arm.training)
            for arm in sweep_arms(sweep, losses, training)
        )
        return cls(tuple(made), sweep.parallel_trainings)

    @classmethod
    def of_study(
        cls, study: StudyPlan, losses: LossTerms, captions: CaptionSource, training: TrainingPlan
    ) -> Trainings:
        """Those of every arm, one after another, in every repetition."""
        made: list[Planned] = []
        for number in range(study.repetitions):
            repetition = Repetition.of(study, captions, training, number)
            for arm in study.arms:
                parts = [repetition.seeded(leg) for leg in legs(arm, losses, training)]
                for place, leg in enumerate(parts, 1):
                    part = f", stage {place}" if len(parts) > 1 else ""
                    name = f"train {arm}, seed {repetition.seed}{part}"
                    last = place == len(parts)
                    made.append(Planned(name, leg.losses, repetition.captions, leg.training, last, place > 1))
        return cls(tuple(made))


@dataclass(frozen=True)
class Kind:
    """Trainings that need the same."""

    like: Planned
    """The first of those that are still to be done."""
    count: int
    """How many these are."""
    written: tuple[int, ...]
    """Bytes that earlier attempts at each of them have left."""

    @property
    def stage(self) -> str:
        """All of them in words."""
        return f"{self.like.stage} and {self.count - 1} like it" if self.count > 1 else self.like.stage


def kinds(home: Home, trainings: Trainings, model: ResolvedModel | None, data: PreparedData | None) -> list[Kind]:
    """The trainings that are still to be done, those together that need the same."""
    found: dict[str, list[tuple[Planned, int]]] = {}
    before: ResolvedModel | None = None
    for planned in trainings.planned:
        request = _request(home, planned, before if planned.follows else model, data)
        before = _made_by(request) if request else None
        if before is None:
            written = tree_bytes(Path(request.run_directory)) if request else 0
            found.setdefault(_needs(planned), []).append((planned, written))
    return [Kind(alike[0][0], len(alike), tuple(size for _, size in alike)) for alike in found.values()]


def _needs(planned: Planned) -> str:
    """What decides how much a training takes: equal where that is equal."""
    return canonical_json(
        {
            "losses": [weight > 0 for weight in planned.losses.model_dump().values()],
            "captions": planned.captions.model_dump(exclude={"seed"}),
            "training": planned.training.model_dump(exclude=set(NEEDS_NOTHING)),
            "measured": planned.measured,
        }
    )


def _request(
    home: Home, planned: Planned, model: ResolvedModel | None, data: PreparedData | None
) -> TrainRequest | None:
    """None while something is missing that its identity depends on."""
    if model is None or data is None:
        return None
    try:
        return complete_request(home, model, data, planned.losses, planned.captions, planned.training)
    except PrerequisiteMissing:
        return None


def complete_request(
    home: Home,
    model: ResolvedModel,
    data: PreparedData,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
) -> TrainRequest:
    """What the run will ask for, leak file and place of the captions included.

    Raises PrerequisiteMissing for a file that is not there.
    """
    placed = plan.placed_captions(home, captions)
    leaks = leak_file(home, placed, losses, benchmark_data())
    return plan.train_request(home, model, data, losses, placed, training, leaks)


def _made_by(request: TrainRequest) -> ResolvedModel | None:
    """The weights of a training that has ended; whether they are as they were is for the run to find out."""
    done = read_result(RunDirectory(Path(request.run_directory)), TrainResult)
    if done is None or not Path(done.checkpoint.path).is_dir():
        return None
    return request.model.model_copy(update={"path": done.checkpoint.path, "sha256": done.checkpoint.sha256})


def prepared(home: Home, images: ImageSource) -> PreparedData | None:
    """The picture set that the last look at these images made, where it is still there."""
    request = plan.prepare_request(home, images)
    done = read_result(RunDirectory(Path(request.run_directory)), PreparedData)
    return done if done and not manifest_fault(done) else None


def read_result(directory: RunDirectory, kind: type[R]) -> R | None:
    """A stage's result if there is one that can be read. Unlike a run, a look removes nothing."""
    try:
        return kind.model_validate_json(directory.done.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def dearest(sizes: Sequence[tuple[int, int]], count: int) -> int:
    """The sum of the largest ``count`` of (size, how often)."""
    every = sorted((size for size, often in sizes for _ in range(often)), reverse=True)
    return sum(every[:count])
