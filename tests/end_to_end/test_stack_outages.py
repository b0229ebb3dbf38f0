"""What a run of the stack outlives: its process, MLflow, its machine, the server and a reboot; one start serves all."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.rig import processes_of, settings, wait_until
from tests.end_to_end.stacks import environment_of, reca, status, up, up_and_down
from tests.end_to_end.test_servers import (
    ENDED,
    RUN_VARIABLE,
    Stack,
    assert_once,
    begin_long_training,
    cancel,
    children,
    flow_processes,
    of_run,
    state_of,
    tracked,
    wait_for,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1500)]

RESUME_SECONDS = 420.0
OUTAGE_SECONDS = 120.0
"""Of MLflow, once the training has ended; how long its client tries: tests/deployments/test_stack_recovery.py."""
SILENCE_SECONDS = 60
"""Two heartbeats, so that the test waits no longer."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with up_and_down(tmp_path_factory.mktemp("up")) as started:
        yield started


@pytest.fixture(autouse=True)
def _nothing_goes_on(stack: Stack) -> Iterator[None]:
    """The pool takes one run at a time: what a failed test left at work would fail every test after it."""
    yield
    for pid in [*flow_processes(stack), *children(stack)]:
        with suppress(FileNotFoundError, ProcessLookupError, httpx.HTTPError):
            flow_run_id = environment_of(pid).get(RUN_VARIABLE)
            if flow_run_id and state_of(stack, flow_run_id) not in ENDED:
                body = {"state": {"type": "CANCELLED", "message": "its test has ended"}, "force": True}
                stack.prefect("POST", f"/flow_runs/{flow_run_id}/set_state", body)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tag(entity: dict[str, Any], key: str) -> str:
    return next(str(tag["value"]) for tag in entity["tags"] if tag["key"] == key)


def kill_everything(home: Path) -> None:
    """As a power cut: servers, worker, flow run and its children at once."""
    for pid in processes_of(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not processes_of(home), 10)


def heartbeats(stack: Stack, flow_run_id: str) -> list[Any]:
    related = {"id": [f"prefect.flow-run.{flow_run_id}"]}
    query = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": related}, "limit": 5}
    found: list[Any] = stack.prefect("POST", "/events/filter", query)["events"]
    return found


def training_of(stack: Stack, parent: str) -> dict[str, Any]:
    """What the training below a parent run says of itself when it is done."""
    query = f"tags.stage = 'train' and tags.`mlflow.parentRunId` = '{parent}'"
    (training,) = stack.tracking("POST", "runs/search", {"experiment_ids": ["1"], "filter": query})["runs"]
    done: dict[str, Any] = json.loads((Path(_tag(training["data"], "run_directory")) / "DONE.json").read_text())
    return done


def test_a_run_whose_process_was_killed_goes_on_by_itself(stack: Stack, model: Path) -> None:
    flow_run_id = begin_long_training(stack, model, 150)
    for pid in flow_processes(stack):
        os.kill(pid, signal.SIGKILL)
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ("COMPLETED", "FAILED"), RESUME_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    assert stack.prefect("GET", f"/flow_runs/{flow_run_id}")["run_count"] == 2


def test_a_run_waits_for_an_mlflow_that_is_away_and_loses_nothing(stack: Stack, model: Path) -> None:
    """Its training ends meanwhile; then every call of the flow is in vain until MLflow is back."""
    steps, home = 60, stack.root / "home"
    flow_run_id = begin_long_training(stack, model, steps)
    before = tracked(stack, flow_run_id)["info"]["run_id"]
    held = [pid for pid in processes_of(home) if environment_of(pid).get("RECA_STACK_PART") == "mlflow"]
    main = json.loads((home / "stack/stack.json").read_text())["parts"]["mlflow"]["pid"]
    words, environment = Path(f"/proc/{main}/cmdline").read_text().split("\0")[:-1], environment_of(main)
    for pid in held:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not children(stack), RESUME_SECONDS)
    (flow,) = of_run(stack, flow_run_id) & set(flow_processes(stack))
    time.sleep(OUTAGE_SECONDS)
    assert (state_of(stack, flow_run_id), flow in flow_processes(stack)) == ("RUNNING", True)
    with (home / "stack/mlflow.log").open("ab") as log:
        subprocess.Popen(words, env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True)
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ("COMPLETED", "FAILED"), RESUME_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    assert stack.prefect("GET", f"/flow_runs/{flow_run_id}")["run_count"] == 1
    assert_once(stack, flow_run_id, before, steps)


def test_a_run_whose_machine_died_is_found_by_its_silence_and_goes_on_at_another_worker(
    stack: Stack, model: Path
) -> None:
    """Worker, run and children are gone at once and nobody reports it; the two automations alone bring the run back."""
    assert up(stack, RECA_SILENCE_SECONDS=str(SILENCE_SECONDS)).returncode == 0
    steps, home = 250, stack.root / "home"
    flow_run_id = begin_long_training(stack, model, steps)
    before = tracked(stack, flow_run_id)["info"]["run_id"]
    # Silence is noticed only where a heartbeat was heard before; the first one is sent when the run begins.
    assert wait_until(lambda: heartbeats(stack, flow_run_id), 60)
    assert children(stack)
    worker = json.loads((home / "stack/stack.json").read_text())["parts"]["worker"]["pid"]
    environment = environment_of(worker)
    for pid in [worker, *flow_processes(stack)]:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not children(stack), 10)
    words = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "reca", "--type", "process"]
    with (
        (stack.root / "another.log").open("wb") as log,
        subprocess.Popen([*words, "--name", "another"], env=environment, cwd=home, stdout=log, stderr=log) as another,
    ):
        wait_for(stack, "prefect", lambda: state_of(stack, flow_run_id) in ("COMPLETED", "FAILED"), RESUME_SECONDS)
        another.kill()  # asked to stop, it would first do what comes after a registration
    assert state_of(stack, flow_run_id) == "COMPLETED", (stack.root / "another.log").read_text()
    assert stack.prefect("GET", f"/flow_runs/{flow_run_id}")["run_count"] == 2
    assert_once(stack, flow_run_id, before, steps)
    history = stack.prefect("GET", f"/flow_run_states/?flow_run_id={flow_run_id}")
    said = [state["message"] for state in history]
    assert f"No heartbeat for {SILENCE_SECONDS} s: the process is gone." in said
    assert "Crashed: goes on from its last checkpoint." in said
    assert up(stack).returncode == 0  # the worker that was killed is there again, and the time of silence is the usual


