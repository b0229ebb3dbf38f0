"""The arms of a study cost the same, differ in one thing, and never meet a scene or seed that they are judged on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import tasks.study
from deployments import recipes
from evaluation.study import Distribution
from evaluation.study_claims import BASE, DRAWS, verdicts
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    ImageSource,
    LossTerms,
    SamplingSettings,
    TrainingPlan,
)
from reca_core.contracts.study import ARMS, StudyPlan
from tasks import arms, validate
from tasks.arms_page import Arm, svg
from tasks.outcome import reasons
from tasks.results import ArmFailed, Judged, StageResult, Trained
from tasks.study_legs import Repetition, legs
from tasks.study_page import Setting, Study, as_json, markdown
from tests.tasks import rig

RECA = LossTerms(reconstruction=1, image_to_text=1, text_to_image=0, text=1)
TRAINING = TrainingPlan(steps=31, images_per_step=8)
SETTING = Setting(
    "tiny-janus",
    "e39d" * 16,
    StudyPlan(),
    RECA,
    CaptionSource(),
    TRAINING,
    SamplingSettings(guidance_scale=1),
    EvaluationPlan(),
)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_takes_the_same_number_of_steps(arm: str) -> None:
    planned = legs(arm, RECA, TRAINING)  # type: ignore[arg-type]
    assert sum(leg.training.steps for leg in planned) == TRAINING.steps
    assert all(leg.training.images_per_step == TRAINING.images_per_step for leg in planned)


def test_an_arm_changes_one_thing_of_reca() -> None:
    (reca,) = legs("reca", RECA, TRAINING)
    (without,) = legs("reca-without-image-to-text", RECA, TRAINING)
    (copying,) = legs("reca-own-tokens", RECA, TRAINING)
    (tuned,) = legs("fine-tuning", RECA, TRAINING)
    assert reca.losses == copying.losses == RECA
    assert without.losses == RECA.model_copy(update={"image_to_text": 0})
    assert copying.training == TRAINING.model_copy(update={"condition": "own_tokens"})
    assert (tuned.losses.reconstruction, tuned.losses.text_to_image) == (0, 1)
    assert [leg.losses for leg in legs("fine-tuning-then-reca", RECA, TRAINING)] == [tuned.losses, RECA]
    (both,), (alone,) = legs("reca-with-unconditional", RECA, TRAINING), legs("unconditional", RECA, TRAINING)
    assert both.losses == RECA.model_copy(update={"unconditional": 0.1})
    assert alone.losses == both.losses.model_copy(update={"reconstruction": 0})


def test_repetitions_share_nothing_that_is_drawn() -> None:
    plan, captions = StudyPlan(), CaptionSource(seed=500_000)
    made = [Repetition.of(plan, captions, TRAINING, number) for number in range(plan.repetitions)]
    replayed = TRAINING.steps * TRAINING.images_per_step
    scenes = [set(range(one.captions.seed, one.captions.seed + replayed)) for one in made]
    assert len({one.seed for one in made}) == plan.repetitions
    assert len(set().union(*scenes)) == plan.repetitions * replayed


def faults(**changes: object) -> list[str]:
    given = {"study": StudyPlan(), "evaluation": EvaluationPlan(), "training": TRAINING} | changes
    return [fault.field for fault in validate.faults(*given.values())]  # type: ignore[arg-type]


def test_tuning_and_reporting_seeds_are_refused_together() -> None:
    assert faults() == []
    assert faults(evaluation=EvaluationPlan(first_seed=0)) == ["study.first_training_seed"]
    assert faults(study=StudyPlan(first_training_seed=0)) == ["study.first_training_seed"]
    assert faults(study=StudyPlan(first_training_seed=998)) == ["study.first_training_seed"]
    tuning = {"study": StudyPlan(first_training_seed=0), "evaluation": EvaluationPlan(first_seed=100)}
    assert faults(**tuning) == []
    over = {"study": StudyPlan(first_training_seed=0), "evaluation": EvaluationPlan(first_seed=998)}
    assert faults(**over) == ["study.first_training_seed"]


def test_scenes_for_measuring_and_scenes_twice_are_refused() -> None:
    assert faults(images=ImageSource(scene_seed=1000)) == ["images.scene_seed"]
    assert faults(captions=CaptionSource(seed=1000)) == ["captions.seed"]
    assert faults(captions=CaptionSource(seed=20_100)) == ["captions.seed"]
    assert faults(study=StudyPlan(arms=["reca", "reca"])) == ["study.arms"]


def test_the_seeds_of_the_demo_and_of_the_study_are_disjoint_from_those_they_are_judged_on() -> None:
    demo, full = recipes.find("demo"), recipes.find("tiny-study")
    for settings in ({**demo, "study": StudyPlan(repetitions=1)}, full):
        assert validate.faults(*settings.values()) == []


def test_settings_under_which_arms_fail_or_are_the_same_are_refused_before_anything_starts() -> None:
    reca = LossTerms()
    assert faults(losses=reca) == []
    assert faults(losses=reca.model_copy(update={"reconstruction": 0.0}))[0] == "losses.reconstruction"
    for same in ({"text_to_image": 1.0}, {"image_to_text": 0.0}):
        assert faults(losses=reca.model_copy(update=same)) == ["study.arms"]
    null = {"losses": reca.model_copy(update={"unconditional": 0.1}), "study": StudyPlan(arms=list(ARMS))}
    assert faults(**null) == ["study.arms"]
    for field, value in (("condition", "own_tokens"), ("seed", 7), ("feature_cache", "on"), ("schedule_steps", 31)):
        assert f"training.{field}" in faults(training=TRAINING.model_copy(update={field: value}))
    kept = {"training": TRAINING.model_copy(update={"feature_cache": "on"}), "study": StudyPlan(arms=["reca"])}
    assert faults(**kept) == []
    assert faults(training=TRAINING.model_copy(update={"steps": 3, "warmup_steps": 0})) == ["training.steps"]
    assert faults(training=TRAINING.model_copy(update={"warmup_steps": 20})) == ["training.steps"]
    assert faults(training=TRAINING.model_copy(update={"steps": 1, "warmup_steps": 0})) == ["training.steps"]
    assert faults(training=TRAINING.model_copy(update={"best_by": "reconstruction"})) == ["training.best_by"]
    assert (
        faults(training=TRAINING.model_copy(update={"best_by": "reconstruction"}), study=StudyPlan(arms=["reca"])) == []
    )


def cells(monkeypatch: pytest.MonkeyPatch, *failing: str) -> list[StageResult]:
    """``measure_arms`` of two arms, twice, whose trainings (``arm, seed``) fail where a test says so."""

    def train_arm(_run: object, arm: str, *others: object) -> Iterator[Trained]:
        if f"{arm}, seed {others[-1].seed}" in failing:  # type: ignore[attr-defined]
            raise StageFailed("the loss is not a number", field="training")
        yield rig.trained()

    def measure(_run: object, _name: str, model: object, *_: object) -> Judged:
        if model.name in failing:  # type: ignore[attr-defined]
            raise StageFailed("the judge does not answer", field="judge")
        return rig.judged(model, 0.5)  # type: ignore[arg-type]

    monkeypatch.setattr(tasks.study, "train_arm", train_arm)
    monkeypatch.setattr(tasks.study, "measure", measure)
    monkeypatch.setattr(arms, "refuse_unequal", lambda base, trained: None)
    monkeypatch.setattr(arms, "measurement", lambda judged, evaluation: judged)
    plan = StudyPlan(arms=["reca", "fine-tuning"], repetitions=2)
    settings = (RECA, CaptionSource(), TRAINING, SamplingSettings(), EvaluationPlan(), JudgeSettings())
    return tasks.study.measure_arms(rig.RUN, plan, rig.BASE, rig.DATA, *settings)


def test_an_arm_that_fails_costs_no_other_and_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cells(monkeypatch, "reca, seed 1001")
    assert [getattr(cell, "arm", "") for cell in made] == [BASE, "reca", "fine-tuning", "reca", "fine-tuning"]
    failed = made[3]
    assert isinstance(failed, ArmFailed)
    assert [isinstance(cell, ArmFailed) for cell in made] == [False, False, False, True, False]
    assert "the loss is not a number" in failed.reason
    assert reasons(failed) == [f"study reca, seed 1001: failed: {failed.reason}"]
    assert tasks.study.failures(made) == {"reca": f"reca, seed 1001: {failed.reason}"}


def test_a_study_in_which_every_arm_fails_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [f"{arm}, seed {seed}" for arm in ("reca", "fine-tuning") for seed in (1000, 1001)]
    with pytest.raises(StageFailed, match=r"not one arm.*reca, seed 1000.*fine-tuning, seed 1001"):
        cells(monkeypatch, *every)


def number(value: float, half_width: float = 0.01) -> Distribution:
    import numpy as np

    return Distribution(value, np.linspace(value - half_width, value + half_width, 101), 3, 600)


@pytest.fixture
def study() -> Study:
    rows = ("overall", "counting", "position", "color_attr")
    made = [
        Arm(name, {DRAWS: {row: number(value) for row in rows}}, trainings, 31, 248, [2.0] * trainings)
        for name, value, trainings in ((BASE, 0.5, 0), ("reca", 0.6, 3), ("<script>", 0.4, 3))
    ]
    judged = list(verdicts({arm.name: arm.numbers for arm in made}, 1000))
    return Study(made, judged, {"own <b>": "no | such thing"}, SETTING)


def test_the_page_has_values_differences_intervals_verdicts_and_costs(study: Study) -> None:
    page = markdown(study)
    assert "| a | RecA draws better than its base: overall, RecA less base | 0.100 |" in page
    assert "**shown**" in page
    assert "**not tested**" in page
    assert "+0.100 (" in page
    assert "| reca | 3 | 31 | 248 | 2 |" in page
    assert "Tuning seeds" not in page


def test_the_page_says_which_study_it_is_and_what_failed(study: Study) -> None:
    page = markdown(study)
    assert "tiny-janus (weights e39de39de39de39d), RecA's terms: reconstruction 1, image_to_text 1, text 1." in page
    assert "pictures drawn from seed 1000 on, without guidance; corrected arithmetic" in page
    assert "- **own &lt;b&gt; failed**: no \\| such thing" in page
    written = as_json(study)
    assert written["failed"] == {"own <b>": "no | such thing"}
    assert written["model"] == "tiny-janus"
    assert written["sampling"]["guidance_scale"] == 1
    tuning = replace(SETTING, study=StudyPlan(first_training_seed=7))
    assert "Tuning seeds" in markdown(replace(study, setting=tuning))


def test_the_figure_escapes_names_and_colours_what_is_sure(study: Study) -> None:
    figure = svg(study.arms)
    assert "<script>" not in figure
    assert "&lt;script&gt;" in figure
    assert {"#0a7d38", "#b3261e"} <= {part[:7] for part in figure.split('stroke="')[1:]}


def test_the_numbers_file_has_every_difference(study: Study) -> None:
    arms = as_json(study)["arms"]
    assert isinstance(arms, dict)
    assert arms["reca"]["differences"]["geneval.shapeworld/overall"]["value"] == pytest.approx(0.1)
