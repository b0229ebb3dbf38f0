"""What no single field can say: faults between settings, all of them at once, before anything is started.

Pure: looks at the settings alone, never at files or servers. Every flow calls ``check`` first, because Prefect's form
checks fields one by one; ``reca --dry-run`` calls it too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from evaluation.registry import benchmark_faults
from reca_core.contracts.base import Config
from reca_core.contracts.errors import BadInput
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.requests import (
    AT_HOME,
    CaptionSource,
    EvaluationPlan,
    FineTuning,
    ImageSource,
    LossTerms,
    Registration,
    TrainingPlan,
    VersionChoice,
)
from reca_core.contracts.stages import AUTOENCODER_STAGES, division_faults
from reca_core.contracts.study import StudyPlan
from reca_core.contracts.sweep import SweepPlan
from reca_core.contracts.versions import Promotion, Rollback
from reca_core.contracts.world import FIRST_REPORTING_SEED, FIRST_TRAINING_SCENE
from tasks.validate_study import arm_faults

RENDERED = "shapeworld"
RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
"""Aliases that MLflow refuses."""

FEWEST_SETTINGS = 2

C = TypeVar("C", bound=Config)


class ManyFaults(BadInput):
    """Everything that is wrong with the settings of a run."""

    def __init__(self, faults: Sequence[BadInput]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(fault.render() for fault in faults))


class Settings:
    """The settings of one run by class; a class the flow does not take has its defaults, which are never at fault."""

    def __init__(self, given: Sequence[Config]) -> None:
        self._given = {type(config): config for config in given}

    def has(self, owner: type[Config]) -> bool:
        """True if the flow takes settings of this class."""
        return owner in self._given

    def of(self, owner: type[C]) -> C:
        """The settings of one class."""
        found = self._given.get(owner)
        return found if isinstance(found, owner) else owner()


def check(*settings: Config) -> None:
    """Raise ManyFaults if the settings of a run cannot be meant together."""
    found = faults(*settings)
    if found:
        raise ManyFaults(found)


def faults(*settings: Config) -> list[BadInput]:
    """All faults of the settings of a run, each with fact, field, choices and remedy."""
    given = Settings(settings)
    return [fault for rule in RULES for fault in rule(given)]


def _images(given: Settings) -> Iterator[BadInput]:
    images = given.of(ImageSource)
    rendered = images.source == RENDERED
    if images.kind == "shapeworld" and not rendered:
        yield BadInput(
            f"kind is shapeworld, but the source is {images.source!r}",
            field="images.kind",
            choices=("auto", "folder", "datasets", "webdataset"),
        )
    if images.kind == "folder" and not os.path.isabs(images.source):
        yield BadInput(
            f"{images.source!r} is not an absolute path",
            field="images.source",
            remedy="flows know no current directory: write the whole path",
        )


def _losses(given: Settings) -> Iterator[BadInput]:
    losses, stage = given.of(LossTerms), given.of(TrainingPlan).stage
    if stage not in AUTOENCODER_STAGES and not any(losses.model_dump().values()):
        yield BadInput("every loss has weight 0: nothing would be learned", field="losses", remedy="RecA is 1, 0, 0, 0")


def _captions(given: Settings) -> Iterator[BadInput]:
    named = [("captions.source", given.of(CaptionSource).source)]
    named += [("fine_tuning.captions", given.of(FineTuning).captions)]
    for field, source in named:
        if source != RENDERED and not source.startswith(AT_HOME) and not os.path.isabs(source):
            yield BadInput(
                f"{source!r} is neither {RENDERED} nor an absolute path",
                field=field,
                choices=(RENDERED, "/absolute/captions.json", f"{AT_HOME}captions.json"),
            )


def _training(given: Settings) -> Iterator[BadInput]:
    training = given.of(TrainingPlan)
    length = training.schedule_steps or training.steps
    if training.warmup_steps > training.steps:  # equal is a ramp and nothing else: the published BAGEL run is one
        yield BadInput(
            f"{training.warmup_steps} steps of warm-up do not fit into {training.steps} steps",
            field="training.warmup_steps",
            remedy=f"at most {training.steps}",
        )
    if length < training.steps:
        yield BadInput(
            f"the schedule reaches zero at step {length}, the run has {training.steps}: the rest would train nothing",
            field="training.schedule_steps",
            remedy=f"at least {training.steps}, or 0 for the run's own length",
        )
    yield from _all_zero("training", training.schedule, training.warmup_steps, length)
    world = training.processes * training.nodes
    yield from _shared("training", training.images_per_step, world)
    yield from division_faults(training.stage, world, training.images_per_pass)
    yield from _best(training, given.of(LossTerms))
    yield from _layout(training, world)


def _all_zero(part: str, schedule: str, warmup_steps: int, length: int) -> Iterator[BadInput]:
    """A schedule ends at zero on its last step: where that is the first one too, nothing is learned."""
    if schedule != "constant" and length == 1 and warmup_steps == 0:
        yield BadInput(
            f"a {schedule} schedule of one step has the rate 0: nothing would be trained",
            field=f"{part}.schedule",
            remedy=f"{part}.schedule=constant, {part}.warmup_steps=1, or at least 2 steps",
        )


def _shared(part: str, images: int, world: int) -> Iterator[BadInput]:
    if images < world:
        yield BadInput(
            f"{images} pictures per step cannot be shared by {world} processes",
            field=f"{part}.images_per_step",
            remedy=f"at least {world}",
        )


def _best(training: TrainingPlan, losses: LossTerms) -> Iterator[BadInput]:
    terms = [] if training.stage in AUTOENCODER_STAGES else [n for n, weight in losses.model_dump().items() if weight]
    choices = ("off", "loss", *terms)
    if training.best_by not in choices:
        yield BadInput(f"no {training.best_by} loss is computed", field="training.best_by", choices=choices)


def _fine_tuning(given: Settings) -> Iterator[BadInput]:
    tuning, training = given.of(FineTuning), given.of(TrainingPlan)
    if tuning.steps:
        yield from _shared("fine_tuning", tuning.images_per_step, training.processes * training.nodes)
    if tuning.steps and tuning.warmup_steps > tuning.steps:
        yield BadInput(
            f"{tuning.warmup_steps} steps of warm-up do not fit into {tuning.steps} steps",
            field="fine_tuning.warmup_steps",
            remedy=f"at most {tuning.steps}",
        )
    yield from _all_zero("fine_tuning", tuning.schedule, tuning.warmup_steps, tuning.steps)
    if tuning.steps and not tuning.text_to_image + tuning.image_to_text:
        yield BadInput("every loss of the fine-tuning has weight 0", field="fine_tuning", remedy="or take no step")


def _layout(training: TrainingPlan, world: int) -> Iterator[BadInput]:
    group = training.shard_group
    if training.sharding == "hybrid" and group and world % group:
        divisors = [str(size) for size in range(1, world + 1) if world % size == 0]
        yield BadInput(
            f"{world} processes cannot be divided into groups of {group}",
            field="training.shard_group",
            choices=divisors,
        )
    if training.nodes > 1 and not training.rendezvous:
        yield BadInput(
            f"{training.nodes} machines do not know where to meet",
            field="training.rendezvous",
            remedy="HOST:PORT, a free port of one of them",
        )


def _evaluation(given: Settings) -> Iterator[BadInput]:
    names = given.of(EvaluationPlan).benchmarks
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield BadInput(f"{name} is there more than once", field="evaluation.benchmarks", remedy="name it once")
    for name in dict.fromkeys(names):
        yield from benchmark_faults(name, given.of(JudgeSettings))


def _judge(given: Settings) -> Iterator[BadInput]:
    judge = given.of(JudgeSettings)
    for name in ("weights", "interpreter"):
        value = str(getattr(judge, name))
        if value and not os.path.isabs(value):
            remedy = "flows know no current directory: write the whole path"
            yield BadInput(f"{value!r} is not an absolute path", field=f"judge.{name}", remedy=remedy)


def _pictures(given: Settings) -> Iterator[BadInput]:
    evaluation, field = given.of(EvaluationPlan), "evaluation.pictures_from"
    if not evaluation.pictures_from:
        return
    if given.has(TrainingPlan) or given.has(VersionChoice):
        yield BadInput("this flow draws its pictures itself", field=field, remedy="reca evaluate --images DIR")
    if not os.path.isabs(evaluation.pictures_from):
        remedy = "flows know no current directory: write the whole path"
        yield BadInput(f"{evaluation.pictures_from!r} is not an absolute path", field=field, remedy=remedy)
    if len(evaluation.benchmarks) > 1:
        yield BadInput(
            f"the pictures in a folder are of one benchmark, not of {len(evaluation.benchmarks)}",
            field="evaluation.benchmarks",
            remedy="name one: --benchmark geneval",
        )


def _aliases(given: Settings) -> Iterator[BadInput]:
    named = [("registration.alias", given.of(Registration).alias)]
    named += [("versions.aliases", alias) for alias in given.of(VersionChoice).aliases]
    rule = given.of(Promotion)
    named += [("promotion.champion", rule.champion), ("promotion.challenger", rule.challenger)]
    named += [("rollback.alias", given.of(Rollback).alias)]
    for field, alias in named:
        if RESERVED_ALIAS.fullmatch(alias):
            yield BadInput(
                f"{alias!r} is reserved by MLflow", field=field, remedy="choose another, such as challenger or champion"
            )


def _versions(given: Settings) -> Iterator[BadInput]:
    if not given.has(VersionChoice):
        return
    versions, rule = given.of(VersionChoice), given.of(Promotion)
    if not versions.aliases and not versions.numbers:
        remedy = "name aliases or numbers"
        yield BadInput("no version is asked for", field="versions.aliases", remedy=remedy)
    if rule.decide == "never":
        return
    for field, alias in (("promotion.champion", rule.champion), ("promotion.challenger", rule.challenger)):
        if alias not in versions.aliases:
            fact = f"{alias!r} is not measured, so nothing can be decided about it"
            yield BadInput(fact, field=field, choices=versions.aliases, remedy="add it to versions.aliases")
    if rule.champion == rule.challenger:
        yield BadInput("champion and challenger are the same alias", field="promotion.challenger")
    yield from _metric(rule.metric, given.of(EvaluationPlan))


def _metric(metric: str, evaluation: EvaluationPlan) -> Iterator[BadInput]:
    """A row is only known once it is measured; its benchmark is known now. Ids may get a suffix from the judge."""
    if metric and not any(metric.startswith((f"{name}/", f"{name}.")) for name in evaluation.benchmarks):
        yield BadInput(
            f"{metric!r} is no row of a benchmark that is measured",
            field="promotion.metric",
            choices=[f"{name}/..." for name in evaluation.benchmarks],
        )


def _study(given: Settings) -> Iterator[BadInput]:
    """A study reports or tunes, never both, and learns from no scene that anything is measured on."""
    if not given.has(StudyPlan):
        return
    study, evaluation, training = given.of(StudyPlan), given.of(EvaluationPlan), given.of(TrainingPlan)
    trained = range(study.first_training_seed, study.first_training_seed + study.repetitions)
    drawn = range(evaluation.first_seed, evaluation.first_seed + evaluation.pictures_per_prompt)
    if len({seed >= FIRST_REPORTING_SEED for seed in (trained[0], trained[-1], drawn[0], drawn[-1])}) > 1:
        yield BadInput(
            f"training seeds {trained[0]} to {trained[-1]} and drawing seeds {drawn[0]} to {drawn[-1]} lie on both "
            f"sides of {FIRST_REPORTING_SEED}: those below tune, those from there on report",
            field="study.first_training_seed",
            remedy="move study.first_training_seed and evaluation.first_seed to one side",
        )
    if len(set(study.arms)) < len(study.arms):
        yield BadInput("an arm is there more than once", field="study.arms", remedy="name it once")
    yield from arm_faults(study, given.of(LossTerms), training)
    yield from _scenes(given, study.repetitions * training.steps * training.images_per_step)


def _sweep(given: Settings) -> Iterator[BadInput]:
    """A sweep tries at least two settings, each once, and each of them trains something."""
    if not given.has(SweepPlan):
        return
    sweep = given.of(SweepPlan)
    if len(sweep.learning_rates or [0]) * len(sweep.loss_weights or [0]) < FEWEST_SETTINGS:
        remedy = "name two learning rates or two sets of loss weights, or run train-then-evaluate"
        yield BadInput("one setting is no sweep", field="sweep.learning_rates", remedy=remedy)
    if len(set(sweep.learning_rates)) < len(sweep.learning_rates):
        yield BadInput("a rate is there more than once", field="sweep.learning_rates", remedy="name it once")
    sets = [tuple(weights.model_dump().values()) for weights in sweep.loss_weights]
    if len(set(sets)) < len(sets):
        yield BadInput("a set of weights is there more than once", field="sweep.loss_weights", remedy="name it once")
    if not all(map(any, sets)) and given.of(TrainingPlan).stage not in AUTOENCODER_STAGES:
        yield BadInput("in a set every loss has weight 0", field="sweep.loss_weights", remedy="RecA is 1, 0, 0, 0")


def _scenes(given: Settings, replayed: int) -> Iterator[BadInput]:
    """Rendered pictures and replay scenes, apart from each other and from what is measured."""
    images, captions = given.of(ImageSource), given.of(CaptionSource)
    used: dict[str, range] = {}
    if images.source == RENDERED:
        used["images.scene_seed"] = range(images.scene_seed, images.scene_seed + images.scenes)
    if captions.source == RENDERED:
        used["captions.seed"] = range(captions.seed, captions.seed + replayed)
    for field, scenes in used.items():
        if scenes[0] < FIRST_TRAINING_SCENE:
            remedy = f"at least {FIRST_TRAINING_SCENE}"
            yield BadInput(f"scenes below {FIRST_TRAINING_SCENE} are for measuring", field=field, remedy=remedy)
    if len(used) > 1 and max(scenes[0] for scenes in used.values()) <= min(scenes[-1] for scenes in used.values()):
        fact = f"the pictures are scenes {images.scene_seed} on, {images.scenes} of them, and the replay shows them too"
        yield BadInput(fact, field="captions.seed", remedy="move one of the two seeds")


RULES: tuple[Callable[[Settings], Iterator[BadInput]], ...] = (
    _images,
    _losses,
    _captions,
    _training,
    _fine_tuning,
    _evaluation,
    _judge,
    _pictures,
    _aliases,
    _versions,
    _study,
    _sweep,
)
