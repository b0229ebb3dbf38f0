"""``preflight``: what a run needs before any of it is started, and a refusal where that cannot fit this machine.

Memory and disk are estimated by a child (``python -m reca_core.launch estimate``), because the control plane loads no
model, once for trainings that need the same; what all of them need together is in tasks/preflight_totals.py. Download
and time come from the hub and from earlier runs of this home, or are said to be unknown.
``training.preflight`` switches it off.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from evaluation.registry import open_benchmark
from reca_core.contracts.base import Record
from reca_core.contracts.disks import Filling
from reca_core.contracts.errors import PrerequisiteMissing, StageFailed
from reca_core.contracts.estimate import SMALL_BYTES, Estimate, EstimateRequest, Need, sized
from reca_core.contracts.files import read_jsonl, write_json
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.hub_models import HUB_MODELS, published_size
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.registry import BUNDLED_MODELS
from reca_core.contracts.requests import (
    EvaluationPlan,
    ImageSource,
    LossTerms,
    ModelChoice,
    TrainingPlan,
    TrainRequest,
)
from tasks import plan, processes
from tasks.artifacts import show_page
from tasks.home import benchmark_data, current_home
from tasks.hub_models import download_bytes, hub_cache
from tasks.leaks import RENDERED_CAPTIONS
from tasks.models import HUB_ID, resolve_model
from tasks.policies import verb
from tasks.preflight_totals import Shortage, StageNeed, disks, overfull, side_by_side
from tasks.progress import note, run_logger
from tasks.sample import prompt_plan
from tasks.trainings import Kind, Planned, Trainings, kinds, prepared

SMALL_PASS = 512
"""Pictures per pass up to which a small model is not measured: the child's imports alone take longer."""
TIMED_STEPS = 20
"""Of an earlier run, its last ones."""
SAME_SPEED = (
    *("stage", "images_per_step", "images_per_pass", "precision", "lora_rank", "activation_checkpointing", "compile"),
    *("processes", "nodes", "sharding", "device"),
)
"""Settings that decide how long a step takes."""


class Preflight(Record):
    """What a run needs."""

    stages: list[StageNeed]
    """Those trainings that are still to be done."""
    download: int | None = None
    """Bytes of the model on the hub that are not here; None where they are not known."""
    on_the_hub: bool = False
    samples: int | None = None
    """Pictures drawn for measuring one model; None where the benchmarks' files are not here."""
    disks: list[Filling] = []
    """What every file system receives, of all that is known."""
    at_a_time: int = 1
    """Trainings beside each other, at most."""
    shortages: list[Shortage] = []
    """Why all of it together does not fit."""


@verb("preflight", "preflight {model.source}")
def preflight(
    images: ImageSource,
    model: ModelChoice,
    training: TrainingPlan,
    trainings: Trainings,
    evaluation: EvaluationPlan | None = None,
) -> Preflight | None:
    """What the run needs. Raises PrerequisiteMissing where it cannot fit, naming the settings that would make it.

    Args:
        training: says whether to look.
        evaluation: what is measured, if anything is.
    """
    if training.preflight == "off":
        note("preflight: switched off (training.preflight)")
        return None
    found = foresee(current_home(), images, model, trainings, evaluation, every=training.preflight == "always")
    for line in lines(found):
        note(f"preflight: {line}")
    show_page("\n".join(f"- {line}" for line in lines(found)), "preflight", "What this run needs")
    refuse(found)
    return found


def foresee(
    home: Home,
    images: ImageSource,
    model: ModelChoice,
    trainings: Trainings,
    evaluation: EvaluationPlan | None,
    *,
    every: bool,
) -> Preflight:
    """What the run needs; ``every`` measures tiny and absent models too. Raises what makes the settings impossible."""
    on_the_hub = model.source not in BUNDLED_MODELS and HUB_ID.fullmatch(model.source) is not None
    here = None if on_the_hub else resolve_model(model)
    data = prepared(home, images)
    samples = _samples(evaluation) if evaluation else 0
    start = _Start(home, images, data, model, here)
    stages = [_stage(start, kind, samples or 0, every) for kind in kinds(home, trainings, here, data)]
    download = download_bytes(model, home) if on_the_hub else 0
    at_a_time = trainings.at_a_time
    filled = disks(home, stages, at_a_time, download or 0, hub_cache(home))
    short = (side_by_side(stages, at_a_time), overfull(filled, stages, at_a_time))
    return Preflight(
        stages=stages,
        download=download,
        on_the_hub=on_the_hub,
        samples=samples,
        disks=filled,
        at_a_time=at_a_time,
        shortages=[shortage for shortage in short if shortage],
    )


