"""From the results of the stages to the one record that a flow run returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reca_core.contracts.errors import EXIT_DONE, EXIT_INCOMPLETE
from reca_core.contracts.records import Outcome
from tasks.home import current_home
from tasks.results import (
    ArmFailed,
    Compared,
    Decided,
    DriftChecked,
    FoundVersions,
    Judged,
    Prepared,
    Registered,
    Reported,
    RolledBack,
    Sampled,
    StageResult,
    Trained,
)
from tasks.run import RunContext


def stages_of(results: Iterable[StageResult]) -> list[StageResult]:
    """The stages in the order in which they ran, each once: a comparison brings its two judgings and samplings."""
    found: dict[str, StageResult] = {}
    for result in results:
        for stage in _with_parts(result):
            found.setdefault(stage.stage, stage)
    return list(found.values())


def _with_parts(result: StageResult) -> list[StageResult]:
    if isinstance(result, Compared):
        return [*_with_parts(result.base), *_with_parts(result.trained), result]
    if isinstance(result, Judged):
        return [result.sampled, result]
    return [result]


def seconds_of(stages: Iterable[StageResult]) -> dict[str, float]:
    """Stage -> seconds."""
    return {stage.stage: round(stage.seconds, 2) for stage in stages}


def outcome(run: RunContext, results: Sequence[StageResult]) -> Outcome:
    """How a flow run ended, from what its stages returned."""
    stages = stages_of(results)
    incomplete = [reason for stage in stages for reason in reasons(stage)]
    return Outcome(
        flow=run.flow,
        exit_status=EXIT_INCOMPLETE if incomplete else EXIT_DONE,
        run_directory=_main_directory(stages),
        version=next((stage.version for stage in stages if isinstance(stage, Registered)), None),
        scores=[str(stage.scores) for stage in stages if isinstance(stage, Judged)],
        comparisons=[stage.path for stage in stages if isinstance(stage, Compared) and stage.path],
        drifts=[stage.path for stage in stages if isinstance(stage, DriftChecked) and stage.path],
        decisions=[stage.decision.text for stage in stages if isinstance(stage, Decided | RolledBack)],
        report=next((stage.path for stage in stages if isinstance(stage, Reported)), ""),
        mlflow_url=run.tracked.url,
        mlflow_store=run.tracked.store,
        mlflow_run_id=run.tracked.run_id,
        mlflow_views={
            name: url for stage in stages if isinstance(stage, Compared | Reported) for name, url in stage.views.items()
        },
        prefect_url=run.prefect_url,
        seconds=seconds_of(stages),
        reused=[stage.stage for stage in stages if stage.reused],
        incomplete=incomplete,
    )


def reasons(stage: StageResult) -> list[str]:
    """Why a stage's result is not complete, in words."""
    if isinstance(stage, Judged):
        return [f"{stage.stage}: {reason}" for reason in stage.unscored]
    if isinstance(stage, ArmFailed):
        return [f"{stage.stage}: failed: {stage.reason}"]
    if isinstance(stage, FoundVersions):
        return stage.absent
    if isinstance(stage, Sampled):
        return [f"{stage.stage}: {reason}" for reason in stage.unmade]
    if isinstance(stage, Compared | DriftChecked) and stage.refusal:
        return [f"{stage.stage}: refused: {stage.refusal}"]
    return []


def _main_directory(stages: Sequence[StageResult]) -> str:
    """The training's, or else that of the last judging, or else the data set's, or else the home."""
    directories: Mapping[type[StageResult], list[str]] = {
        Trained: [stage.directory for stage in stages if isinstance(stage, Trained)],
        Judged: [stage.directory for stage in stages if isinstance(stage, Judged)],
        Prepared: [stage.data.directory for stage in stages if isinstance(stage, Prepared)],
    }
    return next((found[-1] for found in directories.values() if found), str(current_home().root))
