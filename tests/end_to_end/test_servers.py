"""Smoke test with the real servers: what we deploy is scheduled, picked up by a worker, run and tracked.

Two known breakages would pass every other test: a server that does not start with a newer fastapi, and a scheduler
that silently creates nothing with a newer sqlalchemy (docs/decisions/0002-pins.md).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.rig import processes_of, settings

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 180.0
RUN_SECONDS = 300.0
STOP_SECONDS = 15.0
BUSY_TRIES = 10
ANSWER_SECONDS = 90.0
"""SQLite lets a busy server wait for a minute."""
POOL = "reca"

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1200)]


@dataclass
class Stack:
    """Two servers and a worker in a home of their own."""

    root: Path
    prefect_port: int
    mlflow_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    login: tuple[str, str] | None = None
    """User and password where the servers ask."""

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What the worker has: nothing of the shell that could help it find the repository."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "PYTHON"))
        }
        prefect = self.root / "prefect"
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RECA_HOME": str(self.root / "home"),
            "PREFECT_HOME": str(prefect),
            "PREFECT_PROFILES_PATH": str(prefect / "profiles.toml"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{prefect}/prefect.db",
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, name: str, *command: str) -> None:
        with (self.root / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, cwd=self.root, stdout=log, stderr=subprocess.STDOUT, process_group=0
            )

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text(errors="replace")[-4000:]

    def call(self, *command: str) -> str:
        result = subprocess.run(
            command,
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def prefect(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Asked again where the server says that its database is busy, as Prefect's own client does."""
        for _ in range(BUSY_TRIES):
            response = httpx.request(
                method, f"{self.api}{path}", json=body, timeout=ANSWER_SECONDS, trust_env=False, auth=self.login
            )
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        return _answer(response)

    def tracking(self, method: str, path: str, query: Mapping[str, Any]) -> Any:
        url = f"{self.mlflow}/api/2.0/mlflow/{path}"
        if method == "POST":
            response = httpx.post(url, json=query, timeout=ANSWER_SECONDS, trust_env=False, auth=self.login)
        else:
            response = httpx.get(url, params=query, timeout=ANSWER_SECONDS, trust_env=False, auth=self.login)
        return _answer(response)

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.prefect("GET", f"/deployments/name/{name}/reca")
        return found

    def stop(self) -> None:
        """End everything; nothing is left that holds a port."""
        for process in self.processes.values():
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()


