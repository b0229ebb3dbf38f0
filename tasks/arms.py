"""Arms, common to a study and a sweep: trainings of one base that are measured alike and compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.compare import Measurement, read_measurement, refuse_unequal
from evaluation.study import Distributions, distributions
from reca_core.contracts.requests import EvaluationPlan, TrainingPlan
from tasks import tracking, tracking_views
from tasks.arms_page import Arm, gain, interval, signed, value
from tasks.artifacts import show_page
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


def refuse_unlike(base: Sequence[Judged], arm: Sequence[Judged], evaluation: EvaluationPlan) -> None:
    """Raises ComparisonRefused where an arm was not measured as the base was, so that nothing is paired by mistake."""
    for before, after in zip(base, arm, strict=True):
        refuse_unequal(measurement(before, evaluation), measurement(after, evaluation))


def track(run: RunContext, arm: Arm, settings: dict[str, object], base: Arm) -> None:
    """One MLflow run per arm, so that a chart over the runs shows all of them.

    Args:
        settings: parameters of the arm's own, beside what it cost.
        base: what its differences are taken to.
    """
    stage = {"stage": tracking_views.ARM_STAGE}
    with tracking.tracked_run(f"arm {arm.name}", {"arm": arm.name}, stage, run.tracked) as child:
        facts = {"arm": arm.name, "trainings": arm.trainings, "steps": arm.steps, "pictures": arm.pictures}
        tracking.log_params(child, facts | settings)
        metrics: dict[str, float] = {}
        for benchmark, rows in arm.numbers.items():
            for name, number in rows.items():
                row, delta, key = number.row(), gain(arm, base, benchmark, name).row(), f"{benchmark}/{name}"
                ends = {key: row.value, f"{key}/low": row.low, f"{key}/high": row.high}
                less = f"{key}/{tracking_views.DIFFERENCE}"
                ends |= {less: delta.value, f"{less}_low": delta.low, f"{less}_high": delta.high}
                metrics |= {end: value for end, value in ends.items() if value is not None}
        tracking.log_metrics(child, metrics)
        tracking.log_tags(child, {benchmark: in_words(arm, base, benchmark) for benchmark in arm.numbers})


def in_words(arm: Arm, base: Arm, benchmark: str) -> str:
    """The number a benchmark is quoted by, and its difference to the base."""
    row = next(iter(arm.numbers[benchmark]))
    found, delta = arm.numbers[benchmark][row].row(), gain(arm, base, benchmark, row).row()
    difference = "" if arm is base else f", {signed(delta)} ({interval(delta)})"
    return f"{row.replace('_', ' ')} {value(found)}{difference}"


def show(run: RunContext, title: str, found: Sequence[Arm], page: str, key: str, question: str) -> dict[str, str]:
    """The page where people look for it, and what can be opened in MLflow, by name.

    Args:
        title: what was studied, for MLflow's menu.
        page: Markdown, for Prefect and for the description of the run in MLflow.
        key: of the page in Prefect, which keeps its history.
        question: that the page answers.
    """
    views = tracking_views.save_arms_view(
        run.tracked, title, {name: list(rows) for name, rows in found[0].numbers.items()}
    )
    served = {"this run in MLflow": run.tracked.url, **views} if run.tracked.url else {}
    links = "".join(f"- [{name}]({address})\n" for name, address in served.items())
    tracking.describe(run.tracked, page)
    show_page(f"{page}\n{links}", key, question)
    return views


def stages_of_arms(cells: Sequence[StageResult]) -> list[StageResult]:
    """Every training and judging of the arms, and every failure, for the outcome."""
    return [
        stage
        for cell in cells
        for stage in ([*cell.trained, *cell.judged] if isinstance(cell, ArmMeasured) else [cell])
    ]
