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
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import httpx
import pytest

from tests.end_to_end.rig import processes_of, wait_until
from tests.end_to_end.stacks import UP_SECONDS, reca, status, up, up_and_down
from tests.end_to_end.test_servers import (
    Stack,
    free_port,
    state_of,
    trigger,
    wait_for,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1500)]

IDLE_MEGABYTES = 900.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with up_and_down(tmp_path_factory.mktemp("up")) as started:
        yield started


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
        try:
            first = wait_until(worker, UP_SECONDS)
            assert first
            os.kill(first, signal.SIGKILL)
            assert wait_until(lambda: worker() not in (0, first), UP_SECONDS)
            assert staying.poll() is None
            staying.terminate()
            assert staying.wait(120) == 0
        except BaseException:  # leaving the block waits for a process that nobody has told to end
            staying.kill()
            reca(home, "down")
            raise
    assert not processes_of(home)
