"""``preflight``: what a run needs before any of it is started, and a refusal where that cannot fit this machine.

Memory and disk are estimated by a child (``python -m reca_core.launch estimate``), because the control plane loads no
model; download and time come from the hub and from earlier runs of this home, or are said to be unknown.
``training.preflight`` switches it off.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from evaluation.registry import open_benchmark
from reca_core.contracts.base import Record
from reca_core.contracts.errors import PrerequisiteMissing, StageFailed
from reca_core.contracts.estimate import Estimate, EstimateRequest, Need, sized
from reca_core.contracts.files import read_jsonl, write_json
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.hub_models import HUB_MODELS, published_size
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import BUNDLED_MODELS
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    FineTuning,
    ImageSource,
    LossTerms,
    ModelChoice,
    TrainingPlan,
    TrainRequest,
)
from tasks import plan, processes
from tasks.artifacts import show_page
from tasks.home import benchmark_data, current_home
from tasks.hub_models import download_bytes
from tasks.leaks import RENDERED_CAPTIONS
from tasks.models import HUB_ID, resolve_model
from tasks.policies import verb
from tasks.progress import note, run_logger
from tasks.sample import prompt_plan

SMALL_BYTES = 64 << 20
"""Weights of a model that a run does not measure: the child's imports alone take longer than they are worth."""
SMALL_PASS = 512
"""Pictures per pass up to which that holds."""
TIMED_STEPS = 20
"""Of an earlier run, its last ones."""
SAME_SPEED = (
    *("stage", "images_per_step", "images_per_pass", "precision", "lora_rank", "activation_checkpointing", "compile"),
    *("processes", "nodes", "sharding", "device"),
)
"""Settings that decide how long a step takes."""


class StageNeed(Record):
    """One training of the run."""

    stage: str
    """fine-tune or train."""
    estimate: Estimate | None = None
    unknown: str = ""
    """Why there is no estimate; empty where there is one."""
    seconds: float | None = None
    """All steps, at the speed of an earlier run; None where there was none."""
    seconds_from: str = ""
    """That run's directory."""


class Preflight(Record):
    """What a run needs."""

    stages: list[StageNeed]
    download: int | None = None
    """Bytes of the model on the hub; None where they are not known."""
    on_the_hub: bool = False
    samples: int | None = None
    """Pictures drawn for measuring; None where the benchmarks' files are not here."""


@verb("preflight", "preflight {model.source}")
def preflight(
    images: ImageSource,
    model: ModelChoice,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
    fine_tuning: FineTuning,
    evaluation: EvaluationPlan | None = None,
) -> Preflight | None:
    """What the run needs. Raises PrerequisiteMissing where it cannot fit, naming the settings that would make it."""
    if training.preflight == "off":
        note("preflight: switched off (training.preflight)")
        return None
    every = training.preflight == "always"
    found = foresee(current_home(), images, model, losses, captions, training, fine_tuning, evaluation, every=every)
    for line in lines(found):
        note(f"preflight: {line}")
    show_page("\n".join(f"- {line}" for line in lines(found)), "preflight", "What this run needs")
    refuse(found)
    return found


def foresee(
    home: Home,
    images: ImageSource,
    model: ModelChoice,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
    fine_tuning: FineTuning,
    evaluation: EvaluationPlan | None,
    *,
    every: bool,
) -> Preflight:
    """What the run needs; ``every`` measures tiny and absent models too. Raises what makes the settings impossible."""
    on_the_hub = model.source not in BUNDLED_MODELS and HUB_ID.fullmatch(model.source) is not None
    here = None if on_the_hub else resolve_model(model)
    samples = _samples(evaluation) if evaluation else 0
    trainings = [("train", losses, captions, training)]
    if fine_tuning.steps:
        trainings.insert(0, ("fine-tune", *plan.fine_tuning_parts(fine_tuning, training)))
    stages = []
    for stage, terms, source, settings in trainings:
        need = StageNeed(stage=stage, unknown=_unknown(home, model, here, terms, source, settings, every))
        if not need.unknown:
            need = _estimated(stage, home, images, model, here, terms, source, settings, samples or 0)
        timed = seconds_per_step(home, here, terms, settings) if here else None
        if timed:
            need = need.model_copy(update={"seconds": timed[0] * settings.steps, "seconds_from": timed[1]})
        stages.append(need)
    download = download_bytes(model) if on_the_hub else 0
    return Preflight(stages=stages, download=download, on_the_hub=on_the_hub, samples=samples)


