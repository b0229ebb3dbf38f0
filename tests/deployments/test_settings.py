"""Settings come from recipe, file and --set, and everything that is wrong with them is said at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.settings import BadSettings, resolve
from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import EvaluationPlan, ImageSource, ModelChoice, TrainingPlan

CLASSES = {"images": ImageSource, "model": ModelChoice, "training": TrainingPlan, "evaluation": EvaluationPlan}


def settings(*sets: str, file: Path | None = None, recipe: dict[str, TrainingPlan] | None = None) -> dict[str, object]:
    return dict(resolve(CLASSES, recipe or {}, file, sets))


def faults(*sets: str, file: Path | None = None) -> dict[str, BadInput]:
    with pytest.raises(BadSettings) as caught:
        settings(*sets, file=file)
    return {fault.field: fault for fault in caught.value.faults}


def test_nothing_given_is_every_default() -> None:
    assert settings() == {name: owner() for name, owner in CLASSES.items()}


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"training": {"steps": 7, "seed": 3}}))
    found = settings("training.steps=9", file=file, recipe={"training": TrainingPlan(steps=5, warmup_steps=2)})
    assert found["training"] == TrainingPlan(steps=9, seed=3, warmup_steps=2)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("images.source=/a=b", "/a=b"),
        ("images.source=123", "123"),
        ("images.source=true", "true"),
        ('images.source="quoted"', "quoted"),
        ("images.source={x}.tar", "{x}.tar"),
        ("images.limit=12", 12),
        ("training.learning_rate=1e-5", 1e-5),
        ("training.schedule=cosine", "cosine"),
        ('evaluation.benchmarks=["a","b"]', ["a", "b"]),
        ("evaluation.benchmarks=a,b", ["a", "b"]),
        ("evaluation.benchmarks=a", ["a"]),
    ],
)
def test_a_value_is_read_as_its_field_wants_it(assignment: str, expected: object) -> None:
    owner, _, field = assignment.partition("=")[0].partition(".")
    assert getattr(settings(assignment)[owner], field) == expected


def test_a_whole_part_can_be_set_as_json() -> None:
    assert settings('training={"steps": 3}', "training.seed=4")["training"] == TrainingPlan(steps=3, seed=4)


def test_all_faults_of_all_sources_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"training": {"steps": 0, "learning_rate": 5}, "imagse": {}}))
    found = faults("training.schedul=cosine", "training.precision=float16", "rubbish", file=file)
    assert set(found) == {
        "training.steps",
        "training.learning_rate",
        "imagse",
        "training.schedul",
        "training.precision",
        "--set rubbish",
    }


def test_a_fault_names_fact_choices_and_remedy() -> None:
    found = faults("training.precision=float16", "training.steps=-1", "model.family=jaunus")
    assert found["training.precision"].choices == ("float32", "bfloat16")
    assert '"float16"' in found["training.precision"].fact
    assert "greater than or equal to 1" in found["training.steps"].fact
    assert "Optimizer steps" in found["training.steps"].remedy
    assert "janus" in found["model.family"].fact


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("training.stps=1", "training.steps"), ("steps=1", "training.steps"), ("model.souce=x", "model.source")],
)
def test_an_unknown_setting_is_answered_with_the_closest_one(typed: str, meant: str) -> None:
    (fault,) = faults(typed).values()
    assert fault.remedy == f"did you mean {meant}?"


def test_a_setting_below_a_value_is_unknown() -> None:
    assert set(faults("training.steps.x=1")) == {"training.steps.x"}


@pytest.mark.parametrize("content", ["[1]", "{", "\udcff"])
def test_a_config_file_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "c.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=r"--config .*c\.json"):
        settings(file=file)


def test_a_part_that_is_no_object_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"training": 5}')
    assert set(faults(file=file)) == {"training"}
