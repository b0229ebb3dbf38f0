"""What a person asked of a flow, whichever it is: every group of settings there is."""

from __future__ import annotations

from dataclasses import dataclass

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
class Asked:
    """The parameters of any flow; those that a flow does not take have their defaults and are not looked at."""

    images: ImageSource = ImageSource()
    model: ModelChoice = ModelChoice()
    losses: LossTerms = LossTerms()
    captions: CaptionSource = CaptionSource()
    training: TrainingPlan = TrainingPlan()
    fine_tuning: FineTuning = FineTuning()
    sampling: SamplingSettings = SamplingSettings()
    evaluation: EvaluationPlan = EvaluationPlan()
    judge: JudgeSettings = JudgeSettings()
    registration: Registration = Registration()
    versions: VersionChoice = VersionChoice()
    promotion: Promotion = Promotion()
    rollback: Rollback = Rollback()
    study: StudyPlan = StudyPlan()
    sweep: SweepPlan = SweepPlan()
