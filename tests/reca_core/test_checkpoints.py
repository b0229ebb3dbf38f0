"""Checkpoints of a running training: written beside it, the best of them kept, and a failed one stops it loudly."""

from __future__ import annotations

import resource
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.files import append_jsonl, write_json
from reca_core.contracts.lifeline import StopRequest
from reca_core.training import checkpoint, checkpoint_folder, saving
from reca_core.training.checkpoint import TrainState
from tests.reca_core.test_resume import file_size_limit, state
from tests.reca_core.training_rig import ALONE, request, train, weights

PATIENCE_SECONDS = 60.0
SMALL_FILE_BYTES = 20_000
"""Enough for the log of a few steps, too little for a checkpoint."""


class AtStep(StopRequest):
    """Calls a function when the training is about to take its n-th step."""

    def __init__(self, step: int, action) -> None:
        self.left, self.action = step, action

    @property
    def requested(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.action()
        return False


def scored(step: int, score: float | None) -> TrainState:
    found = state(step)
    return TrainState(step, found.weights, found.moments, facts={**found.facts, "score": score})


def test_the_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next_step, in_time = threading.Event(), []
    write = saving._save

    def slow(*arguments) -> None:
        in_time.append(next_step.wait(PATIENCE_SECONDS))
        write(*arguments)

    monkeypatch.setattr(saving, "_save", slow)
    asked = request(tmp_path, losses=ALONE, steps=3, checkpoint_every_steps=2)
    train(asked, AtStep(3, next_step.set))
    assert in_time[0], "step 3 began while the checkpoint of step 2 was being written"
    assert checkpoint_folder.newest(tmp_path / "run" / "checkpoints", checkpoint_hash(tmp_path)).step == 3


def test_no_copy_is_made_while_the_one_before_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them would be in memory."""
    order: list[str] = []
    honest = checkpoint.capture

    def capture(step: int, *others: Any) -> TrainState:
        order.append(f"copied {step}")
        return honest(step, *others)

    def slow(directory: Path, state: TrainState, keep: int) -> None:
        time.sleep(0.3)
        order.append(f"written {state.step}")

    monkeypatch.setattr(checkpoint, "capture", capture)
    monkeypatch.setattr(saving, "_save", slow)
    train(request(tmp_path, "run", ALONE, steps=2, checkpoint_every_steps=1))
    assert order == ["copied 1", "written 1", "copied 2", "written 2"]


def checkpoint_hash(root: Path) -> str:
    newest = checkpoint_folder.folders(root / "run" / "checkpoints")[-1]
    return checkpoint_folder.read_facts(newest)["request_hash"]


@pytest.mark.parametrize("background", [True, False])
def test_a_disk_that_fills_up_stops_the_training_and_loses_nothing(tmp_path: Path, background: bool) -> None:
    settings = {"steps": 8, "checkpoint_every_steps": 2, "checkpoint_in_background": background}
    straight = request(tmp_path, "straight", ALONE, **settings)
    train(straight)
    asked = request(tmp_path, "run", ALONE, **settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = AtStep(4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE_BYTES, hard)))
    try:
        with pytest.raises(StageFailed, match=r"(?s)checkpoint of step 4 cannot be written.*from step-00000002"):
            train(asked, full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert train(asked).resumed_from_step == 2
    assert weights(asked) == weights(straight)


def test_a_disk_that_fills_up_at_the_very_end_loses_nothing(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=2, lora_rank=1)  # small checkpoints, a large model
    size = (Path(asked.model.path) / "model.safetensors").stat().st_size
    with file_size_limit(size // 2), pytest.raises(StageFailed, match="model cannot be written") as said:
        train(asked)
    assert said.value.field == str(tmp_path / "run" / "final")
    assert "last checkpoint" in said.value.remedy
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert train(asked).resumed_from_step == 2


def test_a_full_disk_is_said_with_the_file(tmp_path: Path) -> None:
    for write in (append_jsonl, write_json):
        with file_size_limit(100), pytest.raises(OSError, match=r"File too large.*rows.json"):
            write(tmp_path / "rows.json", ["x" * 1000])


def test_the_best_checkpoint_outlives_the_newest_ones(tmp_path: Path) -> None:
    for step, score in enumerate([3.0, 1.0, 2.0, 1.0, 4.0, 5.0], 1):
        checkpoint.save(tmp_path, scored(step, score), keep=1)
    assert [path.name for path in checkpoint_folder.folders(tmp_path)] == ["step-00000004", "step-00000006"]
    assert checkpoint_folder.best_step(tmp_path) == 4


def test_checkpoints_without_a_score_are_not_compared(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, scored(step, None), keep=1)
    assert [path.name for path in checkpoint_folder.folders(tmp_path)] == ["step-00000003"]
    assert checkpoint_folder.best_step(tmp_path) == 0


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("later", [6, 9])
def test_a_checkpoint_that_was_never_finished_makes_no_good_one_go(
    tmp_path: Path, later: int, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(tmp_path, scored(4, None), keep=1)
    shutil.copytree(tmp_path / "step-00000004", tmp_path / checkpoint_folder.step_name(later))
    (tmp_path / checkpoint_folder.step_name(later) / "DONE.json").unlink()
    for step in (5, 7):
        checkpoint.save(tmp_path, scored(step, None), keep=1)
        found = checkpoint.load_newest(tmp_path, "this")
        assert found is not None
        assert found.step == step
    assert names(tmp_path) == ["step-00000007"] + ["step-00000009"] * (later == 9)
    assert ("step-00000006 was never finished (it has no DONE.json): it is removed" in caplog.text) == (later == 6)


@pytest.mark.parametrize(
    "text", [None, "", '{"step": 2, "sc', "[]", "{}", '{"step": 2, "score": "low"}', '{"step": 3}']
)
def test_an_older_checkpoint_that_cannot_be_read_stays_and_the_training_goes_on(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    for step, score in ((2, 1.0), (4, 3.0)):
        checkpoint.save(tmp_path, scored(step, score), keep=2)
    facts = tmp_path / "step-00000002" / "state.json"
    if text is None:
        facts.unlink()
    else:
        facts.write_text(text)
    checkpoint.save(tmp_path, scored(6, 2.0), keep=2)
    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000006"]
    assert checkpoint_folder.best_step(tmp_path) == 6
    assert "left as it is" in caplog.text
    assert "step-00000002: " in caplog.text


def test_only_folders_with_the_exact_name_of_a_checkpoint_are_ours(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, scored(1, None), keep=2)
    others = ["step-00000001-mine", "step-00000009.broken", "step-000000009", "step-9", "Step-00000009"]
    for name in others:
        shutil.copytree(tmp_path / "step-00000001", tmp_path / name)
    (tmp_path / "step-notes.txt").write_text("mine")
    (tmp_path / "step-00000099").write_text("a file")
    before = set(names(tmp_path)) - {"step-00000001"}
    for step in (2, 3, 4):
        checkpoint.save(tmp_path, scored(step, None), keep=2)
    assert set(names(tmp_path)) - before == {"step-00000003", "step-00000004"}
    assert before <= set(names(tmp_path))
    found = checkpoint.load_newest(tmp_path, "this")
    assert found is not None
    assert found.step == 4


def test_a_checkpoint_that_was_linked_from_elsewhere_is_only_unlinked(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    checkpoint.save(directory, scored(1, None), keep=1)
    shutil.move(directory / "step-00000001", elsewhere)
    (directory / "step-00000001").symlink_to(elsewhere)
    assert checkpoint.load_newest(directory, "this") is not None
    checkpoint.save(directory, scored(2, None), keep=1)
    assert names(directory) == ["step-00000002"]
    assert (elsewhere / "DONE.json").exists()


def test_the_score_is_the_mean_loss_since_the_checkpoint_before(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=4, checkpoint_every_steps=2, keep_checkpoints=9, best_by="image_to_text")
    result = train(asked)
    rows = [line["train/image_to_text_loss"] for line in rows_of(tmp_path / "run" / "metrics.jsonl")]
    folders = checkpoint_folder.folders(tmp_path / "run" / "checkpoints")
    scores = [checkpoint_folder.read_facts(folder)["score"] for folder in folders]
    assert scores == pytest.approx([sum(rows[:2]) / 2, sum(rows[2:]) / 2])
    assert result.best_step == (2 if scores[0] < scores[1] else 4)


def rows_of(path: Path) -> list[dict[str, float]]:
    from reca_core.contracts.files import read_jsonl

    return list(read_jsonl(path))


def test_a_loss_that_is_not_computed_cannot_choose_the_best(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"(?s)training\.best_by: no image_to_text loss.*choices: off, loss, recon"):
        train(request(tmp_path, losses=ALONE, best_by="image_to_text"))
