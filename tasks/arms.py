"""Arms, common to a study and a sweep: trainings of one base that are measured alike and compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.compare import Measurement, read_measurement
from evaluation.study import Distributions, distributions
from reca_core.contracts.requests import EvaluationPlan, TrainingPlan
from tasks import tracking
from tasks.arms_page import Arm, gain
from tasks.results import ArmMeasured, Judged, StageResult, Trained
from tasks.run import RunContext


def measured(arm: str, trained: Sequence[Trained], judged: list[Judged], seed: int = 0) -> ArmMeasured:
    """One training of an arm with its measurements; no training is the base."""
    seeded = f"{arm}, seed {seed}" if seed else arm
    return ArmMeasured(
        stage=f"measure {seeded}",
        seconds=0.0,
        reused=all(stage.reused for stage in [*trained, *judged]),
        arm=arm,
        seed=seed,
        trained=list(trained),
        judged=judged,
    )


def arm_of(
    name: str, cells: Sequence[ArmMeasured], training: TrainingPlan, repetitions: int, evaluation: EvaluationPlan
) -> Arm:
    """An arm's numbers from all its trainings. Raises ComparisonRefused where they were not measured alike."""
    mine = [cell for cell in cells if cell.arm == name]
    numbers: dict[str, Distributions] = {}
    for place, judged in enumerate(mine[0].judged):
        trainings = [measurement(cell.judged[place], evaluation) for cell in mine]
        numbers[judged.benchmark] = distributions(trainings, repetitions, evaluation.resamples)
    steps = [trained.checkpoint.step for trained in mine[0].trained]
    return Arm(
        name=name,
        numbers=numbers,
        trainings=len(mine) if steps else 0,
        steps=sum(steps),
        pictures=sum(steps) * training.images_per_step,
        seconds=[sum(trained.trained_seconds for trained in cell.trained) for cell in mine if cell.trained],
    )


def measurement(judged: Judged, evaluation: EvaluationPlan) -> Measurement:
    """A judging in the arithmetic that was asked for."""
    return read_measurement(Path(judged.directory), evaluation.arithmetic)


def track(run: RunContext, arm: Arm, settings: dict[str, object], base: Arm) -> None:
    """One MLflow run per arm, so that a chart over the runs shows all of them.

    Args:
        settings: parameters of the arm's own, beside what it cost.
        base: what its differences are taken to.
    """
    with tracking.tracked_run(f"arm {arm.name}", {"arm": arm.name}, {"stage": "arm"}, run.tracked) as child:
        facts = {"arm": arm.name, "trainings": arm.trainings, "steps": arm.steps, "pictures": arm.pictures}
        tracking.log_params(child, facts | settings)
        metrics: dict[str, float] = {}
        for benchmark, rows in arm.numbers.items():
            for name, number in rows.items():
                row, delta, key = number.row(), gain(arm, base, benchmark, name).row(), f"{benchmark}/{name}"
                ends = {key: row.value, f"{key}/low": row.low, f"{key}/high": row.high}
                ends |= {f"{key}/delta": delta.value, f"{key}/delta_low": delta.low, f"{key}/delta_high": delta.high}
                metrics |= {end: value for end, value in ends.items() if value is not None}
        tracking.log_metrics(child, metrics)


def stages_of_arms(cells: Sequence[StageResult]) -> list[StageResult]:
    """Every training and judging of the arms, and every failure, for the outcome."""
    return [
        stage
        for cell in cells
        for stage in ([*cell.trained, *cell.judged] if isinstance(cell, ArmMeasured) else [cell])
    ]