def _unknown(
    home: Home,
    model: ModelChoice,
    here: ResolvedModel | None,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
    every: bool,
) -> str:
    """Why a training cannot or need not be estimated; empty where it is."""
    if here is None and not published_size(_named(model)):
        return f"memory and disk: the sizes of {model.source} are known once it is downloaded"
    if here is None and not every:
        return f"memory and disk: {model.source} is not here yet (training.preflight=always takes its published size)"
    source = plan.placed_captions(home, captions).source
    replays = losses.image_to_text + losses.text_to_image + losses.text > 0
    if replays and source != RENDERED_CAPTIONS and not Path(source).is_file():
        return f"memory and disk: known once {source} is there, which says how long the texts are"
    share = training.images_per_pass or -(-training.images_per_step // (training.processes * training.nodes))
    weights = _tree_bytes(Path(here.path)) if here else SMALL_BYTES + 1
    if not every and weights <= SMALL_BYTES and share <= SMALL_PASS:
        return f"memory: {sized(weights)} of weights are too few to be measured (training.preflight=always does)"
    return ""


def _named(model: ModelChoice) -> str:
    """Its key in ``HUB_MODELS`` if it is there."""
    return f"{model.source}/{model.weights}" if model.weights else model.source


def _tree_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _samples(evaluation: EvaluationPlan) -> int | None:
    """Pictures of base and trained model."""
    try:
        opened = [open_benchmark(name, prompt_plan(evaluation), benchmark_data()) for name in evaluation.benchmarks]
    except PrerequisiteMissing:
        return None
    return 2 * sum(len(prompt.seeds) for benchmark in opened for prompt in benchmark.prompts())


def _estimated(
    stage: str,
    home: Home,
    images: ImageSource,
    model: ModelChoice,
    here: ResolvedModel | None,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
    samples: int,
) -> StageNeed:
    """Ask the child. A child that fails for no reason of ours is told of and stops nothing."""
    rendered = images.source == RENDERED_CAPTIONS
    sides = {"picture_pixels": images.scene_size_pixels, "pictures": images.scenes} if rendered else {}
    with tempfile.TemporaryDirectory(prefix="reca-preflight-") as scratch:
        answer = Path(scratch) / "estimate.json"
        request = EstimateRequest(
            family=here.family if here else HUB_MODELS[_named(model)].family,
            path=here.path if here else "",
            size="" if here else published_size(_named(model)),
            losses=losses,
            captions=plan.placed_captions(home, captions),
            training=training,
            samples=samples,
            directory=str(home.root),
            answer=str(answer),
            **sides,
        )
        write_json(Path(scratch) / "request.json", request.model_dump())
        command = processes.module_command("reca_core.launch", "estimate", str(Path(scratch) / "request.json"))
        try:
            processes.run_child(command, Path(scratch) / "log.txt", run_logger().info, lambda progress: None)
        except StageFailed as error:
            return StageNeed(stage=stage, unknown=f"memory and disk: could not be estimated: {error.fact}")
        return StageNeed(stage=stage, estimate=Estimate.model_validate_json(answer.read_bytes()))


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
    """The estimate for people."""
    said = [line for stage in found.stages for line in _stage_lines(stage)]
    if found.on_the_hub:
        known = found.download is not None
        said.append(f"download: {sized(found.download or 0)}" if known else "download: the hub did not say how much")
    if found.samples is None:
        said.append("samples: known once the benchmarks' files are here")
    return said


def _stage_lines(found: StageNeed) -> Iterator[str]:
    if found.unknown:
        yield f"{found.stage}: {found.unknown}"
    if found.estimate:
        yield from (f"{found.stage}: {line}" for line in _estimate_lines(found.estimate))
    if found.seconds is None:
        yield f"{found.stage}: time: no earlier run of this model with these settings says"
    else:
        yield f"{found.stage}: time: {found.seconds:.0f} s for all steps, at the speed of {found.seconds_from}"


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
    yield f"host memory: {sized(need.host_peak)} at {moment}, {imports}; free: {sized(answer.host_available)}"
    checkpoints = f"{need.checkpoints_kept} checkpoints of {sized(need.checkpoint)}"
    rest = f"final model {sized(need.final)}, samples at most {sized(need.samples)}"
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
            remedy=f"each choice was estimated and fits; {switch}"
            if answer.remedies
            else f"no setting that was tried makes it fit: take a smaller model or a larger machine; {switch}",
        )


def in_settings(need: Need) -> str:
    """Such as ``training.images_per_pass=4 (host 3.0 GiB, disk 2.0 GiB)``."""
    words: Sequence[str] = [f"training.{name}={str(value).lower()}" for name, value in need.changed.items()]
    gpu = f"GPU {sized(need.device_peak)}, " if need.device_peak else ""
    return f"{' '.join(words)} ({gpu}host {sized(need.host_peak)}, disk {sized(need.disk)})"
