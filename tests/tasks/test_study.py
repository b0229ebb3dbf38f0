"""The arms of a study cost the same, differ in one thing, and never meet a scene or seed that they are judged on."""

from __future__ import annotations

import pytest

from deployments import recipes
from evaluation.study import Distribution
from evaluation.study_claims import BASE, DRAWS, verdicts
from reca_core.contracts.requests import CaptionSource, EvaluationPlan, ImageSource, LossTerms, TrainingPlan
from reca_core.contracts.study import ARMS, StudyPlan
from tasks import validate
from tasks.arms_page import Arm, svg
from tasks.study_arms import Repetition, legs
from tasks.study_page import Study, as_json, markdown

RECA = LossTerms(reconstruction=1, image_to_text=1, text_to_image=0, text=1)
TRAINING = TrainingPlan(steps=31, images_per_step=8)


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


def number(value: float, half_width: float = 0.01) -> Distribution:
    import numpy as np

    return Distribution(value, np.linspace(value - half_width, value + half_width, 101), 3, 600)


@pytest.fixture
def study() -> Study:
    rows = ("overall", "counting", "position", "color_attr")
    arms = [
        Arm(name, {DRAWS: {row: number(value) for row in rows}}, trainings, 31, 248, [2.0] * trainings)
        for name, value, trainings in ((BASE, 0.5, 0), ("reca", 0.6, 3), ("<script>", 0.4, 3))
    ]
    return Study(arms, list(verdicts({arm.name: arm.numbers for arm in arms})), 31, 3, 1000, 1000)


def test_the_page_has_values_differences_intervals_verdicts_and_costs(study: Study) -> None:
    page = markdown(study)
    assert "| a | RecA draws better than its base: overall, RecA less base | 0.100 |" in page
    assert "**shown**" in page
    assert "**not tested**" in page
    assert "+0.100 (" in page
    assert "| reca | 3 | 31 | 248 | 2 |" in page


def test_the_figure_escapes_names_and_colours_what_is_sure(study: Study) -> None:
    figure = svg(study.arms)
    assert "<script>" not in figure
    assert "&lt;script&gt;" in figure
    assert {"#0a7d38", "#b3261e"} <= {part[:7] for part in figure.split('stroke="')[1:]}


def test_the_numbers_file_has_every_difference(study: Study) -> None:
    arms = as_json(study)["arms"]
    assert isinstance(arms, dict)
    assert arms["reca"]["differences"]["geneval.shapeworld/overall"]["value"] == pytest.approx(0.1)
