"""``measure``: sample, then judge. Two verbs that always come together; pictures from elsewhere are only judged.

A judge on another machine is asked while the pictures are made (tasks/ahead.py); the judging then finds its replies.
"""

from __future__ import annotations

from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import EvaluationPlan, ModelChoice, SamplingSettings, VersionChoice
from tasks.collect import collect
from tasks.find_model import find_model
from tasks.judge import judge
from tasks.judging import full_id, settled
from tasks.results import Judged
from tasks.run import RunContext
from tasks.sample import sample


def measure(
    run: RunContext,
    benchmark: str,
    model: ResolvedModel,
    sampling: SamplingSettings,
    evaluation: EvaluationPlan,
    judging: JudgeSettings,
    occasion: str = "",
) -> Judged:
    """The scores of one model on one benchmark; with an occasion its pictures are judged anew."""
    chosen = settled(judging)
    sampled = sample(full_id(benchmark, chosen), model, sampling, evaluation, chosen, occasion)
    return judge(run, sampled, evaluation, chosen, occasion)


def occasion(run: RunContext, versions: VersionChoice) -> str:
    """Names this flow run where the judge is to be asked again, the same name when the run is resumed; else empty."""
    return run.flow_run_id if versions.force else ""


def measure_choice(
    run: RunContext,
    model: ModelChoice,
    sampling: SamplingSettings,
    evaluation: EvaluationPlan,
    judging: JudgeSettings,
) -> list[Judged]:
    """The scores of what a person chose: a model on every benchmark, or a folder of pictures of one."""
    if evaluation.pictures_from:
        return [measure_pictures(run, name, evaluation, judging) for name in evaluation.benchmarks]
    found = find_model(model)
    return [measure(run, name, found, sampling, evaluation, judging) for name in evaluation.benchmarks]


def measure_pictures(run: RunContext, benchmark: str, evaluation: EvaluationPlan, judging: JudgeSettings) -> Judged:
    """The scores of the pictures in a folder, as many per prompt as there are."""
    chosen = settled(judging)
    collected = collect(full_id(benchmark, chosen), evaluation, chosen)
    found = evaluation.model_copy(update={"pictures_per_prompt": collected.pictures_per_prompt})
    return judge(run, collected, found, chosen)
