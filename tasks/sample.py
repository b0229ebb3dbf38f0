"""``sample``: one model draws one benchmark's prompts, where the benchmark's own layout wants the pictures."""

from __future__ import annotations

from pathlib import Path

from evaluation.benchmark import Benchmark, PromptPlan
from evaluation.registry import open_benchmark
from reca_core.contracts.files import atomic_write_text, read_jsonl
from reca_core.contracts.hashing import sha256_file, sha256_text
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.records import ResolvedModel, Sample, SampleResult
from reca_core.contracts.requests import EvaluationPlan, SamplingSettings
from tasks import plan
from tasks.home import benchmark_data, current_home
from tasks.policies import verb
from tasks.results import Sampled
from tasks.stage import Stage, run_or_reuse

SAMPLES_FILE = "samples.jsonl"


@verb("sample", "sample {benchmark} with {model.name}")
def sample(benchmark: str, model: ResolvedModel, sampling: SamplingSettings, evaluation: EvaluationPlan) -> Sampled:
    """The pictures of a model for a benchmark's prompts, drawn now, completed, or found."""
    opened = open_benchmark(benchmark, prompt_plan(evaluation), benchmark_data())
    text = prompts_text(opened)
    request = plan.sample_request(current_home(), model, sha256_text(text), sampling)
    directory = RunDirectory(Path(request.output_directory))
    _write_prompts(directory.path, opened, text)
    stage = Stage(
        name=f"sample {benchmark}, {model.name}",
        module="reca_core.launch",
        command="sample",
        request=request,
        directory=directory,
        result=SampleResult,
        fault=lambda result: samples_fault(directory.path, result),
    )
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


def prompts_text(benchmark: Benchmark) -> str:
    """The prompts file: one record per line."""
    return "".join(prompt.model_dump_json() + "\n" for prompt in benchmark.prompts())


def _write_prompts(directory: Path, benchmark: Benchmark, text: str) -> None:
    """The prompts, and the files that upstream's scorer wants beside the pictures."""
    atomic_write_text(directory / plan.PROMPTS_FILE, text)
    for name, content in benchmark.companions().items():
        file = directory / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")


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