def _answer(response: httpx.Response) -> Any:
    """Its JSON, None where there is no body; a refusal is raised with what the server said, which httpx leaves out."""
    if response.is_error:
        said = f"{response.status_code} {response.request.method} {response.request.url}: {response.text}"
        raise httpx.HTTPStatusError(said, request=response.request, response=response)
    return response.json() if response.content else None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(stack: Stack, name: str, condition: Callable[[], Any], seconds: float) -> Any:
    """The first true value of ``condition``; fails with the log of ``name``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if name in stack.processes and stack.processes[name].poll() is not None:
            break
        found = condition()
        if found:
            return found
        time.sleep(0.25)
    pytest.fail(f"{name} is not there after {seconds:.0f} s:\n{stack.log(name)}")


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def running(root: Path) -> Iterator[Stack]:
    stack = Stack(root, free_port(), free_port())
    (root / "prefect").mkdir()
    (root / "home").mkdir()
    with ExitStack() as cleanup:
        cleanup.callback(stack.stop)
        stack.start("prefect", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(stack.prefect_port))
        stack.start(
            "mlflow", "mlflow", "server", "--host", "127.0.0.1", "--port", str(stack.mlflow_port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", str(root / "artifacts"),
        )  # fmt: skip
        wait_for(stack, "prefect", lambda: answers(f"{stack.api}/health"), START_SECONDS)
        wait_for(stack, "mlflow", lambda: answers(f"{stack.mlflow}/health"), START_SECONDS)
        stack.call("prefect", "work-pool", "create", POOL, "--type", "process")
        stack.call("prefect", "work-pool", "set-concurrency-limit", POOL, "1")
        stack.call("prefect", "work-queue", "create", "re-evaluate", "--pool", POOL, "--priority", "10")
        stack.call("prefect", "gcl", "create", "reca-accelerator", "--limit", "1")
        stack.call(
            "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(ROOT / "deployments/prefect.yaml")
        )
        stack.start("worker", "prefect", "worker", "start", "--pool", POOL, "--type", "process")
        yield stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack")) as started:
        yield started


def state_of(stack: Stack, flow_run_id: str) -> str:
    return str(stack.prefect("GET", f"/flow_runs/{flow_run_id}")["state_type"])


def trigger(stack: Stack, flow: str, parameters: Mapping[str, Any]) -> str:
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    made = stack.prefect("POST", f"/deployments/{stack.deployment(flow)['id']}/create_flow_run", body)
    return str(made["id"])


def cancel(stack: Stack, flow_run_id: str) -> None:
    """What the cancel button of the UI does."""
    stack.prefect("POST", f"/flow_runs/{flow_run_id}/set_state", {"state": {"type": "CANCELLING"}})


RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def test_the_scheduler_creates_runs_of_the_deployed_schedule(stack: Stack) -> None:
    deployment = stack.deployment("re-evaluate")
    schedules = {schedule["slug"]: schedule["parameters"] for schedule in deployment["schedules"]}
    assert schedules == {"nightly": {"promotion": {"decide": "by_rule"}}, "weekly-drift": {"versions": {"force": True}}}
    query = {"deployments": {"id": {"any_": [deployment["id"]]}}, "limit": 5}
    runs = wait_for(stack, "prefect", lambda: stack.prefect("POST", "/flow_runs/filter", query), RUN_SECONDS)
    assert {run["auto_scheduled"] for run in runs} == {True}
    assert {run["state_type"] for run in runs} == {"SCHEDULED"}


def test_every_flow_is_deployed_by_module_with_its_parameters_enforced(stack: Stack) -> None:
    for flow in ("prepare", "post-train", "train-then-evaluate", "evaluate", "re-evaluate"):
        deployment = stack.deployment(flow)
        assert deployment["entrypoint"].startswith("flows.")
        assert ":" not in deployment["entrypoint"]
        assert not deployment["pull_steps"]
        assert deployment["enforce_parameter_schema"] is True
        assert deployment["parameter_openapi_schema"]["properties"]


def test_a_wrong_value_is_refused_by_the_server_and_names_the_field(stack: Stack) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        trigger(stack, "prepare", {"images": {"scenes": -5}})
    assert "scenes" in caught.value.response.text


def test_a_triggered_run_completes_on_a_worker_and_is_tracked(stack: Stack) -> None:
    parameters = {"images": {"source": "shapeworld", "scenes": 40}}
    flow_run_id = trigger(stack, "prepare", parameters)
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, RUN_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    manifests = list((stack.root / "home" / "data").glob("*/manifest.jsonl"))
    assert len(manifests) == 1
    run = tracked(stack, flow_run_id)
    assert run["info"]["status"] == "FINISHED"
    assert _tags(run)["prefect_url"] == f"http://127.0.0.1:{stack.prefect_port}/runs/flow-run/{flow_run_id}"
    links = stack.prefect("POST", "/artifacts/filter", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
    assert any(run["info"]["run_id"] in str(link["data"]) for link in links if link["key"] == "mlflow")
    wait_for(stack, "prefect", lambda: "pictures, 0 unusable files" in "\n".join(logs(stack, flow_run_id)), 15)


def tracked(stack: Stack, flow_run_id: str) -> dict[str, Any]:
    """The one parent run of a flow run."""
    query = {"experiment_ids": ["1"], "filter": f"tags.flow_run_id = '{flow_run_id}'"}
    (run,) = stack.tracking("POST", "runs/search", query)["runs"]
    assert isinstance(run, dict)
    return run


def _tags(entity: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in entity.get("data", entity)["tags"]}


def logs(stack: Stack, flow_run_id: str) -> list[str]:
    """What the run said; it arrives in batches, a moment after the run has ended."""
    lines = stack.prefect("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run_id]}}})
    return [line["message"] for line in lines]


def children(stack: Stack) -> dict[int, str]:
    """Stage processes of the stack's home."""
    return {pid: line for pid, line in processes_of(stack.root / "home").items() if ".launch " in line}


def flow_processes(stack: Stack) -> dict[int, str]:
    """Flow run processes that the worker started."""
    return {pid: line for pid, line in processes_of(stack.root / "home").items() if "prefect.engine" in line}


