"""Left alone: versions are measured, promoted, taken back; outages and kills cost nothing. One `reca up --foreground`.

The tests follow one another in this order; the names of what they register are their own.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import reca_core
from reca_core.contracts.registry import BUNDLED_MODELS
from tests.end_to_end.rig import processes_of, wait_until
from tests.end_to_end.stacks import reca
from tests.end_to_end.test_servers import (
    ENDED,
    Stack,
    assert_once,
    begin_long_training,
    children,
    flow_processes,
    free_port,
    of_run,
    state_of,
    tracked,
    trigger,
    wait_for,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1800)]

UP_SECONDS = 480.0
RUN_SECONDS = 420.0
NAME = "somebody-elses"
TINY = Path(reca_core.__file__).resolve().parents[1] / BUNDLED_MODELS["tiny-janus"]
EVALUATION = {"prompts_per_tag": 4, "pictures_per_prompt": 1}
OUTAGE_SECONDS = 10.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("unattended"), free_port(), free_port())
    home = started.root / "home"
    for part in ("worker", "prefect", "mlflow"):
        (started.root / f"{part}.log").symlink_to(home / f"stack/{part}.log")
    words = [str(Path(sys.executable).with_name("reca")), "up", "--foreground", "--home", str(home)]
    ports = ["--prefect-port", str(started.prefect_port), "--mlflow-port", str(started.mlflow_port)]
    with (started.root / "up.log").open("wb") as log:
        staying = subprocess.Popen([*words, *ports], stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert wait_until(lambda: "start a run" in started.log("up") or staying.poll() is not None, UP_SECONDS)
        assert staying.poll() is None, started.log("up")
        yield started
    finally:
        staying.terminate()
        with suppress(subprocess.TimeoutExpired):
            staying.wait(60)
        reca(home, "down")


def part(stack: Stack, name: str) -> int:
    recorded = json.loads((stack.root / "home/stack/stack.json").read_text())
    return int(recorded["parts"][name]["pid"])


def register_outside(stack: Stack, folder: Path, number: int) -> None:
    """As somebody who knows MLflow and nothing of this project."""
    from mlflow import MlflowClient

    client = MlflowClient(stack.mlflow, stack.mlflow)
    made = client.create_logged_model("0", f"outside-{number}")
    client.log_model_artifacts(made.model_id, str(folder))
    client.finalize_logged_model(made.model_id, "READY")
    if number == 1:
        client.create_registered_model(NAME)
    client.create_model_version(NAME, f"models:/{made.model_id}", model_id=made.model_id)
    client.set_registered_model_alias(NAME, {1: "champion", 2: "challenger"}[number], str(number))


def version(stack: Stack, alias: str) -> str:
    found = stack.tracking("GET", "registered-models/alias", {"name": NAME, "alias": alias})
    return str(found["model_version"]["version"])


def version_tags(stack: Stack, number: str) -> dict[str, str]:
    found = stack.tracking("GET", "model-versions/get", {"name": NAME, "version": number})["model_version"]
    return {tag["key"]: tag["value"] for tag in found["tags"]}


def runs_of(stack: Stack, deployment: str) -> list[dict[str, Any]]:
    found = stack.prefect("GET", f"/deployments/name/{deployment}")
    query = {"deployments": {"id": {"any_": [found["id"]]}}}
    runs: list[dict[str, Any]] = stack.prefect("POST", "/flow_runs/filter", query)
    return runs


def poll(stack: Stack) -> None:
    flow_run_id = trigger(stack, "poll-registry", {"promotion": {"decide": "after_approval"}})
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, RUN_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")


def events(stack: Stack, name: str) -> list[dict[str, Any]]:
    query = {"filter": {"event": {"name": [name]}}, "limit": 50}
    found: list[dict[str, Any]] = stack.prefect("POST", "/events/filter", query)["events"]
    return found


def test_versions_registered_elsewhere_are_measured_once_and_a_person_is_asked_before_a_promotion(
    stack: Stack, model: Path
) -> None:
    registered = stack.prefect("GET", "/deployments/name/re-evaluate/registered")
    stack.prefect("PATCH", f"/deployments/{registered['id']}", {"parameters": {"evaluation": EVALUATION}})
    register_outside(stack, model, 1)
    register_outside(stack, TINY, 2)
    poll(stack)
    poll(stack)

    def states() -> list[str]:
        return sorted(run["state_type"] for run in runs_of(stack, "re-evaluate/registered"))

    wait_for(stack, "worker", lambda: states() == ["COMPLETED", "PAUSED"], RUN_SECONDS)
    assert {run["name"] for run in runs_of(stack, "re-evaluate/registered")} == {
        f"measure {NAME}/1", f"measure {NAME}/2"
    }  # fmt: skip
    for number in ("1", "2"):
        assert version_tags(stack, number)["evaluation"].startswith("done")
        assert "24/24 scored" in version_tags(stack, number)["measured.geneval.shapeworld"]
    (waiting,) = [run for run in runs_of(stack, "re-evaluate/registered") if run["state_type"] == "PAUSED"]
    assert wait_until(lambda: not of_run(stack, waiting["id"]), 30)
    before = tracked(stack, waiting["id"])["info"]
    assert before["status"] == "SCHEDULED"
    assert version(stack, "champion") == "1"

    answer = {"promote": True, "person": "Ada", "reason": "draws what is asked for"}
    resumed = stack.prefect("POST", f"/flow_runs/{waiting['id']}/resume", {"run_input": answer})
    assert resumed["status"] == "ACCEPT"
    wait_for(stack, "worker", lambda: state_of(stack, waiting["id"]) in ENDED, RUN_SECONDS)
    assert state_of(stack, waiting["id"]) == "COMPLETED", stack.log("worker")
    assert version(stack, "champion") == "2"
    assert tracked(stack, waiting["id"])["info"]["run_id"] == before["run_id"]
    assert "Ada says: draws what is asked for" in version_tags(stack, "2")["decision"]
    (promotion,) = wait_for(stack, "prefect", lambda: events(stack, "reca.promotion"), 15)
    assert promotion["payload"]["by"] == "Ada"
    (line,) = (stack.root / f"home/decisions/{NAME}.jsonl").read_text().splitlines()
    assert json.loads(line)["kind"] == "promoted"


def test_a_rollback_is_one_command_and_what_was_rolled_back_is_not_promoted_again(stack: Stack) -> None:
    """The same re-evaluation asks the judge again: it said otherwise last time, which is found as drift."""
    done = reca(stack.root / "home", "rollback", NAME, "--reason", "worse hands", "--json")
    assert done.returncode == 0, done.stderr
    assert version(stack, "champion") == "1"
    assert "worse hands" in version_tags(stack, "2")["rolled_back"]
    judgings = sorted((stack.root / "home/answers").iterdir())
    for folder in judgings:
        _say_that_everything_was_right(folder)
    parameters = {
        "versions": {"name": NAME, "force": True},
        "evaluation": EVALUATION,
        "promotion": {"decide": "by_rule"},
    }
    flow_run_id = trigger(stack, "re-evaluate", parameters)
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, RUN_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    assert version(stack, "champion") == "1"
    assert len(list((stack.root / "home/answers").iterdir())) == 2 * len(judgings)
    (refusal,) = wait_for(stack, "prefect", lambda: events(stack, "reca.refusal"), 15)
    assert "rolled back" in refusal["payload"]["text"]
    drifted = wait_for(stack, "prefect", lambda: events(stack, "reca.drift"), 15)
    assert {event["payload"]["version"] for event in drifted} >= {"1"}
    assert all(event["payload"]["high"] < 0 for event in drifted)
    metrics = {metric["key"]: metric["value"] for metric in tracked(stack, flow_run_id)["data"]["metrics"]}
    assert metrics["drift/geneval.shapeworld/overall/high"] < 0


def _say_that_everything_was_right(answers: Path) -> None:
    """As a judge that was kinder then."""
    file = answers / "judgments.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["outcome"]["values"]["correct"] = 1.0
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_missed_runs_are_done_once_and_training_goes_first(stack: Stack) -> None:
    """The pool is paused, as on a machine that sleeps, and the next nights come due."""
    deployment = stack.deployment("re-evaluate")
    query = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}},
    }

    def nights() -> list[dict[str, Any]]:
        runs = stack.prefect("POST", "/flow_runs/filter", query)
        return [run for run in runs if run["parameters"] == {"promotion": {"decide": "by_rule"}}]

    missed = wait_for(stack, "prefect", lambda: len(nights()) >= 2 and nights(), RUN_SECONDS)
    assert {run["auto_scheduled"] for run in missed} == {True}
    stack.prefect("PATCH", "/work_pools/reca", {"is_paused": True})
    for run in missed:
        due = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
        stack.prefect("POST", f"/flow_runs/{run['id']}/set_state", {"state": due, "force": True})
    training = trigger(stack, "prepare", {"images": {"scenes": 40}})
    stack.prefect("PATCH", "/work_pools/reca", {"is_paused": False})

    def ended() -> list[dict[str, Any]]:
        runs = [stack.prefect("GET", f"/flow_runs/{run['id']}") for run in missed]
        return [run for run in runs if run["state_type"] in ENDED]

    wait_for(stack, "worker", lambda: len(ended()) == len(missed), RUN_SECONDS)
    names = [run["state_name"] for run in ended()]
    assert names.count("Completed") == 1
    # The others never ran: dropped by the flow when it began, or when it ended.
    assert set(names) == {"Completed", "Missed"}
    (done,) = [run for run in ended() if run["state_name"] == "Completed"]
    assert stack.prefect("GET", f"/flow_runs/{training}")["start_time"] < done["start_time"]


def test_a_training_survives_both_servers_and_a_locked_database(stack: Stack, model: Path) -> None:
    """Killed and started again one after the other while it runs, then both databases are held by somebody else."""
    steps = 300
    flow_run_id = begin_long_training(stack, model, steps, RUN_SECONDS)
    parent = tracked(stack, flow_run_id)["info"]["run_id"]
    for name, url in (("prefect", f"{stack.api}/health"), ("mlflow", f"{stack.mlflow}/health")):
        os.kill(part(stack, name), signal.SIGKILL)
        assert wait_until(lambda url=url: not answers_now(url), 10)
        assert wait_until(lambda url=url: answers_now(url), RUN_SECONDS), stack.log("up")
    with (
        closing(sqlite3.connect(stack.root / "home/prefect/prefect.db", timeout=60)) as prefect,
        closing(sqlite3.connect(stack.root / "home/mlflow/mlflow.db", timeout=60)) as mlflow,
    ):
        for held in (prefect, mlflow):
            held.execute("BEGIN EXCLUSIVE")
        time.sleep(OUTAGE_SECONDS)
        for held in (prefect, mlflow):
            held.rollback()
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, RUN_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    assert stack.prefect("GET", f"/flow_runs/{flow_run_id}")["run_count"] == 1
    assert_once(stack, flow_run_id, parent, steps)


def answers_now(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def test_a_worker_killed_with_its_run_is_started_again_and_the_run_goes_on(stack: Stack, model: Path) -> None:
    steps = 150
    flow_run_id = begin_long_training(stack, model, steps, RUN_SECONDS)
    parent = tracked(stack, flow_run_id)["info"]["run_id"]
    for pid in [part(stack, "worker"), *flow_processes(stack)]:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not children(stack), 10)
    assert processes_of(stack.root / "home")
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, RUN_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    assert stack.prefect("GET", f"/flow_runs/{flow_run_id}")["run_count"] == 2
    assert_once(stack, flow_run_id, parent, steps)
