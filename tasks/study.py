"""``study``: every arm of a study trained and measured, repetition by repetition, then judged by the protocol's rules.

Nothing here decides what counts as shown (evaluation/study_claims.py). All of it resumes: a training, a sampling and a
judging that were made before are found by their content.
"""

from __future__ import annotations

import time

from evaluation.study_claims import BASE, verdicts
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.requests import CaptionSource, EvaluationPlan, LossTerms, SamplingSettings, TrainingPlan
from reca_core.contracts.study import StudyPlan
from tasks import arms, tracking
from tasks.measure import measure
from tasks.policies import verb
from tasks.progress import note
from tasks.results import ArmMeasured, Reported
from tasks.run import RunContext
from tasks.study_arms import Repetition, train_arm
from tasks.study_page import NAME, Study, markdown, write_study


def measure_arms(
    run: RunContext,
    study: StudyPlan,
    base: ResolvedModel,
    data: PreparedData,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
    sampling: SamplingSettings,
    evaluation: EvaluationPlan,
    judging: JudgeSettings,
) -> list[ArmMeasured]:
    """The base, then every arm: all arms of the first repetition, then all of the next."""
    judged = [measure(run, name, base, sampling, evaluation, judging) for name in evaluation.benchmarks]
    cells = [arms.measured(BASE, [], judged)]
    for number in range(study.repetitions):
        repetition = Repetition.of(study, captions, training, number)
        for arm in study.arms:
            trained = list(train_arm(run, arm, base, data, losses, training, repetition))
            model = trained[-1].model(f"{arm}, seed {repetition.seed}")
            judged = [measure(run, name, model, sampling, evaluation, judging) for name in evaluation.benchmarks]
            cells.append(arms.measured(arm, trained, judged, repetition.seed))
            note(f"study: {arm}, seed {repetition.seed} measured")
    return cells


@verb("study")
def conclude_study(
    run: RunContext, study: StudyPlan, cells: list[ArmMeasured], training: TrainingPlan, evaluation: EvaluationPlan
) -> Reported:
    """The tables with their intervals, the verdicts and the figure: as files, in MLflow and on the flow's page."""
    began = time.monotonic()
    names = dict.fromkeys(cell.arm for cell in cells)
    found_arms = [arms.arm_of(name, cells, training, study.repetitions, evaluation) for name in names]
    found = Study(
        arms=found_arms,
        verdicts=list(verdicts({arm.name: arm.numbers for arm in found_arms})),
        steps=training.steps,
        repetitions=study.repetitions,
        first_training_seed=study.first_training_seed,
        first_seed=evaluation.first_seed,
    )
    paths = write_study(found, [judged.request_hash for cell in cells for judged in cell.judged])
    for path in paths:
        tracking.log_file(run.tracked, path)
    for arm in found_arms:
        arms.track(run, arm, {}, found.base)
    title = f"study of seeds from {study.first_training_seed} on"
    views = arms.show(run, title, found_arms, markdown(found), NAME, "What RecA changes, arm by arm")
    note(f"study: {paths[0]}")
    return Reported(stage="study", seconds=time.monotonic() - began, path=str(paths[0]), views=views)
