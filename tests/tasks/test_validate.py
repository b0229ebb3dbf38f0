"""Faults between settings are found before anything starts, all at once, each with its field and a way out."""

from __future__ import annotations

import pytest

from reca_core.contracts.base import Config
from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import (
    CaptionSource,
    EvaluationPlan,
    FineTuning,
    ImageSource,
    LossTerms,
    ModelChoice,
    Registration,
    SamplingSettings,
    TrainingPlan,
    VersionChoice,
)
from tasks.validate import ManyFaults, check, faults

DEFAULTS = (
    ImageSource(),
    ModelChoice(),
    LossTerms(),
    CaptionSource(),
    TrainingPlan(),
    FineTuning(),
    SamplingSettings(),
    EvaluationPlan(),
    Registration(),
    VersionChoice(),
)


def test_the_defaults_of_every_flow_are_without_fault() -> None:
    assert faults(*DEFAULTS) == []
    check(*DEFAULTS)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (ImageSource(source="/pictures", kind="shapeworld"), "images.kind"),
        (ImageSource(source="pictures", kind="folder"), "images.source"),
        (LossTerms(reconstruction=0, image_to_text=0, text_to_image=0, text=0), "losses"),
        (CaptionSource(source="captions.json"), "captions.source"),
        (TrainingPlan(steps=10, warmup_steps=11), "training.warmup_steps"),
        (TrainingPlan(steps=1, warmup_steps=0, schedule="linear"), "training.schedule"),
        (FineTuning(steps=1), "fine_tuning.schedule"),
        (FineTuning(captions="captions.json"), "fine_tuning.captions"),
        (FineTuning(steps=10, warmup_steps=11), "fine_tuning.warmup_steps"),
        (FineTuning(steps=10, text_to_image=0), "fine_tuning"),
        (TrainingPlan(images_per_step=2, processes=4), "training.images_per_step"),
        (TrainingPlan(best_by="text_to_image"), "training.best_by"),
        (TrainingPlan(stage="decoder", processes=2), "training.processes"),
        (TrainingPlan(stage="tokenizer", images_per_pass=2), "training.images_per_pass"),
        (EvaluationPlan(benchmarks=["geneval.shapeworld", "geneval.shapeworld"]), "evaluation.benchmarks"),
        (EvaluationPlan(benchmarks=["genevil"]), "evaluation.benchmarks"),
        (EvaluationPlan(benchmarks=["geneval.nobody"]), "evaluation.benchmarks"),
        (Registration(alias="latest"), "registration.alias"),
        (VersionChoice(aliases=["champion", "v3"]), "versions.aliases"),
    ],
)
def test_a_fault_names_its_field_and_what_to_do(settings: Config, field: str) -> None:
    (fault,) = faults(settings)
    assert fault.field == field
    assert fault.fact
    assert fault.choices or fault.remedy


def test_a_fine_tuning_has_pictures_for_every_process() -> None:
    (fault,) = faults(TrainingPlan(images_per_step=4, processes=4), FineTuning(steps=10, images_per_step=2))
    assert fault.field == "fine_tuning.images_per_step"


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ManyFaults) as caught:
        check(TrainingPlan(steps=5, warmup_steps=9), EvaluationPlan(benchmarks=["genevil"]), Registration(alias="v1"))
    assert isinstance(caught.value, BadInput)
    assert [fault.field for fault in caught.value.faults] == [
        "training.warmup_steps",
        "evaluation.benchmarks",
        "registration.alias",
    ]
    assert all(fault.field in str(caught.value) for fault in caught.value.faults)


def test_a_tokenizer_may_be_trained_without_any_of_the_loss_terms() -> None:
    nothing = LossTerms(reconstruction=0, image_to_text=0, text_to_image=0, text=0)
    assert faults(nothing, TrainingPlan(stage="tokenizer")) == []
