"""The flows a person can start: where each is, and which settings it takes, without importing Prefect.

``tests/deployments/test_catalogue.py`` holds this table against the signatures of the flows themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from reca_core.contracts.base import Config
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    FineTuning,
    ImageSource,
    LossTerms,
    ModelChoice,
    Registration,
    SamplingSettings,
    TrainingPlan,
    VersionChoice,
)
from reca_core.contracts.study import StudyPlan
from reca_core.contracts.sweep import SweepPlan
from reca_core.contracts.versions import Promotion, Rollback


@dataclass(frozen=True)
class FlowEntry:
    """One flow."""

    name: str
    target: str
    """``package.module:function``."""
    parameters: dict[str, type[Config]]
    """Parameter name -> its settings class, in the order of the signature."""


_POST_TRAINING: dict[str, type[Config]] = {
    "images": ImageSource,
    "model": ModelChoice,
    "losses": LossTerms,
    "captions": CaptionSource,
    "training": TrainingPlan,
}
_BEFORE: dict[str, type[Config]] = {"fine_tuning": FineTuning}
_MEASURING: dict[str, type[Config]] = {
    "sampling": SamplingSettings,
    "evaluation": EvaluationPlan,
    "judge": JudgeSettings,
}
_REGISTERING: dict[str, type[Config]] = {"registration": Registration}

FLOWS: dict[str, FlowEntry] = {
    entry.name: entry
    for entry in (
        FlowEntry("prepare", "flows.prepare:prepare", {"images": ImageSource}),
        FlowEntry("post-train", "flows.post_train:post_train", _POST_TRAINING | _BEFORE | _REGISTERING),
        FlowEntry(
            "train-then-evaluate",
            "flows.train_then_evaluate:train_then_evaluate",
            _POST_TRAINING | _BEFORE | _MEASURING | _REGISTERING,
        ),
        FlowEntry("evaluate", "flows.evaluate:evaluate", {"model": ModelChoice} | _MEASURING),
        FlowEntry("study", "flows.study:study", _POST_TRAINING | _MEASURING | {"study": StudyPlan}),
        FlowEntry("sweep", "flows.sweep:sweep", _POST_TRAINING | _MEASURING | {"sweep": SweepPlan}),
        FlowEntry(
            "re-evaluate",
            "flows.re_evaluate:re_evaluate",
            {"versions": VersionChoice} | _MEASURING | {"promotion": Promotion},
        ),
        FlowEntry("rollback", "flows.rollback:rollback", {"rollback": Rollback}),
    )
}
"""Name on the command line -> flow."""
