"""A training that was interrupted ends with the same bits; a checkpoint that cannot be trusted is refused."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reca_core.contracts.errors import CheckpointRefused, DamagedFile, StageFailed
from reca_core.contracts.files import read_jsonl, remove_leftovers
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.lifeline import Interrupted, StopRequest
from reca_core.contracts.requests import LossTerms, TrainRequest
from reca_core.training import checkpoint, checkpoint_folder
from reca_core.training.checkpoint import TrainState
from reca_core.training.run import ENDS, Training
from tests.reca_core.training_rig import ONE_PROCESS, request, train, weights

NOBODY = 65534
EVERY_TERM = LossTerms(reconstruction=1, image_to_text=1, text_to_image=1, text=1, unconditional=0.1)


class StopAfter(StopRequest):
    """Asks to stop at the n-th time it is looked at: once per step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


def interrupt(asked: TrainRequest, steps: int, reached: int | None = None) -> None:
    """Train for some steps, then stop as after SIGTERM."""
    with pytest.raises(Interrupted, match=f"after step {reached or steps} of"):
        train(asked, StopAfter(steps))


def state(step: int, size: int = 4) -> TrainState:
    values = torch.full((size,), float(step))
    return TrainState(step, {"weight": values}, {"weight|exp_avg": values}, facts={"request_hash": "this"})


@pytest.mark.parametrize("settings", [{}, {"images_per_pass": 3, "images_per_step": 7, "ema_decay": 0.9}])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path, settings: dict) -> None:
    straight = request(tmp_path, "straight", EVERY_TERM, steps=7, schedule="cosine", **settings)
    broken = request(tmp_path, "broken", EVERY_TERM, steps=7, schedule="cosine", **settings)
    train(straight)
    interrupt(broken, 3)
    interrupt(broken, 2, reached=5)
    result = train(broken)
    assert result.resumed_from_step == 5
    assert weights(broken) == weights(straight)
    if settings:
        average = [tmp_path / run / "final-average" / "model.safetensors" for run in ("straight", "broken")]
        assert average[0].read_bytes() == average[1].read_bytes()


def test_metrics_and_previews_hold_each_step_once_after_a_resume(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=6, checkpoint_every_steps=2, preview_every_steps=1)
    interrupt(asked, 4)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")  # as if killed after step 4, before its save
    train(asked)
    rows = list(read_jsonl(tmp_path / "run" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    previews = list(read_jsonl(tmp_path / "run" / "previews" / "index.jsonl"))
    assert len(previews) == len({(row["step"], row["path"]) for row in previews}) == 7 * 16
    colours = list(read_jsonl(tmp_path / "run" / "previews" / "colours.jsonl"))
    assert [row["step"] for row in colours] == list(range(7))


def test_an_attempt_that_begins_again_keeps_no_preview_of_the_one_before(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=3, preview_every_steps=1)
    Training(asked, ONE_PROCESS, StopRequest())  # drew the base model and was killed
    train(asked)
    rows = list(read_jsonl(tmp_path / "run" / "previews" / "index.jsonl"))
    assert len(rows) == len({(row["step"], row["path"]) for row in rows}) == 4 * 16


def test_the_result_reports_the_first_and_last_losses_of_all_attempts(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=5)
    interrupt(asked, 3)
    first = next(read_jsonl(tmp_path / "run" / "metrics.jsonl"))
    result = train(asked)
    assert result.first_losses["train/loss"] == first["train/loss"]
    assert result.steps == 5


@pytest.mark.parametrize("steps", [3, 6])
def test_a_lost_log_loses_no_losses_of_the_result(tmp_path: Path, steps: int, caplog: pytest.LogCaptureFixture) -> None:
    straight, broken = (request(tmp_path, run, steps=6) for run in ("straight", "broken"))
    expected = train(straight)
    if steps < 6:
        interrupt(broken, steps)
    else:
        train(broken)
        RunDirectory(Path(broken.run_directory)).done.unlink()  # as if killed just before it was written
    RunDirectory(Path(broken.run_directory)).metrics.unlink()
    result = train(broken)
    assert f"has 0 of the {steps} steps done before" in caplog.text
    assert result.resumed_from_step == steps
    assert (result.first_losses, result.last_losses) == (expected.first_losses, expected.last_losses)
    assert weights(broken) == weights(straight)


def test_a_log_that_is_lost_for_good_is_an_error_that_says_so(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=6)
    interrupt(asked, 3)
    run = RunDirectory(Path(asked.run_directory))
    identity = json.loads((run.checkpoints / "step-00000003" / "state.json").read_text())["request_hash"]
    newest = checkpoint.load_newest(run.checkpoints, identity)
    assert newest is not None
    shutil.rmtree(run.checkpoints)
    facts = {name: value for name, value in newest.facts.items() if name != ENDS}
    checkpoint.save(run.checkpoints, TrainState(3, newest.weights, newest.moments, facts=facts), keep=1)
    run.metrics.unlink()
    with pytest.raises(DamagedFile, match=r"(?s)metrics.jsonl: has 0 of the 3 steps.*put the file back"):
        train(asked)
    assert (run.checkpoints / "step-00000003" / "DONE.json").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"train/loss": 1.0}', "row 2: no whole number under 'step'"),
        ('{"step": 2}', "the row of step 2 has no number under train/reconstruction_loss"),
    ],
)
def test_a_damaged_row_of_the_log_is_named(tmp_path: Path, row: str, said: str) -> None:
    asked = request(tmp_path, steps=6)
    interrupt(asked, 3)
    run = RunDirectory(Path(asked.run_directory))
    rows = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join([rows[0], row, *rows[2:]]) + "\n")
    with pytest.raises(DamagedFile, match=rf"(?s)metrics.jsonl: {said}.*mend the row"):
        train(asked)
    assert (run.checkpoints / "step-00000003" / "DONE.json").exists()


