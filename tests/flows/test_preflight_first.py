"""Every flow that trains looks at what it needs before it does anything, and so does its dry run."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.asked import Asked
from deployments.commands import run as command
from deployments.context import Context
from deployments.environment import Surroundings
from deployments.terminal import Terminal
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.home import HOME_VARIABLE, Home
from reca_core.contracts.requests import TrainingPlan
from tasks import preflight
from tasks.preflight_totals import Shortage
from tasks.trainings import Trainings

TRAININGS = {"post_train": 1, "train_then_evaluate": 1, "sweep": 3, "study": 21}
"""By default settings; an arm of a study has two stages, all are repeated three times."""


@pytest.mark.parametrize("flow", TRAININGS)
def test_a_refusal_comes_before_the_model_and_the_pictures(flow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"flows.{flow}")
    seen: list[Trainings] = []

    def refusing(_images: object, _model: object, _training: object, trainings: Trainings, *_: object) -> None:
        seen.append(trainings)
        raise PrerequisiteMissing("does not fit", field="training")

    def never(*_: object) -> None:
        raise AssertionError("started before the look ahead")

    monkeypatch.setattr(module, "pipeline_run", lambda name: contextlib.nullcontext(SimpleNamespace()))
    monkeypatch.setattr(module, "preflight", refusing)
    for verb in ("find_model", "prepare"):
        monkeypatch.setattr(module, verb, never)
    with pytest.raises(PrerequisiteMissing, match="does not fit"):
        getattr(module, flow).fn()
    assert [len(trainings.planned) for trainings in seen] == [TRAININGS[flow]]


@pytest.mark.parametrize("flow", TRAININGS)
def test_a_dry_run_prints_the_estimate_and_refuses(
    flow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    context = Context(Terminal(), Surroundings(Home(tmp_path), "", "", ""), tmp_path)
    name = flow.replace("_", "-")

    def look(asked: Asked) -> dict[str, Any] | None:
        return command.estimate(name, [], asked, context)

    found = look(Asked())
    assert found is not None
    assert sum(stage["trainings"] for stage in found["stages"]) == TRAININGS[flow]
    assert "too few to be measured" in capsys.readouterr().out
    assert look(Asked(training=TrainingPlan(preflight="off"))) is None
    short = Shortage(fact="too much", field="training", choices=[], remedy="less")
    monkeypatch.setattr(preflight, "overfull", lambda *_: short)
    with pytest.raises(PrerequisiteMissing, match="too much"):
        look(Asked())
