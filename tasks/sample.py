"""``sample``: one model does what one benchmark's prompts ask; pictures go where the benchmark's layout wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from evaluation.benchmark import Benchmark, PromptPlan
from evaluation.prompt_files import prompts_text, write_prompt_files
from evaluation.registry import open_benchmark
from reca_core.contracts.errors import BadInput
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import sha256_file, sha256_text
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.records import ResolvedModel, Sample, SampleResult
from reca_core.contracts.registry import FAMILIES, family_entry
from reca_core.contracts.requests import EvaluationPlan, SamplingSettings
from tasks import plan
from tasks.ahead import ahead_request, asking_ahead
from tasks.home import benchmark_data, current_home
from tasks.policies import verb
from tasks.results import Sampled
from tasks.stage import Stage, run_or_reuse

SAMPLES_FILE = "samples.jsonl"


@verb("sample", "sample {benchmark} with {model.name}")
def sample(
    benchmark: str,
    model: ResolvedModel,
    sampling: SamplingSettings,
    evaluation: EvaluationPlan,
    judging: SettledJudge,
    occasion: str = "",
) -> Sampled:
    """The pictures or replies of a model for a benchmark's prompts, made now, completed, or found.

    Args:
        judging: as ``tasks.judging.settled`` gives it; a judge on another machine is asked while pictures are made.
        occasion: of the judging.
    """
    opened = open_benchmark(benchmark, prompt_plan(evaluation), benchmark_data())
    text = prompts_text(opened)
    request = plan.sample_request(
        current_home(), model, sha256_text(text), sampling, sampler_task(opened, model.family)
    )
    directory = RunDirectory(Path(request.output_directory))
    write_prompt_files(directory.path, opened)
    stage = Stage(
        name=f"sample {benchmark}, {model.name}",
        module="reca_core.launch",
        command="sample",
        request=request,
        directory=directory,
        result=SampleResult,
        fault=lambda result: samples_fault(directory.path, result),
    )
    with asking_ahead(ahead_request(benchmark, directory, request.prompts_sha256, evaluation, judging, occasion)):
        finished = run_or_reuse(stage)
    return Sampled(
        stage=stage.name,
        seconds=finished.seconds,
        reused=finished.reused,
        benchmark=benchmark,
        model=model,
        directory=str(directory.path),
        prompts_sha256=request.prompts_sha256,
        samples_sha256=sha256_file(directory.path / SAMPLES_FILE),
        unmade=[f"{row.prompt_id}, seed {row.seed}: {row.reason}" for row in finished.result.unmade],
    )


def prompt_plan(evaluation: EvaluationPlan) -> PromptPlan:
    """How much of a benchmark is drawn."""
    return PromptPlan(evaluation.prompts_per_tag, evaluation.pictures_per_prompt, evaluation.first_seed)


def sampler_task(benchmark: Benchmark, family: str) -> Literal["draw", "edit", "describe"]:
    """What the sampler must do. Raises BadInput for edits, where the family makes none."""
    if benchmark.task == "edit" and not family_entry(family).edits:
        editing = ", ".join(name for name, entry in FAMILIES.items() if entry.edits)
        raise BadInput(
            f"{benchmark.id} needs edited pictures, which {family} cannot make; {editing} can",
            field="evaluation.benchmarks",
            remedy="edit elsewhere and have the pictures judged: reca evaluate --benchmark NAME --images DIR",
        )
    return benchmark.task


def samples_fault(directory: Path, result: SampleResult) -> str:
    """Why finished samples cannot be used; empty where every picture is what its row says."""
    rows = [Sample.model_validate(row) for row in read_jsonl(directory / SAMPLES_FILE)]
    if len(rows) != result.samples:
        return f"{len(rows)} samples are listed, {result.samples} were made"
    for row in rows:
        picture = directory / row.image_path
        if row.image_path and not (picture.is_file() and sha256_file(picture) == row.sha256):
            return f"{picture} is not the picture that was drawn"
    return ""
