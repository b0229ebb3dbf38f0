"""The experiment: the same base trained in several ways, with several seeds, and what the differences show."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    ImageSource,
    LossTerms,
    ModelChoice,
    SamplingSettings,
    TrainingPlan,
)
from reca_core.contracts.study import StudyPlan
from tasks.arms import stages_of_arms
from tasks.find_model import find_model
from tasks.form import titled
from tasks.outcome import outcome
from tasks.preflight import preflight
from tasks.prepare import prepare
from tasks.run import pipeline_run
from tasks.study import conclude_study, measure_arms
from tasks.study_page import Setting
from tasks.trainings import Trainings
from tasks.validate import check


@flow(name="study")
@titled
def study(
    images: ImageSource = ImageSource(),
    model: ModelChoice = ModelChoice(),
    losses: LossTerms = LossTerms(),
    captions: CaptionSource = CaptionSource(),
    training: TrainingPlan = TrainingPlan(),
    sampling: SamplingSettings = SamplingSettings(),
    evaluation: EvaluationPlan = EvaluationPlan(),
    judge: JudgeSettings = JudgeSettings(),
    study: StudyPlan = StudyPlan(),
) -> Outcome:
    """Compare Reconstruction Alignment with other ways to spend the same training, over several seeds.

    Args:
        images: Which pictures to learn from.
        model: Which model every arm starts from.
        losses: Weights of RecA's loss terms; the other arms change one of them.
        captions: Where captions and questions of the replay terms come from.
        training: How to train every arm.
        sampling: How pictures are drawn.
        evaluation: What to measure.
        judge: Who judges.
        study: Which arms, how often.
    """
    check(images, model, losses, captions, training, sampling, evaluation, judge, study)
    with pipeline_run("study") as run:
        planned = Trainings.of_study(study, losses, captions, training)
        preflight(images, model, training, planned, evaluation)
        base = find_model(model)
        prepared = prepare(images)
        cells = measure_arms(run, study, base, prepared.data, losses, captions, training, sampling, evaluation, judge)
        setting = Setting(base.name, base.sha256, study, losses, captions, training, sampling, evaluation)
        concluded = conclude_study(run, setting, cells)
        return outcome(run, [prepared, *stages_of_arms(cells), concluded])
