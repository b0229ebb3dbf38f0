"""A sweep tries every setting once, keeps the others where one fails, and says what its best one is worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evaluation.study import Distribution
from evaluation.study_claims import BASE, DRAWS
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.requests import CaptionSource, EvaluationPlan, LossTerms, SamplingSettings, TrainingPlan
from reca_core.contracts.sweep import SweepPlan
from tasks import arms, sweep, validate
from tasks.arms_page import Arm
from tasks.outcome import reasons
from tasks.results import ArmFailed, ArmMeasured, Judged, Trained
from tasks.sweep_arms import SweepArm, sweep_arms
from tasks.sweep_page import Sweep, as_json, markdown
from tests.tasks import rig

TRAINING = TrainingPlan(steps=31, images_per_step=8, learning_rate=0.5)
ALONE = LossTerms(reconstruction=1, image_to_text=0, text_to_image=0, text=0)


def names(**plan: object) -> list[str]:
    return [arm.name for arm in sweep_arms(SweepPlan(**plan), LossTerms(), TRAINING)]  # type: ignore[arg-type]


def test_every_rate_meets_every_set_of_weights() -> None:
    plan = SweepPlan(learning_rates=[1e-4, 3e-4], loss_weights=[LossTerms(), ALONE])
    made = sweep_arms(plan, LossTerms(), TRAINING)
    assert [(arm.training.learning_rate, arm.losses) for arm in made] == [
        (1e-4, LossTerms()),
        (3e-4, LossTerms()),
        (1e-4, ALONE),
        (3e-4, ALONE),
    ]
    assert all(arm.training.model_copy(update={"learning_rate": 0.5}) == TRAINING for arm in made)


def test_a_name_says_what_is_swept() -> None:
    assert names(learning_rates=[1e-4, 1e-3]) == ["lr 0.0001", "lr 0.001"]
    assert names(learning_rates=[], loss_weights=[ALONE, LossTerms()]) == ["weights 1 0 0 0", "weights 1 1 0 1"]
    assert names(learning_rates=[1e-4], loss_weights=[ALONE]) == ["lr 0.0001, weights 1 0 0 0"]
    with_null = ALONE.model_copy(update={"unconditional": 0.1})
    assert names(learning_rates=[], loss_weights=[ALONE, with_null]) == [
        "weights 1 0 0 0",
        "weights 1 0 0 0, unconditional 0.1",
    ]


@pytest.mark.parametrize(
    ("plan", "fields"),
    [
        ({}, []),
        ({"learning_rates": []}, ["sweep.learning_rates"]),
        ({"learning_rates": [0.1, 0.1, 0.2]}, ["sweep.learning_rates"]),
        ({"loss_weights": [ALONE, ALONE]}, ["sweep.loss_weights"]),
        ({"loss_weights": [ALONE.model_copy(update={"reconstruction": 0.0})]}, ["sweep.loss_weights"]),
        ({"learning_rates": [], "loss_weights": [ALONE, LossTerms()]}, []),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(plan: dict[str, object], fields: list[str]) -> None:
    assert [fault.field for fault in validate.faults(SweepPlan(**plan), TRAINING)] == fields  # type: ignore[arg-type]


Cells = list[ArmMeasured | ArmFailed]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cells]:
    """``measure_settings`` whose trainings and measurements fail where a test says so."""

    def run(train_fails: tuple[str, ...] = (), measure_fails: tuple[str, ...] = ()) -> Cells:
        def verb(arm: SweepArm) -> Callable[..., Trained]:
            def train(*_: object) -> Trained:
                if arm.name in train_fails:
                    raise StageFailed("the loss is not a number", field="training")
                return rig.trained()

            return train

        def measure(_run: object, _name: str, model: object, *_: object) -> Judged:
            if model.name in measure_fails:  # type: ignore[attr-defined]
                raise StageFailed("the judge does not answer", field="judge")
            return rig.judged(model, 0.5)  # type: ignore[arg-type]

        monkeypatch.setattr(sweep, "_verb", verb)
        monkeypatch.setattr(sweep, "measure", measure)
        monkeypatch.setattr(arms, "refuse_unequal", lambda base, trained: None)
        monkeypatch.setattr(arms, "measurement", lambda judged, evaluation: judged)
        plan = SweepPlan(learning_rates=[1e-4, 1e-3])
        settings = (LossTerms(), CaptionSource(), TRAINING, SamplingSettings(), EvaluationPlan(), JudgeSettings())
        return sweep.measure_settings(rig.RUN, plan, rig.BASE, rig.DATA, *settings)  # type: ignore[return-value]

    return run


def test_a_setting_that_fails_in_training_or_measuring_costs_no_other(measured: Callable[..., Cells]) -> None:
    for failing in ({"train_fails": ("lr 0.001",)}, {"measure_fails": ("lr 0.001",)}):
        base, good, bad = measured(**failing)
        assert isinstance(base, ArmMeasured)
        assert (base.arm, base.trained) == (BASE, [])
        assert isinstance(good, ArmMeasured)
        assert (good.arm, good.trained[0].stage) == ("lr 0.0001", "train lr 0.0001")
        assert isinstance(bad, ArmFailed)
        (said,) = reasons(bad)
        assert "lr 0.001" in said
        assert bad.reason in said


def test_a_sweep_in_which_everything_fails_has_failed(measured: Callable[..., Cells]) -> None:
    with pytest.raises(StageFailed, match=r"not one setting.*lr 0\.0001.*not a number.*lr 0\.001.*does not answer"):
        measured(train_fails=("lr 0.0001",), measure_fails=("lr 0.001",))


def number(value: float, half_width: float) -> Distribution:
    return Distribution(value, np.linspace(value - half_width, value + half_width, 101), 1, 60)


def found(*values: float, failed: str = "") -> Sweep:
    asked = sweep_arms(SweepPlan(learning_rates=[1e-4, 3e-4, 1e-3]), LossTerms(), TRAINING)
    both = [(BASE, 0.5, 0), *((arm.name, value, 1) for arm, value in zip(asked, values, strict=False))]
    made = [
        Arm(name, {DRAWS: {"overall": number(value, 0.01), "colors": number(0.1, 0.01)}}, trainings, 31, 248, [2.0])
        for name, value, trainings in both
    ]
    paths = {arm.name: f"/home/runs/{arm.name}/final" for arm in asked}
    return Sweep(made, {arm.name: arm for arm in asked}, paths, {"lr 0.001": failed} if failed else {}, 0, 100)


def test_the_best_is_named_with_its_distance_to_base_and_second() -> None:
    page = markdown(found(0.6, 0.7, 0.55))
    assert r"overall: lr 0.0003**, 0.700, difference to the base +0.200 (+0.200 to +0.200)" in page
    assert "Difference to the second, lr 0.0001: +0.100 (+0.100 to +0.100)." in page
    assert "Nothing was registered" in page
    assert as_json(found(0.6, 0.7, 0.55))["best"] == "lr 0.0003"


def test_of_equal_settings_the_first_is_named_and_they_are_not_told_apart() -> None:
    page = markdown(found(0.6, 0.6, 0.55))
    assert "overall: lr 0.0001**" in page
    assert "the two are not told apart" in page


def test_a_failure_is_on_the_page_and_cannot_be_markup() -> None:
    page = markdown(found(0.6, 0.7, failed="<script>| died"))
    assert "2 of 3 settings trained and measured" in page
    assert "**lr 0.001 failed**" in page
    assert "<script>" not in page


def test_the_numbers_file_has_settings_and_differences() -> None:
    made = as_json(found(0.6, 0.7, 0.55))["arms"]
    assert isinstance(made, dict)
    assert made["lr 0.0003"]["settings"]["training.learning_rate"] == 3e-4
    assert made["lr 0.0003"]["differences"][f"{DRAWS}/overall"]["value"] == pytest.approx(0.2)
    assert made[BASE]["settings"] == {}
