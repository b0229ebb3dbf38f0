"""Whatever is logged twice is there once, and a checkpoint has one registered version, whoever asks how often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from reca_core.contracts.errors import BadInput, CheckpointRefused, DamagedFile, PrerequisiteMissing
from reca_core.contracts.files import append_jsonl
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel
from tasks import tracking, tracking_models
from tasks.tracking import TrackedRun


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for the module: making its tables costs a second."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECA_HOME", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield root


@pytest.fixture
def run(home: Path, request: pytest.FixtureRequest) -> TrackedRun:
    return tracking.begin_run("a run", {"flow_run_id": request.node.name}, {})


def checkpoint(folder: Path, content: str) -> ResolvedModel:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "janus"}')
    (folder / "weights").write_text(content)
    return ResolvedModel(name="tiny", family="janus", path=str(folder), sha256=sha256_tree(folder))


def points(run: TrackedRun, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in tracking.client().get_metric_history(run.run_id, key)]


def test_the_store_lies_below_the_home(home: Path, run: TrackedRun) -> None:
    assert run.store == f"sqlite:///{home}/mlflow/mlflow.db"
    assert run.url == ""
    assert (home / "mlflow" / "mlflow.db").exists()
    artifacts = tracking.client().get_run(run.run_id).info.artifact_uri
    assert artifacts.startswith((home / "mlflow" / "artifacts").as_uri())


def test_credentials_never_reach_a_link() -> None:
    assert tracking.without_credentials("http://u:secret@host:5000/x") == "http://host:5000/x"
    assert tracking.without_credentials("sqlite:////home/a@b/mlflow.db") == "sqlite:////home/a@b/mlflow.db"


def test_a_resumed_flow_run_finds_its_run_again_and_ends_it(home: Path) -> None:
    def status(run_id: str) -> str:
        return str(tracking.client().get_run(run_id).info.status)

    first = tracking.begin_run("x", {"flow_run_id": "killed"}, {"a": "1"})
    assert status(first.run_id) == "RUNNING"
    with tracking.tracked_run("x", {"flow_run_id": "killed"}, {}) as second:
        assert second.run_id == first.run_id
    assert status(first.run_id) == "FINISHED"
    with pytest.raises(ValueError, match="no"), tracking.tracked_run("x", {"flow_run_id": "killed"}, {}):
        raise ValueError("no")
    assert status(first.run_id) == "FAILED"
    with pytest.raises(KeyboardInterrupt), tracking.tracked_run("x", {"flow_run_id": "killed"}, {}):
        raise KeyboardInterrupt
    assert status(first.run_id) == "KILLED"


def test_a_child_run_belongs_to_its_parent_only(home: Path, run: TrackedRun) -> None:
    other = tracking.begin_run("other", {"flow_run_id": "other"}, {})
    child = tracking.begin_run("train", {"request_hash": "h"}, {}, run)
    assert tracking.begin_run("train", {"request_hash": "h"}, {}, run).run_id == child.run_id
    assert tracking.begin_run("train", {"request_hash": "h"}, {}, other).run_id != child.run_id
    assert tracking.client().get_run(child.run_id).data.tags["mlflow.parentRunId"] == run.run_id


def test_parameters_are_written_once_and_a_later_different_value_is_no_error(run: TrackedRun) -> None:
    tracking.log_params(run, {"training.steps": 150, "benchmarks": ["a", "b"], "long": "x" * 5000})
    tracking.log_params(run, {"training.steps": 151, "new": "y"})
    params = tracking.client().get_run(run.run_id).data.params
    assert (params["training.steps"], params["benchmarks"], params["new"]) == ("150", '["a", "b"]', "y")


def test_each_step_is_mirrored_once_over_resumes_of_both_sides(run: TrackedRun, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "seconds": step * 0.1, "train/loss": 1 / step, "note": "x"} for step in range(1, 1201)]
    append_jsonl(file, rows[:3])
    mirror = tracking.MetricMirror(run, file)
    assert mirror.update() == 3
    append_jsonl(file, rows[3:700])
    assert mirror.update() == 700
    redone = [{**row, "train/loss": 9.0} for row in rows[650:]]
    file.unlink()
    append_jsonl(file, rows[:650] + redone)
    resumed = tracking.MetricMirror(run, file)
    assert resumed.update() == 1200
    assert resumed.update() == 1200
    logged = points(run, "train/loss")
    assert [step for step, _ in logged] == list(range(1, 1201))
    assert logged[-1] == (1200, 9.0)
    assert len(points(run, "seconds")) == 1200


def test_what_a_call_that_failed_should_have_logged_is_logged_the_next_time(
    run: TrackedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow away for longer than its client tries, during a training: the second call of one update fails."""
    file = tmp_path / "metrics.jsonl"
    append_jsonl(file, [{"step": step, "seconds": step * 0.1, "train/loss": 1 / step} for step in range(1, 1201)])
    mirror, log_batch, calls = tracking.MetricMirror(run, file), tracking.client().log_batch, count(1)

    def away_once(*given: Any, **named: Any) -> None:
        if next(calls) == 2:
            raise MlflowException("API request failed")
        log_batch(*given, **named)

    monkeypatch.setattr(tracking.client(), "log_batch", away_once)
    with pytest.raises(MlflowException):
        mirror.update()
    assert mirror.update() == 1200
    assert [step for step, _ in points(run, "train/loss")] == list(range(1, 1201))
    assert len(points(run, "seconds")) == 1200


