"""``sweep``: the same base trained with several settings, each measured and compared with the base; the best is named.

Prepared pictures, the base's samples and its judgings are made once; every training, sampling and judging that was made
before is found by its content. A setting that fails is reported and the others go on. Nothing is registered: a sweep
looks for a setting, the promotion rule (tasks/promotion.py) decides about versions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from prefect import Task
from prefect.futures import PrefectFuture

from evaluation.study_claims import BASE
from reca_core.contracts.errors import RecaError, StageFailed
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.requests import CaptionSource, EvaluationPlan, LossTerms, SamplingSettings, TrainingPlan
from reca_core.contracts.sweep import SweepPlan
from tasks import arms, processes, tracking
from tasks.arms_page import base_of
from tasks.measure import measure
from tasks.policies import verb
from tasks.progress import note
from tasks.results import ArmFailed, ArmMeasured, Judged, Reported, StageResult, Trained
from tasks.run import RunContext
from tasks.sweep_arms import SweepArm, sweep_arms
from tasks.sweep_page import NAME, Sweep, markdown, settings, write_sweep
from tasks.train import train

ONCE = 1
"""Trainings per setting."""


def measure_settings(
    run: RunContext,
    sweep: SweepPlan,
    base: ResolvedModel,
    data: PreparedData,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
    sampling: SamplingSettings,
    evaluation: EvaluationPlan,
    judging: JudgeSettings,
) -> list[StageResult]:
    """The base, then every setting: ArmMeasured, or ArmFailed with the reason.

    Raises StageFailed if not one setting could be measured.
    """

    def measured(model: ResolvedModel) -> list[Judged]:
        return [measure(run, name, model, sampling, evaluation, judging) for name in evaluation.benchmarks]

    on_base = measured(base)
    asked = sweep_arms(sweep, losses, training)
    trained = _train_all(run, asked, base, data, captions, sweep.parallel_trainings)
    cells: list[StageResult] = [arms.measured(BASE, [], on_base)]
    for arm, made in zip(asked, trained, strict=True):
        cells.append(_measured(arm, made, measured, on_base, evaluation) if isinstance(made, Trained) else made)
        note(f"sweep: {arm.name} {'measured' if isinstance(cells[-1], ArmMeasured) else 'failed'}")
    failed = [cell for cell in cells if isinstance(cell, ArmFailed)]
    if len(failed) == len(asked):
        said = "; ".join(f"{cell.arm}: {cell.reason}" for cell in failed)
        raise StageFailed(f"not one setting could be trained and measured: {said}", field="sweep")
    return cells


def _measured(
    arm: SweepArm,
    trained: Trained,
    measured: Callable[[ResolvedModel], list[Judged]],
    on_base: Sequence[Judged],
    evaluation: EvaluationPlan,
) -> ArmMeasured | ArmFailed:
    """The setting's scores, provided that they can be paired with the base's."""
    try:
        judged = measured(trained.model(arm.name))
        arms.refuse_unlike(on_base, judged, evaluation)
    except RecaError as error:
        return _failed(arm, error)
    return arms.measured(arm.name, [trained], judged)


def _failed(arm: SweepArm, error: RecaError) -> ArmFailed:
    return ArmFailed(stage=f"sweep {arm.name}", seconds=0.0, arm=arm.name, reason=str(error))


def _train_all(
    run: RunContext,
    asked: Sequence[SweepArm],
    base: ResolvedModel,
    data: PreparedData,
    captions: CaptionSource,
    parallel: int,
) -> list[Trained | ArmFailed]:
    """Every setting's training, at most so many at a time, in the order in which they were asked for."""
    if parallel == 1:
        return [_named(arm, partial(_verb(arm), run, base, data, arm.losses, captions, arm.training)) for arm in asked]
    found: list[Trained | ArmFailed] = []
    waiting, running = deque(asked), deque[tuple[SweepArm, PrefectFuture[Trained]]]()
    with processes.stoppable():
        while waiting or running:
            while waiting and len(running) < parallel:
                arm = waiting.popleft()
                running.append((arm, _verb(arm).submit(run, base, data, arm.losses, captions, arm.training)))
            arm, future = running.popleft()
            found.append(_named(arm, future.result))
    return found


def _verb(arm: SweepArm) -> Task[..., Trained]:
    """``train`` under the setting's name in Prefect."""
    return train.with_options(task_run_name=f"train {arm.name}")


def _named(arm: SweepArm, made: Callable[[], Trained]) -> Trained | ArmFailed:
    try:
        return made().model_copy(update={"stage": f"train {arm.name}"})
    except RecaError as error:
        return _failed(arm, error)


@verb("sweep")
def conclude_sweep(
    run: RunContext,
    sweep: SweepPlan,
    cells: list[StageResult],
    losses: LossTerms,
    training: TrainingPlan,
    evaluation: EvaluationPlan,
) -> Reported:
    """The table with its differences and the best setting: as files, in MLflow and on the flow's page."""
    began = time.monotonic()
    measured = [cell for cell in cells if isinstance(cell, ArmMeasured)]
    found = Sweep(
        arms=[arms.arm_of(cell.arm, measured, training, ONCE, evaluation) for cell in measured],
        asked={arm.name: arm for arm in sweep_arms(sweep, losses, training)},
        checkpoints={cell.arm: cell.trained[-1].checkpoint.path for cell in measured if cell.trained},
        failed={cell.arm: cell.reason for cell in cells if isinstance(cell, ArmFailed)},
        training_seed=training.seed,
        first_seed=evaluation.first_seed,
    )
    paths = write_sweep(found, [judged.request_hash for cell in measured for judged in cell.judged])
    for path in paths:
        tracking.log_file(run.tracked, path)
    for arm in found.arms:
        asked = found.asked.get(arm.name)
        arms.track(run, arm, settings(asked) if asked else {}, base_of(found.arms))
    title, question = f"{len(found.asked)} settings", "Which setting is best, and by how much"
    views = arms.show(run, title, found.arms, markdown(found), NAME, question)
    note(f"sweep: {paths[0]}")
    return Reported(stage="sweep", seconds=time.monotonic() - began, path=str(paths[0]), views=views)
