"""``study``: every arm of a study trained and measured, repetition by repetition, then judged by the protocol's rules.

Nothing here decides what counts as shown (evaluation/study_claims.py). All of it resumes: a training, a sampling and a
judging that were made before are found by their content.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from evaluation.compare import Measurement, read_measurement
from evaluation.study import Distributions, distributions
from evaluation.study_claims import BASE, verdicts
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.requests import CaptionSource, EvaluationPlan, LossTerms, SamplingSettings, TrainingPlan
from reca_core.contracts.study import ArmName, StudyPlan
from tasks import tracking
from tasks.measure import measure
from tasks.policies import verb
from tasks.progress import note
from tasks.results import ArmMeasured, Judged, Reported, StageResult
from tasks.run import RunContext
from tasks.study_arms import Repetition, train_arm
from tasks.study_page import Study, StudyArm, write_study


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
    cells = [ArmMeasured(stage=f"measure {BASE}", seconds=0.0, arm=BASE, judged=judged)]
    for number in range(study.repetitions):
        repetition = Repetition.of(study, captions, training, number)
        for arm in study.arms:
            trained = list(train_arm(run, arm, base, data, losses, training, repetition))
            model = trained[-1].model(f"{arm}, seed {repetition.seed}")
            judged = [measure(run, name, model, sampling, evaluation, judging) for name in evaluation.benchmarks]
            cells.append(_cell(arm, repetition, trained, judged))
            note(f"study: {arm}, seed {repetition.seed} measured")
    return cells


def _cell(arm: ArmName, repetition: Repetition, trained: Sequence[StageResult], judged: list[Judged]) -> ArmMeasured:
    return ArmMeasured(
        stage=f"measure {arm}, seed {repetition.seed}",
        seconds=0.0,
        reused=all(stage.reused for stage in [*trained, *judged]),
        arm=arm,
        seed=repetition.seed,
        trained=list(trained),
        judged=judged,
    )


@verb("study")
def conclude_study(
    run: RunContext, study: StudyPlan, cells: list[ArmMeasured], training: TrainingPlan, evaluation: EvaluationPlan
) -> Reported:
    """The tables with their intervals, the verdicts and the figure: as files, in MLflow and on the flow's page."""
    began = time.monotonic()
    arms = [_arm(name, cells, training, study, evaluation) for name in dict.fromkeys(cell.arm for cell in cells)]
    found = Study(
        arms=arms,
        verdicts=list(verdicts({arm.name: arm.numbers for arm in arms})),
        steps=training.steps,
        repetitions=study.repetitions,
        first_training_seed=study.first_training_seed,
        first_seed=evaluation.first_seed,
    )
    paths = write_study(found, [judged.request_hash for cell in cells for judged in cell.judged])
    for path in paths:
        tracking.log_file(run.tracked, path)
    for arm in arms:
        _track(run, arm)
    note(f"study: {paths[0]}")
    return Reported(stage="study", seconds=time.monotonic() - began, path=str(paths[0]))


def _arm(
    name: str, cells: Sequence[ArmMeasured], training: TrainingPlan, study: StudyPlan, evaluation: EvaluationPlan
) -> StudyArm:
    mine = [cell for cell in cells if cell.arm == name]
    numbers: dict[str, Distributions] = {}
    for place, judged in enumerate(mine[0].judged):
        trainings = [_measurement(cell.judged[place], evaluation) for cell in mine]
        numbers[judged.benchmark] = distributions(trainings, study.repetitions, evaluation.resamples)
    steps = [trained.checkpoint.step for trained in mine[0].trained]
    return StudyArm(
        name=name,
        numbers=numbers,
        trainings=len(mine) if steps else 0,
        steps=sum(steps),
        pictures=sum(steps) * training.images_per_step,
        seconds=[sum(trained.trained_seconds for trained in cell.trained) for cell in mine if cell.trained],
    )


def _measurement(judged: Judged, evaluation: EvaluationPlan) -> Measurement:
    return read_measurement(Path(judged.directory), evaluation.arithmetic)


def _track(run: RunContext, arm: StudyArm) -> None:
    """One MLflow run per arm, so that a chart over the runs shows the study."""
    with tracking.tracked_run(f"arm {arm.name}", {"arm": arm.name}, {"stage": "arm"}, run.tracked) as child:
        facts = {"arm": arm.name, "trainings": arm.trainings, "steps": arm.steps, "pictures": arm.pictures}
        tracking.log_params(child, facts)
        metrics: dict[str, float] = {}
        for benchmark, rows in arm.numbers.items():
            for name, number in rows.items():
                row, key = number.row(), f"{benchmark}/{name}"
                ends = {key: row.value, f"{key}/low": row.low, f"{key}/high": row.high}
                metrics |= {end: value for end, value in ends.items() if value is not None}
        tracking.log_metrics(child, metrics)


def stages_of_study(cells: Sequence[ArmMeasured]) -> list[StageResult]:
    """Every training and judging of a study, for the outcome."""
    return [stage for cell in cells for stage in [*cell.trained, *cell.judged]]