def test_a_training_outlives_a_server_that_was_away_for_longer_than_a_silence_and_can_be_cancelled(
    stack: Stack, model: Path
) -> None:
    """The server, back again, calls the run dead, of which it heard no heartbeat (as a rule: it may hear one first):
    the run objects and is begun only once. Its worker hears of no cancel any more: the run ends itself."""
    assert up(stack, RECA_SILENCE_SECONDS=str(SILENCE_SECONDS)).returncode == 0
    home = stack.root / "home"
    flow_run_id = begin_long_training(stack, model, 100_000)
    assert wait_until(lambda: heartbeats(stack, flow_run_id), 60)
    at_work = of_run(stack, flow_run_id)
    assert len(at_work) >= 2, "the flow and its stage"
    for pid in processes_of(home):
        if environment_of(pid).get("RECA_STACK_PART") == "prefect":
            os.kill(pid, signal.SIGKILL)
    time.sleep(SILENCE_SECONDS + 15)
    result = up(stack, RECA_SILENCE_SECONDS=str(SILENCE_SECONDS))
    assert result.returncode == 0, result.stderr
    assert "still there: mlflow, worker; started again: prefect" in result.stderr
    assert "was cut off" not in result.stderr

    def said() -> list[str]:
        history = stack.prefect("GET", f"/flow_run_states/?flow_run_id={flow_run_id}")
        return [f"{state['type']}: {state['message']}" for state in sorted(history, key=lambda one: one["timestamp"])]

    dead = f"No heartbeat for {SILENCE_SECONDS} s: the process is gone."
    if not wait_until(lambda: any(dead in one for one in said()), 30):
        # A heartbeat that comes in the server's first second is heard before the silence: then it is said here.
        state = {"type": "CRASHED", "message": dead}
        stack.prefect("POST", f"/flow_runs/{flow_run_id}/set_state", {"state": state, "force": True})
    wait_for(stack, "worker", lambda: said()[-1].startswith("RUNNING: It lives"), 60)
    time.sleep(30)  # the automation that would begin it again waits for 20 s
    assert said()[-2:] == [f"CRASHED: {dead}", f"RUNNING: It lives; the server had said: {dead}"]
    assert of_run(stack, flow_run_id) == at_work
    assert "Flow run cancellation disabled" in (stack.root / "worker.log").read_text(errors="replace")
    cancel(stack, flow_run_id)
    wait_for(stack, "worker", lambda: not of_run(stack, flow_run_id), 30)
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) == "CANCELLED", 90)
    time.sleep(5)  # the worker reports how its process ended, which must change nothing
    assert said()[-1].startswith("CANCELLED"), said()
    assert tracked(stack, flow_run_id)["info"]["status"] == "KILLED"


@pytest.mark.parametrize(("steps", "away"), [(200, 0), (210, SILENCE_SECONDS + 10)])
def test_a_run_that_a_reboot_cut_off_completes_under_the_same_ids(
    stack: Stack, model: Path, steps: int, away: float
) -> None:
    """Back within the time of silence; and after it, when the server calls its runs dead in its first second."""
    assert up(stack, RECA_SILENCE_SECONDS=str(SILENCE_SECONDS)).returncode == 0
    flow_run_id = begin_long_training(stack, model, steps)
    before = tracked(stack, flow_run_id)["info"]["run_id"]
    assert wait_until(lambda: heartbeats(stack, flow_run_id), 60)
    kill_everything(stack.root / "home")
    time.sleep(away)
    result = up(stack)
    assert result.returncode == 0, result.stderr
    assert "was cut off" in result.stderr
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ("COMPLETED", "FAILED"), RESUME_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    assert stack.prefect("GET", f"/flow_runs/{flow_run_id}")["run_count"] == 2
    assert_once(stack, flow_run_id, before, steps)
    assert training_of(stack, before)["resumed_from_step"] > 0


def test_a_run_without_the_stack_goes_on_in_the_same_experiment(stack: Stack, model: Path) -> None:
    """Down, then the command line alone on the same home: artifacts must not need the server that made them."""
    home = stack.root / "home"
    down = reca(home, "down")
    assert down.returncode == 0
    assert not processes_of(home)
    for port in (stack.prefect_port, stack.mlflow_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert not (home / "stack/lock").exists()
    assert status(stack)["exit_code"] == 3
    config = stack.root / "config.json"
    config.write_text(json.dumps(settings(model)))
    result = reca(home, "run", "train-then-evaluate", "--config", str(config), "--json")
    assert result.returncode in (0, 5), result.stderr
