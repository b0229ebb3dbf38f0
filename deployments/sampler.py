"""Runs the sampler child for a person: resolves the model, writes the prompts file, keeps to the folder they named.

No flow, no server, no MLflow, unless the model is a registered version. A folder that holds the results of another
request, or pictures that are not ours, is refused before anything is started.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deployments.context import Context
from deployments.environment import enter
from deployments.settings import resolve
from reca_core.contracts.errors import BadInput
from reca_core.contracts.files import atomic_write_text, read_jsonl
from reca_core.contracts.hashing import request_hash, sha256_text
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.records import Prompt, ResolvedModel, Sample, SampleResult
from reca_core.contracts.registry import family_entry
from reca_core.contracts.requests import ModelChoice, SampleRequest, SamplingSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

Task = Literal["draw", "reconstruct", "describe"]
PROMPTS = "prompts.jsonl"


@dataclass(frozen=True)
class Made:
    """What the sampler left in a folder."""

    directory: Path
    samples: tuple[Sample, ...]
    result: SampleResult
    reused: bool


class Sampler:
    """One model with its settings, ready to be used any number of times."""

    def __init__(self, model: str, sets: Sequence[str], context: Context) -> None:
        """Raises BadInput for unknown settings, PrerequisiteMissing where there is no such model."""
        typed = [f"sampling.{assignment.removeprefix('sampling.')}" for assignment in sets]
        self.settings = resolve({"sampling": SamplingSettings}, {}, None, typed)["sampling"]
        self.context = context
        choice = ModelChoice(source=context.source(model))
        enter(context.surroundings)
        self.model = find_model(choice)

    def make(self, task: Task, prompts: Sequence[Prompt], output: Path | None) -> Made:
        """Make the samples in ``output``, or below the home where none is named."""
        text = "".join(prompt.model_dump_json() + "\n" for prompt in prompts)
        home = self.context.surroundings.home
        draft = self._request(task, text, Path("/"))
        directory = output or home.samples(request_hash(draft)).path
        request = self._request(task, text, directory)
        check_folder(directory, request, prompts)
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write_text(directory / PROMPTS, text)
        return self._run(task, request, RunDirectory(directory))

    def _request(self, task: Task, prompts: str, directory: Path) -> SampleRequest:
        return SampleRequest(
            model=self.model,
            task=task,
            prompts_file=str(directory / PROMPTS),
            prompts_sha256=sha256_text(prompts),
            sampling=self.settings,
            numerics_version=family_entry(self.model.family).numerics_version,
            output_directory=str(directory),
        )

    def _run(self, task: Task, request: SampleRequest, directory: RunDirectory) -> Made:
        from tasks.progress import listening
        from tasks.stage import Stage, run_or_reuse

        stage = Stage(
            name=task,
            module="reca_core.launch",
            command="sample",
            request=request,
            directory=directory,
            result=SampleResult,
            fault=lambda result: fault(directory.path, result),
        )
        with listening(self.context.terminal):
            finished = run_or_reuse(stage)
        return Made(directory.path, read_samples(directory.path), finished.result, finished.reused)


def find_model(choice: ModelChoice) -> ResolvedModel:
    """The model a person named; the tracking store is opened for a registered version only."""
    from tasks.models import resolve_model

    return resolve_model(choice)


def read_samples(directory: Path) -> tuple[Sample, ...]:
    """The rows of samples.jsonl."""
    return tuple(Sample.model_validate(row) for row in read_jsonl(directory / "samples.jsonl"))


def fault(directory: Path, result: SampleResult) -> str:
    """Why a finished folder cannot be believed: a picture it lists is gone."""
    samples = read_samples(directory)
    if len(samples) != result.samples:
        return f"{len(samples)} samples are listed, {result.samples} were made"
    missing = [sample.image_path for sample in samples if not (directory / sample.image_path).exists()]
    return f"{missing[0]} is missing" if missing else ""


def check_folder(directory: Path, request: SampleRequest, prompts: Sequence[Prompt]) -> None:
    """Refuse to mix two results or to write over a person's files. Raises BadInput."""
    remedy = "choose an empty --output folder"
    if directory.exists() and not directory.is_dir():
        raise BadInput(f"{directory} is a file", field="--output", remedy=remedy)
    previous = directory / "request.json"
    if previous.exists():
        if _hash(previous) != request_hash(request):
            raise BadInput(f"{directory} holds the results of another request", field="--output", remedy=remedy)
        return
    taken = [name for prompt in prompts for name in prompt.outputs if (directory / name).exists()]
    if taken:
        raise BadInput(f"{directory / taken[0]} is there already and is not ours", field="--output", remedy=remedy)


def _hash(path: Path) -> str:
    try:
        return request_hash(SampleRequest.model_validate_json(path.read_text(encoding="utf-8")))
    except ValueError:
        return ""
