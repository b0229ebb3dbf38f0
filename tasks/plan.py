"""From choices to requests: pure, so that ``--dry-run`` and ``--print-hash`` say exactly what a run would do.

A request's directory is named by its hash, so it can only be filled in after the rest (docs/decisions/0005).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from evaluation.records import CollectRequest, JudgeRequest
from evaluation.registry import data_revision
from reca_core.contracts.base import Config
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.hashing import request_hash, sha256_file
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.registry import family_entry
from reca_core.contracts.requests import (
    AT_HOME,
    CaptionSource,
    EvaluationPlan,
    FineTuning,
    ImageSource,
    LossTerms,
    PrepareRequest,
    SampleRequest,
    SamplingSettings,
    TrainingPlan,
    TrainRequest,
)
from tasks.leaks import RENDERED_CAPTIONS, LeakFile

NO_LEAKS = LeakFile()
PROMPTS_FILE = "prompts.jsonl"
AS_PUBLISHED = {"upstream_parity": False, "understanding_downscale": 0, "understanding_picture": "published"}
"""What varies reconstruction alone: a fine-tuning has none, so it does not depend on it."""

C = TypeVar("C", bound=Config)


def _placed(request: C, **paths: str) -> C:
    return request.model_copy(update=paths)


def prepare_request(home: Home, images: ImageSource) -> PrepareRequest:
    """What the preparation of a picture set reads."""
    request = PrepareRequest(images=images, home=str(home.root), run_directory="")
    return _placed(request, run_directory=str(home.run(request_hash(request)).path))


def train_request(
    home: Home,
    base: ResolvedModel,
    data: PreparedData,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
    leaks: LeakFile = NO_LEAKS,
) -> TrainRequest:
    """What a training reads. Raises PrerequisiteMissing for a caption file that is not there."""
    request = TrainRequest(
        model=base,
        data=data,
        losses=losses,
        captions=captions,
        captions_sha256=_captions_sha256(captions),
        leaks_file=leaks.path,
        leaks_sha256=leaks.sha256,
        training=training,
        numerics_version=family_entry(base.family).numerics_version,
        feature_directory=str(home.features),
        run_directory="",
    )
    return _placed(request, run_directory=str(home.run(request_hash(request)).path))


def fine_tuning_parts(
    fine_tuning: FineTuning, training: TrainingPlan, captions: CaptionSource
) -> tuple[LossTerms, CaptionSource, TrainingPlan]:
    """The first stage of a chain as a training of its own; what it does not say is as in the second.

    The leak filter is that of the run's ``captions``. A best checkpoint by a term that this stage has not is one by
    the whole loss.
    """
    losses = LossTerms(
        reconstruction=0, image_to_text=fine_tuning.image_to_text, text_to_image=fine_tuning.text_to_image, text=0
    )
    own = ("steps", "images_per_step", "learning_rate", "warmup_steps", "schedule")
    changed = {name: getattr(fine_tuning, name) for name in own}
    # Features are kept of the data set's pictures, which only reconstruction looks at.
    correct: dict[str, object] = {"schedule_steps": 0, "feature_cache": "off", **AS_PUBLISHED}
    if training.best_by != "off" and not losses.model_dump().get(training.best_by):
        correct["best_by"] = "loss"
    read = CaptionSource(source=fine_tuning.captions, leak_filter=captions.leak_filter)
    return losses, read, training.model_copy(update=changed | correct)


def fine_tuned_name(base: ResolvedModel) -> str:
    """Of the weights between the two stages."""
    return f"{base.name}-fine-tuned"


def placed_captions(home: Home, captions: CaptionSource) -> CaptionSource:
    """With ``home:FILE`` as the path that it means here."""
    name = captions.source.removeprefix(AT_HOME)
    return captions if name == captions.source else captions.model_copy(update={"source": str(home.root / name)})


def _captions_sha256(captions: CaptionSource) -> str:
    if captions.source == RENDERED_CAPTIONS:
        return ""
    file = Path(captions.source)
    if not file.is_file():
        raise PrerequisiteMissing(
            f"{file} is not a file",
            field="captions.source",
            choices=(RENDERED_CAPTIONS, "/absolute/captions.json"),
        )
    return sha256_file(file)


def sample_request(
    home: Home,
    model: ResolvedModel,
    prompts_sha256: str,
    sampling: SamplingSettings,
    task: Literal["draw", "reconstruct", "edit", "describe"] = "draw",
) -> SampleRequest:
    """What a sampling reads; the prompts file lies in its directory."""
    request = SampleRequest(
        model=model,
        task=task,
        prompts_file="",
        prompts_sha256=prompts_sha256,
        sampling=sampling,
        numerics_version=family_entry(model.family).numerics_version,
        output_directory="",
    )
    directory = home.samples(request_hash(request)).path
    return _placed(request, prompts_file=str(directory / PROMPTS_FILE), output_directory=str(directory))


def collect_request(
    home: Home, benchmark: str, numerics_version: int, evaluation: EvaluationPlan, benchmark_data: str
) -> CollectRequest:
    """What a look at a folder of pictures reads."""
    request = CollectRequest(
        benchmark=benchmark,
        pictures_from=evaluation.pictures_from,
        pictures_missing=evaluation.pictures_missing,
        dpg_files=evaluation.dpg_files,
        prompts_per_tag=evaluation.prompts_per_tag,
        first_seed=evaluation.first_seed,
        numerics_version=numerics_version,
        benchmark_data=benchmark_data,
        output_directory="",
    )
    return _placed(request, output_directory=str(home.samples(request_hash(request)).path))


def judge_request(
    home: Home,
    benchmark: str,
    numerics_version: int,
    samples: RunDirectory,
    prompts_sha256: str,
    samples_sha256: str,
    evaluation: EvaluationPlan,
    judge: SettledJudge,
    benchmark_data: str,
    occasion: str = "",
) -> JudgeRequest:
    """What a judging reads. With an occasion it is one of its own: nothing of another one is reused."""
    request = JudgeRequest(
        benchmark=benchmark,
        prompts_sha256=prompts_sha256,
        samples_sha256=samples_sha256,
        prompts_per_tag=evaluation.prompts_per_tag,
        pictures_per_prompt=evaluation.pictures_per_prompt,
        first_seed=evaluation.first_seed,
        judge=judge,
        resamples=evaluation.resamples,
        numerics_version=numerics_version,
        data_revision=data_revision(benchmark),
        occasion=occasion,
        prompts_file=str(samples.path / PROMPTS_FILE),
        samples_directory=str(samples.path),
        benchmark_data=benchmark_data,
        cache=str(home.cache),
        output_directory="",
    )
    return _placed(request, output_directory=str(home.answers(request_hash(request)).path))
