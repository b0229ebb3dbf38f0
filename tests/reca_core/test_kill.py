"""kill -9 at any moment: the next attempt ends with the same bits, and nothing of a killed run stays alive."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reca_core.contracts.files import read_jsonl
from tests.reca_core.children import alive, launch, launch_and_die, processes_naming, start, wait_until
from tests.reca_core.training_rig import request, train, weights, write_request

STEPS = 8
DEAD_WITHIN_SECONDS = 10.0
LONG = 1_000_000
PARENT = """
import os, subprocess, sys
from reca_core.contracts.lifeline import child_environment
command = [sys.executable, "-m", "reca_core.launch", "train", sys.argv[1]]
subprocess.run(command, env=child_environment(os.environ), check=False)
"""


def finish(path: Path) -> None:
    child = start(launch, "train", path)
    child.join()
    assert child.exitcode == 0


def steps_logged(run: Path) -> list[int]:
    return [row["step"] for row in read_jsonl(run / "metrics.jsonl")]


def test_killed_within_its_saves_a_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight = request(tmp_path, "straight", steps=STEPS, checkpoint_every_steps=1)
    broken = request(tmp_path, "broken", steps=STEPS, checkpoint_every_steps=1)
    train(straight)
    path = write_request(broken)
    chance = random.Random(0)
    for _ in range(6):
        child = start(launch_and_die, "train", path, chance.randrange(8, 40))
        child.join()
        assert child.exitcode in (-signal.SIGKILL, 0)
    finish(path)
    assert weights(broken) == weights(straight)
    assert steps_logged(tmp_path / "broken") == list(range(1, STEPS + 1))
    assert not list((tmp_path / "broken").rglob("*.tmp"))


def test_killed_at_random_moments_a_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight = request(tmp_path, "straight", steps=STEPS, preview_every_steps=3)
    broken = request(tmp_path, "broken", steps=STEPS, preview_every_steps=3)
    train(straight)
    path = write_request(broken)
    chance = random.Random(1)
    for _ in range(5):
        child = start(launch, "train", path)
        time.sleep(chance.uniform(0.3, 1.5))
        child.kill()
        child.join()
    finish(path)
    assert weights(broken) == weights(straight)
    assert steps_logged(tmp_path / "broken") == list(range(1, STEPS + 1))


def test_asked_to_end_a_training_saves_and_says_that_it_was_interrupted(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=LONG, checkpoint_every_steps=LONG)
    child = start(launch, "train", write_request(asked))
    assert wait_until(lambda: steps_logged(tmp_path / "run"))
    os.kill(child.pid or 0, signal.SIGTERM)
    child.join()
    assert child.exitcode == 130
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert steps_logged(tmp_path / "run")[-1] == int(saved.name.removeprefix("step-"))


def test_two_trainings_cannot_work_in_one_directory(tmp_path: Path) -> None:
    asked = request(tmp_path, steps=LONG, checkpoint_every_steps=LONG)
    path = write_request(asked)
    first = start(launch, "train", path)
    lock = tmp_path / "run" / "lock"
    assert wait_until(lambda: lock.exists() and lock.read_text() == str(first.pid))
    second = start(launch_impatiently, path)
    second.join()
    assert second.exitcode == 4
    assert alive(first.pid or 0)
    first.kill()
    first.join()


def launch_impatiently(path: Path) -> None:
    from reca_core.contracts import files
    from reca_core.training import run

    def lock(place: Path):
        return files.run_lock(place, wait_seconds=0.2)

    run.run_lock = lock  # type: ignore[assignment]
    launch("train", path)


@pytest.mark.parametrize("victim", ["launcher", "rank", "parent"])
def test_when_any_process_of_a_run_is_killed_nothing_of_it_stays_alive(tmp_path: Path, victim: str) -> None:
    asked = request(tmp_path, steps=LONG, checkpoint_every_steps=LONG, processes=2)
    path = write_request(asked)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)], env=environment, stdout=subprocess.DEVNULL)
    assert wait_until(lambda: steps_logged(tmp_path / "run")), "the run must be under way before something is killed"
    pids = json.loads((tmp_path / "run" / "pids.json").read_text())
    everyone = processes_naming(str(path))
    assert {pids["launcher"], *pids["ranks"], parent.pid} <= set(everyone)
    assert len(pids["ranks"]) == 2
    os.kill({"launcher": pids["launcher"], "rank": pids["ranks"][1], "parent": parent.pid}[victim], signal.SIGKILL)
    if victim != "parent":
        assert wait_until(lambda: parent.poll() is not None, DEAD_WITHIN_SECONDS)
    parent.poll()
    assert wait_until(lambda: not processes_naming(str(path)), DEAD_WITHIN_SECONDS)
    parent.wait()
