"""``measure``: sample, then judge. Two verbs that always come together."""

from __future__ import annotations

from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import EvaluationPlan, SamplingSettings
from tasks.judge import judge
from tasks.results import Judged
from tasks.run import RunContext
from tasks.sample import sample


def measure(
    run: RunContext, benchmark: str, model: ResolvedModel, sampling: SamplingSettings, evaluation: EvaluationPlan
) -> Judged:
    """The scores of one model on one benchmark."""
    return judge(run, sample(benchmark, model, sampling, evaluation), evaluation)
