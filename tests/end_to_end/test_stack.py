"""`reca up`, `status` and `down` with the real servers: one start serves every test; the last two begin others."""

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
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import httpx
import pytest

from tests.end_to_end.rig import processes_of, save_smallest_janus, settings, wait_until
from tests.end_to_end.test_servers import (
    Stack,
    assert_once,
    begin_long_training,
    cancel,
    children,
    flow_processes,
    free_port,
    of_run,
    state_of,
    tracked,
    trigger,
    wait_for,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1500)]

UP_SECONDS = 480.0
RESUME_SECONDS = 420.0
IDLE_MEGABYTES = 900.0
OUTAGE_SECONDS = 120.0
"""Of MLflow, once the training has ended; how long its client tries: tests/deployments/test_stack_recovery.py."""
SILENCE_SECONDS = 60
"""Two heartbeats, so that the test waits no longer."""


def reca(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    installed = str(Path(sys.executable).with_name("reca"))
    return subprocess.run(
        [installed, *words, "--home", str(home)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
        check=False,
    )


def up(stack: Stack, **variables: str) -> subprocess.CompletedProcess[str]:
    ports = ("--prefect-port", str(stack.prefect_port), "--mlflow-port", str(stack.mlflow_port))
    return reca(stack.root / "home", "up", *ports, "--json", **variables)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("up"), free_port(), free_port())
    (started.root / "worker.log").symlink_to(started.root / "home/stack/worker.log")
    (started.root / "prefect.log").symlink_to(started.root / "home/stack/prefect.log")
    try:
        result = up(started)
        assert result.returncode == 0, result.stderr
        yield started
    finally:
        reca(started.root / "home", "down")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_smallest_janus(tmp_path_factory.mktemp("model") / "smallest")


def status(stack: Stack) -> dict[str, Any]:
    result = reca(stack.root / "home", "status", "--json")
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["exit_code"] == result.returncode
    return found


def opens(link: str) -> bool:
    """Whether a browser gets a page there."""
    page = httpx.get(link, headers={"Accept": "text/html"}, timeout=10, follow_redirects=True, trust_env=False)
    return page.is_success and "<html" in page.text.lower()


def test_every_part_answers_below_the_memory_that_is_promised(stack: Stack) -> None:
    found = status(stack)
    assert found["exit_code"] == 0
    assert [part["part"] for part in found["parts"]] == ["prefect", "mlflow", "worker"]
    assert 0 < sum(part["megabytes"] for part in found["parts"]) < IDLE_MEGABYTES


def test_a_second_up_says_that_it_runs_and_starts_nothing(stack: Stack) -> None:
    before = {part["pid"] for part in status(stack)["parts"]}
    again = up(stack)
    assert again.returncode == 0
    assert "already running" in again.stderr
    answer = json.loads(again.stdout)
    assert set(answer["pids"].values()) == before
    assert all(opens(link) for link in answer["links"].values())
    assert len(answer["links"]) == 3


def test_the_server_is_furnished(stack: Stack) -> None:
    pool = stack.prefect("GET", "/work_pools/reca")
    assert (pool["type"], pool["concurrency_limit"]) == ("process", 1)
    queues = {queue["name"]: queue["priority"] for queue in stack.prefect("POST", "/work_pools/reca/queues/filter", {})}
    assert queues["re-evaluate"] > queues["default"]
    assert stack.prefect("GET", "/v2/concurrency_limits/reca-accelerator")["limit"] == 1
    found = stack.prefect("POST", "/automations/filter", {})
    assert len(found) >= 2
    assert all(automation["enabled"] for automation in found)
    for flow in ("prepare", "post-train", "train-then-evaluate", "evaluate", "re-evaluate"):
        assert stack.deployment(flow)["tags"] == ["resume-auto"]
    recipe = stack.prefect("GET", "/deployments/name/train-then-evaluate/harmon-1.5b-plus")
    assert recipe["parameters"]["fine_tuning"]["steps"] > 0
    assert (recipe["tags"], recipe["enforce_parameter_schema"]) == (["resume-auto"], True)
    assert stack.prefect("GET", "/admin/settings")["server"]["analytics_enabled"] is False


class Webhook(BaseHTTPRequestHandler):
    """What a chat would be: takes JSON, and remembers it."""

    heard: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        assert self.headers["Content-Type"] == "application/json"
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


TELL = """
import sys
from prefect.blocks.system import Secret
from tasks.events import DRIFT, PROMOTION, REFUSAL, Notice, tell
if sys.argv[1:]:
    Secret(value=sys.argv[1]).save("reca-webhook")
else:
    for event in (REFUSAL, DRIFT, PROMOTION):
        tell(Notice(event=event, model="reca-x", version="3", text=f'"{event}"\\n{{{{ 1 }}}}', facts={"delta": -0.2}))
"""


def test_failures_drift_and_promotions_reach_the_webhook_of_the_secret_block(stack: Stack) -> None:
    def told(event: str) -> list[dict[str, Any]]:
        return [said for said in Webhook.heard if said["event"] == event]

    def call(*words: str) -> None:
        environment = os.environ | {"PREFECT_API_URL": stack.api, "PREFECT_HOME": str(stack.root / "client")}
        subprocess.run([sys.executable, "-c", TELL, *words], env=environment, check=True, timeout=UP_SECONDS)

    receiver = HTTPServer(("127.0.0.1", 0), Webhook)
    Thread(target=receiver.serve_forever, daemon=True).start()
    try:
        call(f"http://127.0.0.1:{receiver.server_port}/hook")
        assert "told to the webhook" in up(stack).stderr
        call()
        trigger(stack, "evaluate", {"model": {"source": "/nowhere"}})
        assert wait_until(lambda: told("reca.drift") and told("reca.promotion"), 60)
        assert wait_until(lambda: told("prefect.flow-run.Failed"), UP_SECONDS)
    finally:
        receiver.shutdown()
    assert not told("reca.refusal")
    (drift,) = told("reca.drift")
    assert drift["text"] == '"reca.drift"\n{{ 1 }}'
    assert (drift["facts"]["delta"], drift["facts"]["version"]) == (-0.2, "3")
    failed = told("prefect.flow-run.Failed")[0]
    assert "/nowhere is not a checkpoint" in failed["text"]
    assert failed["url"].startswith(f"http://127.0.0.1:{stack.prefect_port}/runs/flow-run/")


def test_the_weekly_cleaning_removes_what_is_old_and_mlflows_own_leftovers(stack: Stack) -> None:
    home = stack.root / "home"
    old = home / "cache/models/m-forgotten/model.safetensors"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(1000))
    for path in (old, old.parent):
        os.utime(path, (1.0, 1.0))
    flow_run_id = trigger(stack, "clean", {"cleaning": {"older_than_days": 30}})
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ("COMPLETED", "FAILED"), UP_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    assert not old.exists()
    query = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}, "key": {"any_": ["cleaned"]}}}
    (shown,) = stack.prefect("POST", "/artifacts/filter", query)
    assert str(old.parent) in shown["data"]
    assert "removed what was deleted in MLflow" in shown["data"]
    assert [found["cron"] for found in (item["schedule"] for item in stack.deployment("clean")["schedules"])]


