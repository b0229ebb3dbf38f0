"""``study``: every arm of a study trained and measured, repetition by repetition, then judged by the protocol's rules.

Nothing here decides what counts as shown (evaluation/study_claims.py). All of it resumes: a training, a sampling and a
judging that were made before are found by their content.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from evaluation.study_claims import BASE, verdicts
from reca_core.contracts.errors import RecaError, StageFailed
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.requests import CaptionSource, EvaluationPlan, LossTerms, SamplingSettings, TrainingPlan
from reca_core.contracts.study import StudyPlan
from tasks import arms, tracking
from tasks.measure import measure
from tasks.policies import verb
from tasks.progress import note
from tasks.results import ArmFailed, ArmMeasured, Judged, Reported, StageResult
from tasks.run import RunContext
from tasks.study_arms import train_arm
from tasks.study_legs import Repetition
from tasks.study_page import NAME, Setting, Study, markdown, write_study


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
) -> list[StageResult]:
    """The base, then every arm: all arms of the first repetition, then all of the next.

    An arm that cannot be trained, or not be measured as the base was, is an ArmFailed with the reason; the others go
    on. Raises StageFailed if not one could.
    """

    def measured(model: ResolvedModel) -> list[Judged]:
        return [measure(run, name, model, sampling, evaluation, judging) for name in evaluation.benchmarks]

    on_base = measured(base)
    cells: list[StageResult] = [arms.measured(BASE, [], on_base)]
    for number in range(study.repetitions):
        repetition = Repetition.of(study, captions, training, number)
        for arm in study.arms:
            name = f"{arm}, seed {repetition.seed}"
            try:
                trained = list(train_arm(run, arm, base, data, losses, training, repetition))
                judged = measured(trained[-1].model(name))
                arms.refuse_unlike(on_base, judged, evaluation)
            except RecaError as error:
                cells.append(ArmFailed(stage=f"study {name}", seconds=0.0, arm=arm, reason=str(error)))
                note(f"study: {name} failed")
                continue
            cells.append(arms.measured(arm, trained, judged, repetition.seed))
            note(f"study: {name} measured")
    failed = [cell for cell in cells if isinstance(cell, ArmFailed)]
    if len(failed) == len(cells) - 1:
        said = "; ".join(f"{cell.stage}: {cell.reason}" for cell in failed)
        raise StageFailed(f"not one arm could be trained and measured: {said}", field="study")
    return cells


@verb("study")
def conclude_study(run: RunContext, setting: Setting, cells: list[StageResult]) -> Reported:
    """The tables with their intervals, the verdicts and the figure: as files, in MLflow and on the flow's page.

    An arm of which a training failed has no numbers, because they would be over fewer trainings; it has the reasons.
    Its other trainings are kept: the same study, started again, goes on from them.
    """
    began, study, evaluation = time.monotonic(), setting.study, setting.evaluation
    failed = failures(cells)
    whole = [cell for cell in cells if isinstance(cell, ArmMeasured) and cell.arm not in failed]
    names = dict.fromkeys(cell.arm for cell in whole)
    found_arms = [arms.arm_of(name, whole, setting.training, study.repetitions, evaluation) for name in names]
    found = Study(
        arms=found_arms,
        verdicts=list(verdicts({arm.name: arm.numbers for arm in found_arms}, study.first_training_seed)),
        failed=failed,
        setting=setting,
    )
    judged = [judging.request_hash for cell in whole for judging in cell.judged]
    paths = write_study(found, [*judged, *study.arms, *failed, evaluation.arithmetic])
    for path in paths:
        tracking.log_file(run.tracked, path)
    for arm in found_arms:
        arms.track(run, arm, {}, found.base)
    title = f"{setting.model}, seeds from {study.first_training_seed} on{setting.unlike}"
    views = arms.show(run, title, found_arms, markdown(found), NAME, "What RecA changes, arm by arm")
    note(f"study: {paths[0]}")
    return Reported(stage="study", seconds=time.monotonic() - began, path=str(paths[0]), views=views)


def failures(cells: Sequence[StageResult]) -> dict[str, str]:
    """Arm -> which of its trainings failed, and why."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if isinstance(cell, ArmFailed):
            found.setdefault(cell.arm, []).append(f"{cell.stage.removeprefix('study ')}: {cell.reason}")
    return {arm: "; ".join(reasons) for arm, reasons in found.items()}