def test_a_damaged_row_of_the_previews_colours_is_named(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=6)
    interrupt(asked, 3)
    path = RunDirectory(Path(asked.run_directory)).previews / "colours.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join(['{"step": 0, "preview/cast_a": "red"}', *rows[1:]]) + "\n")
    with pytest.raises(DamagedFile, match=r"(?s)colours.jsonl: row 1: no number under 'preview/cast_a'.*mend the row"):
        train(asked)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(request(tmp_path, steps=6, checkpoint_every_steps=1, keep_checkpoints=3))
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000005", "step-00000006"]


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(3), keep=1)
    found = checkpoint.load_newest(tmp_path, "this")
    assert found is not None
    assert (found.step, found.facts) == (3, {"request_hash": "this"})
    assert torch.equal(found.weights["weight"], state(3).weights["weight"])
    assert torch.equal(found.moments["weight|exp_avg"], state(3).moments["weight|exp_avg"])


def test_nothing_saved_is_no_state(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "checkpoints", "this") is None


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_named(tmp_path: Path, file: str, damage: str) -> None:
    for step in (2, 4):
        checkpoint.save(tmp_path, state(step), keep=2)
    path = tmp_path / "step-00000004" / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointRefused, match=rf"{file}.*(?s:.*)resume from step-00000002"):
        checkpoint.load_newest(tmp_path, "this")
    assert (tmp_path / "step-00000002" / "DONE.json").exists(), "nothing is lost"


def test_a_checkpoint_that_was_never_finished_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 4):
        checkpoint.save(tmp_path, state(step), keep=2)
    (tmp_path / "step-00000004" / "DONE.json").unlink()
    found = checkpoint.load_newest(tmp_path, "this")
    assert found is not None
    assert found.step == 2
    assert "step-00000004 was never finished" in caplog.text
    checkpoint.save(tmp_path, state(4), keep=2)
    again = checkpoint.load_newest(tmp_path, "this")
    assert again is not None
    assert again.step == 4


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"state.json": 3}', '{"state.json": {}}', "\udc80"])
def test_a_damaged_marker_is_refused_and_nothing_is_lost(tmp_path: Path, text: str) -> None:
    for step in (2, 4):
        checkpoint.save(tmp_path, state(step), keep=2)
    (tmp_path / "step-00000004" / "DONE.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointRefused, match=r"DONE.json.*(?s:.*)resume from step-00000002"):
        checkpoint.load_newest(tmp_path, "this")
    assert len(checkpoint_folder.folders(tmp_path)) == 2


def test_weights_that_the_marker_does_not_list_are_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(2), keep=2)
    marker = tmp_path / "step-00000002" / "DONE.json"
    listed = json.loads(marker.read_text())
    del listed["weights.safetensors"]
    marker.write_text(json.dumps(listed))
    with pytest.raises(CheckpointRefused, match=r"does not list weights.safetensors(?s:.*)start from the base model"):
        checkpoint.load_newest(tmp_path, "this")


