"""`reca run sweep` from end to end on the smallest model: two learning rates, then a third that fails.

One home and two runs serve all tests here; the second finds what the first made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import EXIT_DONE, EXIT_INCOMPLETE
from reca_core.contracts.files import run_lock
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.home import Home
from reca_core.contracts.requests import TrainRequest
from tests.end_to_end.rig import save_smallest_janus, settings

pytestmark = pytest.mark.servers

RATES = (1e-4, 1e-3)
HELD = 3e-3
KEY = "geneval.shapeworld/overall"
PICTURES = {"prompts_per_tag": 2, "pictures_per_prompt": 2}
LIMIT_SECONDS = 900.0


@dataclass(frozen=True)
class Place:
    """A home and the smallest model."""

    home: Path
    model: Path

    def run(self, *rates: float, parallel: int = 1) -> dict[str, Any]:
        asked = settings(self.model, steps=6) | {"sweep": {"learning_rates": rates, "parallel_trainings": parallel}}
        asked["evaluation"] = PICTURES
        file = self.home.parent / "sweep.json"
        file.write_text(json.dumps(asked))
        command = [sys.executable, "-m", "deployments.cli", "--home", str(self.home), "--json", "run", "sweep"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW"))}
        done = subprocess.run(
            [*command, "--config", str(file)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode in (EXIT_DONE, EXIT_INCOMPLETE), done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        written = Path(document["report"]).with_name("sweep.json").read_text()
        return document | {"numbers": json.loads(written)}  # now: a later run may write the same file again

    def request(self, rate: float) -> TrainRequest:
        """The training of a learning rate, made from one that was done."""
        file = next(iter(sorted(self.home.glob("runs/*/checkpoints")))).parent / "request.json"
        found = TrainRequest.model_validate_json(file.read_text())
        return found.model_copy(update={"training": found.training.model_copy(update={"learning_rate": rate})})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("sweep")
    return Place(root / "home", save_smallest_janus(root / "model"))


@pytest.fixture(scope="module")
def first(place: Place) -> dict[str, Any]:
    return place.run(*RATES, parallel=2)


@pytest.fixture(scope="module")
def second(place: Place, first: dict[str, Any]) -> dict[str, Any]:
    """The same with one setting more, whose training another process holds."""
    run = Home(place.home).run(request_hash(place.request(HELD)))
    run.path.mkdir(parents=True)
    with run_lock(run.lock):
        return place.run(*RATES, HELD)


def test_every_setting_is_measured_and_compared_with_the_base(place: Place, first: dict[str, Any]) -> None:
    assert (first["exit_code"], first["incomplete"], first["reused"]) == (EXIT_DONE, [], [])
    arms = first["numbers"]["arms"]
    assert list(arms) == ["base", "lr 0.0001", "lr 0.001"]
    for name, arm in arms.items():
        delta = arm["numbers"][KEY]["value"] - arms["base"]["numbers"][KEY]["value"]
        assert arm["differences"][KEY]["value"] == pytest.approx(delta)
        assert (arm["steps"], arm["trainings"]) == ((0, 0) if name == "base" else (6, 1))
    assert [arms[name]["settings"]["training.learning_rate"] for name in ("lr 0.0001", "lr 0.001")] == list(RATES)


def test_the_arms_can_be_opened_in_mlflow(first: dict[str, Any]) -> None:
    assert list(first["mlflow_views"]) == ["arms table", "arms charts"]
    assert "compareRunsMode=CHART" in first["mlflow_views"]["arms charts"]


def test_the_best_has_the_highest_value_and_nothing_is_registered(place: Place, first: dict[str, Any]) -> None:
    found = first["numbers"]
    values = {name: arm["numbers"][KEY]["value"] for name, arm in found["arms"].items() if name != "base"}
    assert values[found["best"]] == max(values.values())
    assert found["best"] in Path(first["report"]).read_text()
    assert first["version"] is None
    assert not (place.home / "decisions").exists()


def test_data_base_and_its_judging_are_made_once(place: Place, first: dict[str, Any]) -> None:
    """One of each for the base, one for every setting."""
    for room in ("samples", "answers"):
        assert len(list((place.home / room).glob("*/DONE.json"))) == 1 + len(RATES)
    assert len(list((place.home / "data").glob("*/prepared.json"))) == 1


def test_a_repetition_reuses_everything_and_a_setting_that_fails_costs_no_other(
    place: Place, first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert second["exit_code"] == EXIT_INCOMPLETE
    again = {"prepare", *(f"train lr {rate}" for rate in ("0.0001", "0.001"))}
    assert again <= set(second["reused"])
    assert len([stage for stage in second["reused"] if stage.startswith(("sample", "judge"))]) == 2 * (1 + len(RATES))
    (reason,) = second["incomplete"]
    assert "lr 0.003" in reason
    assert str(request_hash(place.request(HELD))) in reason, "it names the run directory"
    found, before = second["numbers"], first["numbers"]
    assert list(found["failed"]) == ["lr 0.003"]
    assert found["best"] == before["best"]
    assert {name: arm["numbers"] for name, arm in found["arms"].items()} == {
        name: arm["numbers"] for name, arm in before["arms"].items()
    }
