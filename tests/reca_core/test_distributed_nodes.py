"""Two machines train together, and one that dies is rejoined from the last checkpoint: two torchrun agents on one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from reca_core.contracts.files import read_jsonl
from reca_core.contracts.requests import LossTerms
from tests.reca_core.children import processes_naming, wait_until
from tests.reca_core.test_distributed import assert_same_training, free_port
from tests.reca_core.training_rig import ALONE, request, train, write_request

SETTINGS = {"steps": 24, "images_per_step": 32, "checkpoint_every_steps": 4}
UNDER_WAY = 5
"""A step after the first checkpoint."""
START_SECONDS = 120.0
ENDS_WITHIN_SECONDS = 240.0


def machine(path: Path) -> subprocess.Popen[str]:
    """One machine's agent, which starts one rank."""
    command = [sys.executable, "-m", "reca_core.launch", "train", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended(*agents: subprocess.Popen[str]) -> list[int]:
    try:
        return [agent.wait(ENDS_WITHIN_SECONDS) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()


def test_a_machine_that_dies_is_rejoined_from_the_last_checkpoint(tmp_path: Path) -> None:
    train(request(tmp_path, "alone", ALONE, **SETTINGS))
    meeting = f"127.0.0.1:{free_port()}"
    path = write_request(request(tmp_path, "both", ALONE, nodes=2, rendezvous=meeting, **SETTINGS))
    host = machine(path)
    assert wait_until(lambda: listening(meeting), START_SECONDS)
    guest = machine(path)
    assert wait_until(lambda: len(list(read_jsonl(tmp_path / "both" / "metrics.jsonl"))) >= UNDER_WAY, START_SECONDS)
    os.kill(guest.pid, signal.SIGKILL)
    guest.wait()
    assert ended(machine(path), host) == [0, 0]
    done = json.loads((tmp_path / "both" / "DONE.json").read_text())
    assert done["resumed_from_step"] >= 4
    assert_same_training(tmp_path / "alone", tmp_path / "both")
    assert not processes_naming(str(path))


def test_a_machine_does_not_start_again_after_a_failure_that_has_a_reason(tmp_path: Path) -> None:
    nothing = LossTerms(reconstruction=0, image_to_text=0, text=0)
    meeting = f"127.0.0.1:{free_port()}"
    path = write_request(request(tmp_path, losses=nothing, nodes=2, rendezvous=meeting))
    agents = [machine(path), machine(path)]
    errors = [agent.communicate(timeout=ENDS_WITHIN_SECONDS)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [2, 2]
    assert sum(text.count("every loss term has weight 0") for text in errors) == 2, "each rank says it once"


def listening(endpoint: str) -> bool:
    port = int(endpoint.rsplit(":", 1)[1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    return any(row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port for row in rows)