@pytest.mark.parametrize("taken", ["--prefect-port", "--mlflow-port"])
def test_a_taken_port_is_refused_with_the_holders_pid_and_leaves_nothing_started(tmp_path: Path, taken: str) -> None:
    other = {"--prefect-port": "--mlflow-port", "--mlflow-port": "--prefect-port"}[taken]
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        result = reca(tmp_path / "home", "up", taken, str(held.getsockname()[1]), other, str(free_port()))
    assert result.returncode == 3
    assert f"process {os.getpid()} " in result.stderr
    assert taken in result.stderr
    assert not processes_of(tmp_path / "home")
    assert not list((tmp_path / "home").glob("stack/*"))


def _tag(entity: dict[str, Any], key: str) -> str:
    return next(str(tag["value"]) for tag in entity["tags"] if tag["key"] == key)


def kill_everything(home: Path) -> None:
    """As a power cut: servers, worker, flow run and its children at once."""
    for pid in processes_of(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not processes_of(home), 10)


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


def environment_of(pid: int) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in pair)


def heartbeats(stack: Stack, flow_run_id: str) -> list[Any]:
    related = {"id": [f"prefect.flow-run.{flow_run_id}"]}
    query = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": related}, "limit": 5}
    found: list[Any] = stack.prefect("POST", "/events/filter", query)["events"]
    return found


def test_a_training_outlives_a_server_that_was_away_for_longer_than_a_silence_and_can_be_cancelled(
    stack: Stack, model: Path
) -> None:
    """The server, back again, calls the run dead, of which it heard no heartbeat: the run objects and is begun only
    once. Its worker hears of no cancel any more: the run ends itself."""
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

    wait_for(stack, "worker", lambda: said()[-1].startswith("RUNNING: It lives"), 60)
    time.sleep(30)  # the automation that would begin it again waits for 20 s
    assert said()[-2:] == [
        f"CRASHED: No heartbeat for {SILENCE_SECONDS} s: the process is gone.",
        f"RUNNING: It lives; the server had said: No heartbeat for {SILENCE_SECONDS} s: the process is gone.",
    ]
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


def training_of(stack: Stack, parent: str) -> dict[str, Any]:
    """What the training below a parent run says of itself when it is done."""
    query = f"tags.stage = 'train' and tags.`mlflow.parentRunId` = '{parent}'"
    (training,) = stack.tracking("POST", "runs/search", {"experiment_ids": ["1"], "filter": query})["runs"]
    done: dict[str, Any] = json.loads((Path(_tag(training["data"], "run_directory")) / "DONE.json").read_text())
    return done


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


def test_down_finds_what_a_killed_up_left_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    installed = str(Path(sys.executable).with_name("reca"))
    ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
    with subprocess.Popen([installed, "up", *ports, "--home", str(home)], stderr=subprocess.DEVNULL) as starting:
        assert wait_until(lambda: len(processes_of(home)) >= 2, 60)
        starting.kill()
    assert processes_of(home)
    assert reca(home, "down").returncode == 0
    assert not processes_of(home)
    assert not (home / "stack/lock").exists()
    assert json.loads((home / "stack/stack.json").read_text())["parts"] == {}
    time.sleep(1)
    assert not processes_of(home)
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{ports[1]}/api/health", trust_env=False)


def test_in_the_foreground_what_dies_is_started_again_and_an_interrupt_ends_all(tmp_path: Path) -> None:
    home = tmp_path / "home"
    installed = str(Path(sys.executable).with_name("reca"))
    ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]

    def worker() -> int:
        parts = json.loads(reca(home, "status", "--json").stdout)["parts"]
        return int(parts[2]["pid"] or 0) if all(part["answers"] for part in parts) else 0

    words = [installed, "up", "--foreground", *ports, "--home", str(home)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as staying:
        first = wait_until(worker, 120)
        assert first
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: worker() not in (0, first), 60)
        assert staying.poll() is None
        staying.terminate()
        assert staying.wait(60) == 0
    assert not processes_of(home)