def of_run(stack: Stack, flow_run_id: str) -> set[int]:
    """The process of one flow run and its stages; a scheduled run may be at work beside it."""
    mark, found = f"{RUN_VARIABLE}={flow_run_id}".encode(), set()
    for pid, line in processes_of(stack.root / "home").items():
        with suppress(FileNotFoundError, ProcessLookupError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes() and ("prefect.engine" in line or ".launch " in line):
                found.add(pid)
    return found


def test_the_whole_pipeline_runs_on_a_worker(stack: Stack, model: Path) -> None:
    flow_run_id = trigger(stack, "train-then-evaluate", settings(model))
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, 2 * RUN_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    artifacts = stack.prefect("POST", "/artifacts/filter", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
    assert {"mlflow", "comparison"} <= {artifact["key"] for artifact in artifacts}
    assert any(artifact["type"] == "progress" and artifact["data"] == 100 for artifact in artifacts)
    found = stack.tracking("GET", "model-versions/search", {"filter": "name = 'reca-smallest'"})
    (version,) = found["model_versions"]
    assert _tags(version)["flow_run_id"] == flow_run_id


def assert_once(stack: Stack, flow_run_id: str, parent: str, steps: int) -> None:
    """The same MLflow run, one registered version, every step of the curve once."""
    assert tracked(stack, flow_run_id)["info"]["run_id"] == parent
    assert tracked(stack, flow_run_id)["info"]["status"] == "FINISHED"
    condition = f"tags.stage = 'train' and tags.`mlflow.parentRunId` = '{parent}'"
    (training,) = stack.tracking("POST", "runs/search", {"experiment_ids": ["1"], "filter": condition})["runs"]
    query = {"run_id": training["info"]["run_id"], "metric_key": "train/loss", "max_results": 10 * steps}
    points = stack.tracking("GET", "metrics/get-history", query)["metrics"]
    assert sorted(int(point.get("step", 0)) for point in points) == list(range(1, steps + 1))
    made = f"name = 'reca-smallest' and tags.flow_run_id = '{flow_run_id}'"
    assert len(stack.tracking("GET", "model-versions/search", {"filter": made})["model_versions"]) == 1


def begin_long_training(stack: Stack, model: Path, steps: int, seconds: float = RUN_SECONDS) -> str:
    """A training far from its end, begun and stepping; another number of steps is another run directory."""
    parameters = {name: value for name, value in settings(model, steps).items() if name != "evaluation"}
    flow_run_id = trigger(stack, "post-train", parameters)
    wait_for(stack, "worker", lambda: any(has_checkpoint(line) for line in children(stack).values()), seconds)
    return flow_run_id


def has_checkpoint(command: str) -> bool:
    """Whether the training with this command line has saved its first checkpoint."""
    run_directory = Path(command.split()[-1]).parent
    return any(run_directory.glob("checkpoints/step-0*"))


def test_a_cancel_from_the_ui_ends_every_process_of_the_run(stack: Stack, model: Path) -> None:
    flow_run_id = begin_long_training(stack, model, 100_000)
    assert len(of_run(stack, flow_run_id)) >= 2, "the flow and its stage"
    cancel(stack, flow_run_id)
    wait_for(stack, "worker", lambda: not of_run(stack, flow_run_id), 30)
    # What ended is another matter than when a busy server says so: SQLite lets it wait for a minute.
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) == "CANCELLED", 90)
    assert tracked(stack, flow_run_id)["info"]["status"] == "KILLED"


def test_a_killed_stage_is_started_again_and_logs_every_step_once(stack: Stack, model: Path) -> None:
    """The deployment allows three attempts; flow run and MLflow run stay the same."""
    steps = 100
    flow_run_id = begin_long_training(stack, model, steps)
    for pid in children(stack):
        os.kill(pid, signal.SIGKILL)
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, 2 * RUN_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    parent = tracked(stack, flow_run_id)["info"]["run_id"]
    condition = f"tags.stage = 'train' and tags.`mlflow.parentRunId` = '{parent}'"
    (training,) = stack.tracking("POST", "runs/search", {"experiment_ids": ["1"], "filter": condition})["runs"]
    result = json.loads((Path(_tags(training)["run_directory"]) / "DONE.json").read_text())
    assert result["resumed_from_step"] > 0
    query = {"run_id": training["info"]["run_id"], "metric_key": "train/loss", "max_results": 10 * steps}
    points = stack.tracking("GET", "metrics/get-history", query)["metrics"]
    assert sorted(int(point.get("step", 0)) for point in points) == list(range(1, steps + 1))


def test_killing_the_flow_process_leaves_nothing_alive(stack: Stack, model: Path) -> None:
    flow_run_id = begin_long_training(stack, model, 100_001)
    for pid in flow_processes(stack):
        os.kill(pid, signal.SIGKILL)
    wait_for(stack, "worker", lambda: not children(stack), 10)
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) == "CRASHED", 90)