def test_numbers_tables_pictures_and_data_sets_logged_twice_are_there_once(run: TrackedRun, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGBA", (8, 8)).save(picture)
    for _ in range(2):
        tracking.log_metrics(run, {"geneval.shapeworld/overall": 0.5})
        tracking.log_table(run, ["prompt"], [["<script>alert(1)</script>"]])
        tracking.log_pictures(run, [("GenEval.shapeworld/00001", 0, picture), ("GenEval.shapeworld/00001", 5, picture)])
        tracking.log_dataset(run, "pictures", "d" * 64, "shapeworld", "training")
    assert points(run, "geneval.shapeworld/overall") == [(0, 0.5)]
    client = tracking.client()
    names = [Path(item.path).name for item in client.list_artifacts(run.run_id, "images")]
    assert sorted(name.split("+timestamp")[0] for name in names if name.endswith(".png")) == [
        "geneval_shapeworld_00001+step+0",
        "geneval_shapeworld_00001+step+5",
    ]
    assert [item.dataset.digest for item in client.get_run(run.run_id).inputs.dataset_inputs] == ["d" * 36]
    table = Path(client.download_artifacts(run.run_id, tracking.TABLE_FILE, str(tmp_path))).read_text()
    assert json.loads(table) == {"columns": ["prompt"], "data": [["<script>alert(1)</script>"]]}


def test_registering_twice_gives_one_version_with_its_tags_and_weights(
    home: Path, run: TrackedRun, tmp_path: Path
) -> None:
    model = checkpoint(tmp_path / "final", "one")
    tags = {"request_hash": "r1", "data_digest": "dd"}
    version, there = tracking_models.register("reca-once", model, run.run_id, tags, copy=True)
    again, there_again = tracking_models.register("reca-once", model, run.run_id, tags, copy=True)
    assert (there, there_again, again) == (False, True, version)
    tracking_models.set_alias(version, "challenger")
    resolved = tracking_models.resolve_version("models:/reca-once@challenger")
    assert (resolved.path, resolved.sha256, resolved.name) == (model.path, model.sha256, "reca-once/1")
    found = tracking_models.find_version("models:/reca-once/1")
    assert found.tags["data_digest"] == "dd"
    assert found.tags["checkpoint_sha256"] == model.sha256
    logged = tracking.client().get_logged_model(version.model_id)
    assert (logged.status, logged.source_run_id) == ("READY", run.run_id)


def test_metrics_of_a_model_show_on_its_page(run: TrackedRun, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "final", "measured")
    model_id = tracking_models.logged_model(model, run.run_id, {}, copy=False)
    tracking.log_metrics(run, {"geneval.shapeworld/overall": 0.25}, model_id, ("geneval.shapeworld", "p" * 36))
    assert [(m.key, m.value) for m in tracking.client().get_logged_model(model_id).metrics] == [
        ("geneval.shapeworld/overall", 0.25)
    ]
    for _ in range(2):
        tracking_models.link_models(run.run_id, reads=model_id, makes=model_id, step=3)
    linked = tracking.client().get_run(run.run_id)
    assert [item.model_id for item in linked.inputs.model_inputs] == [model_id]
    assert [item.model_id for item in linked.outputs.model_outputs] == [model_id]


def test_changed_weights_are_never_handed_out(run: TrackedRun, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "copied", "copied")
    tracking_models.register("reca-copy", model, run.run_id, {"request_hash": "c"}, copy=True)
    (tmp_path / "copied" / "weights").write_text("changed")
    resolved = tracking_models.resolve_version("models:/reca-copy/1")
    assert resolved.path != model.path
    assert sha256_tree(Path(resolved.path)) == model.sha256

    pointer = checkpoint(tmp_path / "pointer", "pointer")
    tracking_models.register("reca-pointer", pointer, run.run_id, {"request_hash": "p"}, copy=False)
    assert tracking_models.resolve_version("models:/reca-pointer/1").path == pointer.path
    (tmp_path / "pointer" / "weights").write_text("changed")
    with pytest.raises(CheckpointRefused, match=pointer.sha256):
        tracking_models.resolve_version("models:/reca-pointer/1")


def test_a_version_that_does_not_exist_is_named_with_those_that_do(home: Path, run: TrackedRun, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "final", "known")
    version, _ = tracking_models.register("reca-known", model, run.run_id, {"request_hash": "k"}, copy=False)
    tracking_models.set_alias(version, "challenger")
    with pytest.raises(PrerequisiteMissing) as caught:
        tracking_models.resolve_version("models:/reca-known@champion")
    assert caught.value.choices == ("models:/reca-known@challenger", "models:/reca-known/1")
    with pytest.raises(PrerequisiteMissing, match="models:/reca-known"):
        tracking_models.resolve_version("models:/nothing/3")
    with pytest.raises(BadInput):
        tracking_models.resolve_version("models:/reca-known")


REGISTER_AT_ONCE = """
import json, multiprocessing, os, sys
from pathlib import Path
import mlflow
from reca_core.contracts.records import ResolvedModel
from tasks import tracking, tracking_models

folder, sha256, *homes = sys.argv[1:]
model = ResolvedModel(name="tiny", family="janus", path=folder, sha256=sha256)
fork = multiprocessing.get_context("fork")  # mlflow is imported once, not six times

def register(home, barrier, results):
    os.environ["RECA_HOME"] = home
    run = tracking.begin_run("six", {"flow_run_id": str(os.getpid())}, {})
    barrier.wait()
    results.put(tracking_models.register("reca-six", model, run.run_id, {"request_hash": "six"}, copy=True)[0].version)

def versions(results):
    results.put([str(version.version) for version in tracking.client().search_model_versions("name = 'reca-six'")])

def in_process(function, *arguments):
    process = fork.Process(target=function, args=arguments)
    process.start()
    return process

results, barrier = fork.Queue(), fork.Barrier(len(homes))
in_process(tracking.client).join()
for process in [in_process(register, home, barrier, results) for home in homes]:
    process.join()
    assert process.exitcode == 0
registered = [results.get() for _ in homes]
in_process(versions, results).join()
print(json.dumps([registered, results.get()]))
"""


@pytest.mark.parametrize("shared_locks", [True, False], ids=["one home", "six homes"])
def test_six_processes_that_register_at_once_make_one_version(tmp_path: Path, shared_locks: bool) -> None:
    """Also without a common lock, as on six machines that share a tracking server."""
    model = checkpoint(tmp_path / "final", "six")
    homes = [str(tmp_path / ("home" if shared_locks else f"home-{number}")) for number in range(6)]
    result = subprocess.run(
        [sys.executable, "-c", REGISTER_AT_ONCE, model.path, model.sha256, *homes],
        env=os.environ | {"RECA_HOME": homes[0], "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    registered, versions = json.loads(result.stdout.splitlines()[-1])
    assert len(versions) == 1
    assert registered == versions * 6


def test_a_damaged_line_names_file_and_line_and_what_was_logged_stays(run: TrackedRun, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append_jsonl(file, [{"step": 1, "train/loss": 1.0}])
    mirror = tracking.MetricMirror(run, file)
    assert mirror.update() == 1
    with file.open("a") as stream:
        stream.write("\0\0\0\n")
    with pytest.raises(DamagedFile, match="line 2: not JSON") as caught:
        mirror.update()
    assert caught.value.field == str(file)
    assert caught.value.remedy
    assert points(run, "train/loss") == [(1, 1.0)]