def test_the_remedy_names_a_checkpoint_that_can_be_resumed_from(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        checkpoint.save(tmp_path, state(step), keep=3)
    (tmp_path / "step-00000004" / "DONE.json").unlink()
    damaged = tmp_path / "step-00000006"
    (damaged / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointRefused, match="rename it, to resume from step-00000002"):
        checkpoint.load_newest(tmp_path, "this")
    damaged.rename(tmp_path / "step-00000006.broken")
    found = checkpoint.load_newest(tmp_path, "this")
    assert found is not None
    assert found.step == 2


def test_a_copy_under_the_name_of_another_step_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(2), keep=2)
    shutil.copytree(tmp_path / "step-00000002", tmp_path / "step-00000009")
    with pytest.raises(CheckpointRefused, match="step-00000009: holds the state of step 2"):
        checkpoint.load_newest(tmp_path, "this")


def test_a_checkpoint_of_another_request_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(2), keep=2)
    with pytest.raises(CheckpointRefused, match="is of request this, this is request other"):
        checkpoint.load_newest(tmp_path, "other")


def test_a_run_directory_taken_over_by_another_request_is_refused(tmp_path: Path) -> None:
    interrupt(request(tmp_path, steps=6), 3)
    with pytest.raises(CheckpointRefused, match="is of request"):
        train(request(tmp_path, steps=6, learning_rate=1e-4))


def test_settings_that_change_no_result_may_change_before_a_resume(tmp_path: Path) -> None:
    straight = request(tmp_path, "straight", steps=4)
    train(straight)
    interrupt(request(tmp_path, steps=4), 2)
    resumed = request(tmp_path, steps=4, checkpoint_every_steps=3, keep_checkpoints=1)
    train(resumed)
    assert weights(resumed) == weights(straight)


def test_a_base_that_changed_under_a_checkpoint_is_refused(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=6)
    interrupt(asked, 3)
    facts = tmp_path / "run" / "checkpoints" / "step-00000003" / "state.json"
    found = json.loads(facts.read_text())
    newest = checkpoint.load_newest(facts.parents[1], found["request_hash"])
    assert newest is not None
    shutil.rmtree(facts.parents[1])
    checkpoint.save(
        facts.parents[1],
        TrainState(3, newest.weights, newest.moments, facts={**newest.facts, "frozen_sha256": "0" * 64}),
        keep=1,
    )
    with pytest.raises(CheckpointRefused, match="other frozen weights"):
        train(asked)


@contextlib.contextmanager
def file_size_limit(count: int) -> Iterator[None]:
    """Writing past ``count`` bytes fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_while_saving_loses_nothing(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(2, size=1000), keep=2)
    with file_size_limit(2000), pytest.raises(StageFailed, match="resumes from step-00000002"):
        checkpoint.save(tmp_path, state(4, size=1000), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"], "no half-written folder stays"
    found = checkpoint.load_newest(tmp_path, "this")
    assert found is not None
    assert found.step == 2


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, state(2), keep=2)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint_folder.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(StageFailed, match="33 bytes needed, 10 free"):
        checkpoint.save(tmp_path, state(4), keep=2)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, which may write anywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_folder_is_refused_and_earlier_checkpoints_stay() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        checkpoints = folder / "checkpoints"
        checkpoint.save(checkpoints, state(2), keep=2)
        checkpoints.chmod(0o555)
        with as_nobody(), pytest.raises(StageFailed, match=r"(?s)Permission denied.*make it writable"):
            checkpoint.save(checkpoints, state(4), keep=2)
        checkpoints.chmod(0o755)
        assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]


def test_what_a_kill_left_half_written_is_no_checkpoint_and_is_removed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(2), keep=2)
    torn = tmp_path / ".step-00000004.123.tmp"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"torn")
    found = checkpoint.load_newest(tmp_path, "this")
    assert found is not None
    assert found.step == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
