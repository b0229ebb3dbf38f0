"""The command line with no server at hand: hostile surroundings, reuse, and a kill -9 in the middle of the training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.rig import processes_of, settings, wait_until

pytestmark = pytest.mark.servers

RUN_SECONDS = 240.0
GONE_SECONDS = 10.0
HOSTILE = {
    "PREFECT_API_URL": "http://user.example:4200/api",
    "PREFECT_API_KEY": "pnu_secret",
    "PREFECT_PROFILE": "mine",
    "MLFLOW_TRACKING_URI": "http://user.example:5000",
    "MLFLOW_EXPERIMENT_NAME": "theirs",
    "MLFLOW_RUN_ID": "abc",
}
LOOK = """
import json
from tasks import tracking
client = tracking.client()
runs = client.search_runs([tracking.experiment_id()], "tags.stage = 'train'")
history = [point.step for run in runs for point in client.get_metric_history(run.info.run_id, "train/loss")]
versions = client.search_model_versions("name LIKE '%'")
print(json.dumps({"steps": history, "versions": [str(version.version) for version in versions]}))
"""


def command(home: Path, flow: str, config: Path) -> list[str]:
    installed = str(Path(sys.executable).with_name("reca"))
    return [installed, "run", flow, "--config", str(config), "--home", str(home), "--json"]


def reca(home: Path, flow: str, parameters: dict[str, Any], **environment: str) -> dict[str, Any]:
    """One run of the command line in a folder of its own; returns its JSON object."""
    user = home.with_name("user")
    user.mkdir(exist_ok=True)
    config = user / "config.json"
    config.write_text(json.dumps(parameters))
    result = subprocess.run(
        command(home, flow, config),
        cwd=user,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_the_whole_chain_runs_in_hostile_surroundings_and_is_found_when_repeated(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "prefect.toml").write_text('[api]\nurl = "http://user.example/toml"\n')
    (tmp_path / "user" / "tasks.py").write_text("raise SystemExit('the wrong tasks')")
    first = reca(home, "train-then-evaluate", settings(model), **HOSTILE)
    assert first["reused"] == []
    assert first["mlflow_store"] == f"sqlite:///{home}/mlflow/mlflow.db"
    assert first["version"]["version"] == "1"
    assert Path(first["report"]).is_file()
    assert len(first["comparisons"]) == 1
    assert Path(first["run_directory"]).is_relative_to(home)
    assert processes_of(home) == {}

    second = reca(home, "train-then-evaluate", settings(model), **HOSTILE)
    assert set(second["reused"]) >= {"prepare", "train", "register"}
    assert sum(stage.startswith(("sample", "judge")) for stage in second["reused"]) == 4
    assert second["version"] == first["version"]
    assert second["comparisons"] == first["comparisons"]
    assert second["run_directory"] == first["run_directory"]


def test_killing_the_command_kills_everything_and_repeating_it_goes_on(model: Path, tmp_path: Path) -> None:
    home, steps = tmp_path / "home", 120
    parameters = {name: value for name, value in settings(model, steps).items() if name != "evaluation"}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(parameters))
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(command(home, "post-train", config), stdout=log, stderr=log)
    checkpoints = wait_until(lambda: list(home.glob("runs/*/checkpoints/step-0*")), RUN_SECONDS)
    assert checkpoints, (tmp_path / "first.log").read_text()
    assert any("reca_core.launch train" in line for line in processes_of(home).values())
    first.kill()
    first.wait()
    assert wait_until(lambda: not processes_of(home), GONE_SECONDS), processes_of(home)

    reca(home, "post-train", parameters)
    (result,) = [json.loads(path.read_text()) for path in home.glob("runs/*/DONE.json") if "steps" in path.read_text()]
    assert result["resumed_from_step"] > 0
    looked = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=os.environ | {"RECA_HOME": str(home), "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(looked.stdout.splitlines()[-1])
    assert found["versions"] == ["1"]
    assert set(found["steps"]) == set(range(1, steps + 1))
    assert max(Counter(found["steps"]).values()) <= 2  # the killed flow run has its own MLflow run