@dataclass(frozen=True)
class _Start:
    """What all trainings of a run start from."""

    home: Home
    images: ImageSource
    data: PreparedData | None
    """None while the pictures are not prepared."""
    model: ModelChoice
    here: ResolvedModel | None
    """None while the model is on the hub."""


def _stage(start: _Start, kind: Kind, samples: int, every: bool) -> StageNeed:
    like = kind.like
    need = StageNeed(
        stage=kind.stage,
        training=like.training,
        trainings=kind.count,
        measured=like.measured,
        written=list(kind.written),
        unknown=_unknown(start, like, every),
    )
    if not need.unknown:
        # The base's pictures are drawn as well as the trained model's.
        drawn = 2 * samples if like.measured else 0
        need = need.model_copy(update=_estimated(start, kind, drawn))
    timed = seconds_per_step(start.home, start.here, like.losses, like.training) if start.here else None
    if timed:
        seconds = timed[0] * like.training.steps * kind.count
        need = need.model_copy(update={"seconds": seconds, "seconds_from": timed[1]})
    return need


def _unknown(start: _Start, like: Planned, every: bool) -> str:
    """Why a training cannot or need not be estimated; empty where it is."""
    losses, training, model, here = like.losses, like.training, start.model, start.here
    if here is None and not published_size(_named(model)):
        return f"memory and disk: the sizes of {model.source} are known once it is downloaded"
    if here is None and not every:
        return f"memory and disk: {model.source} is not here yet (training.preflight=always takes its published size)"
    source = plan.placed_captions(start.home, like.captions).source
    replays = losses.image_to_text + losses.text_to_image + losses.text > 0
    if replays and source != RENDERED_CAPTIONS and not Path(source).is_file():
        return f"memory and disk: known once {source} is there, which says how long the texts are"
    share = training.images_per_pass or -(-training.images_per_step // (training.processes * training.nodes))
    weights = _weights_bytes(Path(here.path)) if here else SMALL_BYTES + 1
    if not every and weights <= SMALL_BYTES and share <= SMALL_PASS:
        return f"memory: {sized(weights)} of weights are too few to be measured (training.preflight=always does)"
    return ""


def _named(model: ModelChoice) -> str:
    """Its key in ``HUB_MODELS`` if it is there."""
    return f"{model.source}/{model.weights}" if model.weights else model.source


def _weights_bytes(directory: Path) -> int:
    """Of its files, links followed: those of a model from the hub are links."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _samples(evaluation: EvaluationPlan) -> int | None:
    """Pictures of one model."""
    try:
        opened = [open_benchmark(name, prompt_plan(evaluation), benchmark_data()) for name in evaluation.benchmarks]
    except PrerequisiteMissing:
        return None
    return sum(len(prompt.seeds) for benchmark in opened for prompt in benchmark.prompts())


def _estimated(start: _Start, kind: Kind, drawn: int) -> dict[str, object]:
    """Ask the child; what it says, by field. A child that fails for no reason of ours is told of and stops nothing."""
    home, images, data, here = start.home, start.images, start.data, start.here
    rendered = images.source == RENDERED_CAPTIONS
    sides = {"picture_pixels": images.scene_size_pixels, "pictures": images.scenes} if rendered else {}
    sides |= {"pictures": data.pictures} if data else {}
    with tempfile.TemporaryDirectory(prefix="reca-preflight-") as scratch:
        answer = Path(scratch) / "estimate.json"
        request = EstimateRequest(
            family=here.family if here else HUB_MODELS[_named(start.model)].family,
            path=here.path if here else "",
            size="" if here else published_size(_named(start.model)),
            losses=kind.like.losses,
            captions=plan.placed_captions(home, kind.like.captions),
            training=kind.like.training,
            samples=drawn,
            directory=str(home.root / "runs"),
            written=max(kind.written),
            feature_directory=str(home.features),
            answer=str(answer),
            **sides,
        )
        write_json(Path(scratch) / "request.json", request.model_dump())
        command = processes.module_command("reca_core.launch", "estimate", str(Path(scratch) / "request.json"))
        try:
            processes.run_child(command, Path(scratch) / "log.txt", run_logger().info, lambda progress: None)
        except StageFailed as error:
            return {"unknown": f"memory and disk: could not be estimated: {error.fact}"}
        return {"estimate": Estimate.model_validate_json(answer.read_bytes())}


def seconds_per_step(
    home: Home, model: ResolvedModel, losses: LossTerms, training: TrainingPlan
) -> tuple[float, str] | None:
    """Median of the newest earlier training of the same weights with the same load, and its directory."""
    files = (home.root / "runs").glob("*/request.json")
    for file in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            earlier = TrainRequest.model_validate_json(file.read_bytes())
        except ValidationError:  # a preparation, or of another version
            continue
        same = all(getattr(earlier.training, name) == getattr(training, name) for name in SAME_SPEED)
        metrics = RunDirectory(file.parent).metrics
        if same and (earlier.model.sha256, earlier.losses) == (model.sha256, losses) and metrics.is_file():
            seconds = [float(row["seconds"]) for row in deque(read_jsonl(metrics), maxlen=TIMED_STEPS)]
            if seconds:
                return statistics.median(seconds), str(file.parent)
    return None


# ---- in words --------------------------------------------------------------------------------------------------


def lines(found: Preflight) -> list[str]:
    """The estimate for people; stages of which the same is said are named together."""
    said: dict[str, list[str]] = {}
    for stage in found.stages:
        for line in _stage_lines(stage):
            said.setdefault(line, []).append(stage.stage)
    every = len(found.stages)
    told = [
        f"{'every training' if len(stages) == every > 1 else ', '.join(stages)}: {line}"
        for line, stages in said.items()
    ]
    if not found.stages:
        told.append("every training is done already")
    if found.on_the_hub:
        known = found.download is not None
        told.append(f"download: {sized(found.download or 0)}" if known else "download: the hub did not say how much")
    if found.samples is None:
        told.append("samples: known once the benchmarks' files are here")
    for disk in found.disks:
        parts = ", ".join(f"{what} {sized(size)}" for what, size in disk.parts.items())
        told.append(f"disk at {disk.place}: {parts}; free: {sized(disk.free)}")
    return told


def _stage_lines(found: StageNeed) -> Iterator[str]:
    if found.unknown:
        yield found.unknown
    if found.estimate:
        yield from _estimate_lines(found.estimate)
    if found.seconds is None:
        yield "time: no earlier run of this model with these settings says"
    else:
        yield f"time: {found.seconds:.0f} s for all steps, at the speed of {found.seconds_from}"


def _estimate_lines(answer: Estimate) -> Iterator[str]:
    need = answer.need
    counted = ", ".join(f"{count:,} {kind}" for kind, count in answer.parameters.items())
    sizes = "the published size" if answer.published else "these weights"
    yield f"parameters of {sizes}: {counted}; {answer.trained:,} trained"
    parts = ", ".join(f"{name} {sized(size)}" for name, size in need.process.items())
    yield f"one process at {need.images_per_pass} pictures per pass: {parts}"
    if answer.device == "cuda":
        free = ", ".join(map(sized, answer.device_available)) or "not known"
        yield f"GPU memory: {sized(need.device_peak)} per process; free: {free}"
    moment = max(need.host, key=lambda name: need.host[name])
    imports = f"besides {sized(answer.imports)} per process for the program itself"
    host = "not known" if answer.host_available is None else sized(answer.host_available)
    yield f"host memory: {sized(need.host_peak)} at {moment}, {imports}; free: {host}"
    checkpoints = f"{need.checkpoints_kept} checkpoints of {sized(need.checkpoint)}"
    rest = f"final model {sized(need.final)}, samples at most {sized(need.samples)}"
    rest += f", frozen features {sized(need.features)}" if need.features else ""
    yield f"disk: {sized(need.disk)}: {checkpoints}, {rest}; free: {sized(answer.disk_available)}"
    yield from answer.notes


def refuse(found: Preflight) -> None:
    """Raises PrerequisiteMissing where something does not fit, naming what would make it fit."""
    for stage in found.stages:
        answer = stage.estimate
        if answer is None or not answer.shortages:
            continue
        switch = "training.preflight=off starts it all the same"
        raise PrerequisiteMissing(
            f"the {stage.stage} stage does not fit: {'; '.join(answer.shortages)}",
            field="training",
            choices=[in_settings(need) for need in answer.remedies],
            remedy=f"each choice was estimated and fits{_alone(found)}; {switch}"
            if answer.remedies
            else f"no setting that was tried makes it fit: take a smaller model or a larger machine; {switch}",
        )
    for short in found.shortages:
        raise PrerequisiteMissing(short.fact, field=short.field, choices=short.choices, remedy=short.remedy)


def _alone(found: Preflight) -> str:
    """Estimates are of one training; where several were to run beside each other, that is said."""
    return " where one training runs at a time (sweep.parallel_trainings=1)" if found.at_a_time > 1 else ""


def in_settings(need: Need) -> str:
    """Such as ``training.images_per_pass=4 (host 3.0 GiB, disk 2.0 GiB)``."""
    words: Sequence[str] = [f"training.{name}={str(value).lower()}" for name, value in need.changed.items()]
    gpu = f"GPU {sized(need.device_peak)}, " if need.device_peak else ""
    return f"{' '.join(words)} ({gpu}host {sized(need.host_peak)}, disk {sized(need.disk)})"
