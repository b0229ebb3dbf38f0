"""``collect``: pictures that somebody else made, found in a folder by their benchmark's community layout."""

from __future__ import annotations

from pathlib import Path

from evaluation.layouts import named
from evaluation.records import CollectResult
from evaluation.registry import numerics_version
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import EvaluationPlan
from tasks import plan
from tasks.home import benchmark_data, current_home
from tasks.policies import verb
from tasks.progress import note
from tasks.results import Sampled
from tasks.sample import SAMPLES_FILE
from tasks.stage import Stage, run_or_reuse


@verb("collect", "collect {benchmark} from {evaluation.pictures_from}")
def collect(benchmark: str, evaluation: EvaluationPlan, judging: JudgeSettings) -> Sampled:
    """The pictures of a folder, complete and readable, or as the plan says named one by one where they are not."""
    data = benchmark_data()
    version = numerics_version(benchmark, judging)
    request = plan.collect_request(current_home(), benchmark, version, evaluation, str(data) if data else "")
    directory = RunDirectory(Path(request.output_directory))
    folder = Path(evaluation.pictures_from)
    stage = Stage(
        name=f"collect {benchmark}, {folder.name}",
        module="evaluation.launch",
        command="collect",
        request=request,
        directory=directory,
        result=CollectResult,
        fault=lambda result: _fault(directory.path, result),
        always=True,
    )
    finished = run_or_reuse(stage)
    _tell(stage.name, finished.result)
    digest = sha256_file(directory.path / SAMPLES_FILE)
    return Sampled(
        stage=stage.name,
        seconds=finished.seconds,
        benchmark=benchmark,
        model=ResolvedModel(name=folder.name, family="", path=str(folder), sha256=digest, source=str(folder)),
        directory=str(directory.path),
        prompts_sha256=sha256_file(directory.path / plan.PROMPTS_FILE),
        samples_sha256=digest,
        unmade=[f"{row.prompt_id}, seed {row.seed}: {row.reason}" for row in finished.result.unmade],
        pictures_per_prompt=finished.result.pictures_per_prompt,
    )


def _fault(directory: Path, result: CollectResult) -> str:
    rows = sum(1 for _ in read_jsonl(directory / SAMPLES_FILE))
    return "" if rows == result.samples else f"{rows} samples are listed, {result.samples} were found"


def _tell(name: str, result: CollectResult) -> None:
    """What was taken for what, so that a wrong guess is seen."""
    note(f"{name}: {result.samples} pictures, {result.pictures_per_prompt} per prompt")
    if result.grids:
        note(f"{name}: {result.grids} files were taken for grids of four (evaluation.dpg_files)")
    if result.unused:
        note(f"{name}: {len(result.unused)} pictures belong to no prompt: {named(result.unused)}")
