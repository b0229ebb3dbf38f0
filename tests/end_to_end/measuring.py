"""Draw and judge ``geneval.shapeworld`` in this process, as the stages do: sample request, judge request, scores."""

from __future__ import annotations

from pathlib import Path

from evaluation import runner
from evaluation.benchmark import PromptPlan
from evaluation.records import JudgeRequest, JudgeResult
from evaluation.registry import open_benchmark
from reca_core import sampling
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.hashing import sha256_file, sha256_tree
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import SampleRequest, SamplingSettings

BENCHMARK = "geneval.shapeworld"
VERSION = 1
"""Only names cached results, of which there are none here."""


def model_at(directory: Path, family: str) -> ResolvedModel:
    """A checkpoint directory as requests name it."""
    return ResolvedModel(name=directory.name, family=family, path=str(directory), sha256=sha256_tree(directory))


def draw_and_judge(model: ResolvedModel, workplace: Path, plan: PromptPlan, settings: SamplingSettings) -> JudgeResult:
    """Everything between a checkpoint and its scores; files stay in ``workplace`` (samples/, answers/)."""
    benchmark = open_benchmark(BENCHMARK, plan, None)
    prompts = workplace / "prompts.jsonl"
    workplace.mkdir(parents=True, exist_ok=True)
    atomic_write_text(prompts, "".join(prompt.model_dump_json() + "\n" for prompt in benchmark.prompts()))
    samples = workplace / "samples"
    sampling.main(
        SampleRequest(
            model=model,
            task="draw",
            prompts_file=str(prompts),
            prompts_sha256=sha256_file(prompts),
            sampling=settings,
            numerics_version=VERSION,
            output_directory=str(samples),
        )
    )
    return runner.main(
        JudgeRequest(
            benchmark=BENCHMARK,
            prompts_sha256=sha256_file(prompts),
            samples_sha256=sha256_file(samples / sampling.SAMPLES),
            prompts_per_tag=plan.prompts_per_tag,
            pictures_per_prompt=plan.pictures_per_prompt,
            first_seed=plan.first_seed,
            numerics_version=VERSION,
            prompts_file=str(prompts),
            samples_directory=str(samples),
            output_directory=str(workplace / "answers"),
        )
    )
