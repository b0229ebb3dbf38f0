"""The compute plane's front door: light until it knows the command, and honest in its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reca_core.contracts.records import PreparedData, SampleResult, TrainResult
from reca_core.contracts.requests import ImageSource, PrepareRequest
from tests.reca_core.children import launch as launch_here
from tests.reca_core.children import start
from tests.reca_core.test_sampling import prompts
from tests.reca_core.test_sampling import request as sample_request
from tests.reca_core.training_rig import request, train, write_request


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reca_core.launch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_door_opens_without_torch() -> None:
    script = "import sys, reca_core.launch; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [[], ["train"], ["dance", "request.json"], ["train", "a", "b"]])
def test_a_command_it_does_not_know_is_bad_input(arguments: list[str]) -> None:
    finished = run(*arguments)
    assert finished.returncode == 2
    assert "train|sample|prepare" in finished.stderr


@pytest.mark.parametrize("text", [None, "{", '{"steps": 3}'])
def test_a_request_that_cannot_be_read_is_bad_input(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "request.json"
    if text is not None:
        path.write_text(text)
    finished = run("train", str(path))
    assert finished.returncode == 2
    assert str(path) in finished.stderr
    assert "TrainRequest" in finished.stderr


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=2)
    train(asked)
    before = (tmp_path / "run" / "DONE.json").read_bytes()
    finished = run("train", str(write_request(asked)))
    assert finished.returncode == 0
    assert "is done already" in finished.stderr
    assert (tmp_path / "run" / "DONE.json").read_bytes() == before


def test_a_model_that_is_not_there_is_a_missing_prerequisite(tmp_path: Path) -> None:
    asked = request(tmp_path)
    gone = asked.model_copy(update={"model": asked.model.model_copy(update={"path": str(tmp_path / "nowhere")})})
    child = start(launch_here, "train", write_request(gone))
    child.join()
    assert child.exitcode == 3


def test_a_run_directory_that_cannot_be_written_fails_the_stage_and_names_it(tmp_path: Path) -> None:
    asked = request(tmp_path)
    path = tmp_path / "request.json"
    path.write_text(asked.model_copy(update={"run_directory": "/proc/reca-run"}).model_dump_json())
    finished = run("train", str(path))
    assert finished.returncode == 4
    assert "/proc/reca-run" in finished.stderr.split("ERROR")[-1]


def test_prepare_train_and_sample_work_one_after_another_as_children(tmp_path: Path) -> None:
    images = ImageSource(source="shapeworld", scenes=6)
    preparing = PrepareRequest(images=images, home=str(tmp_path / "home"), run_directory=str(tmp_path / "prepare"))
    path = tmp_path / "prepare.json"
    path.write_text(preparing.model_dump_json())
    finish("prepare", path)
    data = PreparedData.model_validate_json((tmp_path / "prepare" / "DONE.json").read_bytes())
    asked = request(tmp_path, steps=2).model_copy(update={"data": data})
    finish("train", write_request(asked))
    trained = TrainResult.model_validate_json((tmp_path / "run" / "DONE.json").read_bytes())
    wish = sample_request(tmp_path, prompts())
    model = wish.model.model_copy(update={"path": trained.checkpoint.path, "sha256": trained.checkpoint.sha256})
    path = tmp_path / "sample.json"
    path.write_text(wish.model_copy(update={"model": model}).model_dump_json())
    finish("sample", path)
    assert SampleResult.model_validate_json((tmp_path / "out" / "DONE.json").read_bytes()).samples == 6


def finish(command: str, path: Path) -> None:
    child = start(launch_here, command, path)
    child.join()
    assert child.exitcode == 0


def test_the_directory_of_a_run_explains_itself(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=2, preview_every_steps=1)
    finish("train", write_request(asked))
    found = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    expected = {
        "request.json",
        "lock",
        "pids.json",
        "metrics.jsonl",
        "previews/index.jsonl",
        "previews/step-00000002/draw-07.png",
        "checkpoints/step-00000002/weights.safetensors",
        "final/model.safetensors",
        "final/config.json",
        "DONE.json",
    }
    assert expected <= found
    pids = json.loads((tmp_path / "run" / "pids.json").read_text())
    assert pids["ranks"] == [pids["launcher"]]
