"""The stack as a group runs it: on a real PostgreSQL that asks for a password, and servers that ask who calls.

Schedules appear, a run of the worker registers one version, and no password is in any file or command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.postgres import PASSWORD, Database, running_database
from tests.end_to_end.rig import processes_of, save_smallest_janus, settings
from tests.end_to_end.test_servers import ENDED, Stack, free_port, state_of, trigger, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.postgres, pytest.mark.timeout(900)]

COMMAND_SECONDS = 300.0
LOGIN = ("anna", "only-in-a-file-of-hers")


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with running_database(free_port()) as started:
        yield started


def reca(home: Path, *words: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    installed = str(Path(sys.executable).with_name("reca"))
    return subprocess.run(
        [installed, *words, "--home", str(home)],
        env=os.environ | {"PGPASSWORD": password},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def stack(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("up"), free_port(), free_port(), login=LOGIN)
    auth = started.root / "auth"
    auth.write_text(":".join(LOGIN))
    auth.chmod(0o600)
    home = started.root / "home"
    for part in ("worker", "prefect"):
        (started.root / f"{part}.log").symlink_to(home / f"stack/{part}.log")
    ports = ("--prefect-port", str(started.prefect_port), "--mlflow-port", str(started.mlflow_port))
    try:
        result = reca(home, "up", *ports, "--database", database.address, "--auth", str(auth))
        assert result.returncode == 0, result.stderr
        assert "reca_mlflow, reca_mlflow_users, reca_prefect" in result.stderr
        assert LOGIN[1] not in result.stderr + result.stdout
        yield started
    finally:
        assert reca(home, "down").returncode == 0
        assert not processes_of(home)


def test_a_wrong_password_is_said_and_starts_nothing(database: Database, tmp_path: Path) -> None:
    home = tmp_path / "home"
    ports = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    result = reca(home, "up", *ports, "--database", database.address, password="wrong")
    assert result.returncode == 3
    assert "password authentication failed" in result.stderr
    assert not processes_of(home)


def test_schedules_create_runs_and_a_run_registers_one_version(
    stack: Stack, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = save_smallest_janus(tmp_path_factory.mktemp("model") / "smallest")
    parameters = settings(model)
    flow_run_id = trigger(stack, "post-train", {name: v for name, v in parameters.items() if name != "evaluation"})
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, COMMAND_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    query = {"deployments": {"id": {"any_": [stack.deployment("re-evaluate")["id"]]}}, "limit": 5}
    runs = wait_for(stack, "prefect", lambda: stack.prefect("POST", "/flow_runs/filter", query), 120)
    assert {run["auto_scheduled"] for run in runs} == {True}
    assert database.ask("reca_mlflow", "SELECT name, version FROM model_versions") == [("reca-smallest", 1)]
    assert database.ask("reca_prefect", f"SELECT state_type FROM flow_run WHERE id = '{flow_run_id}'") == [
        ("COMPLETED",)
    ]


def test_whoever_brings_no_password_or_a_wrong_one_is_turned_away(stack: Stack) -> None:
    questions = (f"{stack.api}/admin/version", f"{stack.mlflow}/api/2.0/mlflow/experiments/get-by-name")
    for address in questions:
        for login in (None, (LOGIN[0], "another-password")):
            found = httpx.get(address, params={"experiment_name": "reca"}, auth=login, timeout=30, trust_env=False)
            assert found.status_code == 401, address
        found = httpx.get(address, params={"experiment_name": "reca"}, auth=LOGIN, timeout=30, trust_env=False)
        assert found.status_code in (200, 404), address  # known; the experiment may not be there yet


def test_status_and_the_command_line_know_the_password(stack: Stack) -> None:
    home = stack.root / "home"
    assert reca(home, "status").returncode == 0
    servers = ("--prefect-url", stack.api, "--mlflow-uri", stack.mlflow)
    refused = reca(home, "run", "prepare", *servers)
    assert refused.returncode == 3
    assert "--auth FILE" in refused.stderr
    found = reca(home, "run", "prepare", *servers, "--set", "images.scenes=20", "--auth", str(stack.root / "auth"))
    assert found.returncode == 0, found.stderr


def test_a_rollback_knows_the_password_from_the_stack_that_runs(stack: Stack) -> None:
    """A second version of the same weights is champion, by somebody's hand."""
    name = "reca-smallest"
    first = stack.tracking("GET", "model-versions/get", {"name": name, "version": "1"})["model_version"]
    again = {"name": name, "source": first["source"], "model_id": first["source"].removeprefix("models:/")}
    stack.tracking("POST", "model-versions/create", again)
    stack.tracking("POST", "registered-models/alias", {"name": name, "alias": "champion", "version": "2"})
    done = reca(stack.root / "home", "rollback", name, "--to", "1", "--reason", "six fingers")
    assert done.returncode == 0, done.stderr
    assert LOGIN[1] not in done.stdout + done.stderr
    found = stack.tracking("GET", "registered-models/alias", {"name": name, "alias": "champion"})["model_version"]
    assert found["version"] == "1"
    assert "**Schedule**" in found["description"]
    assert "`champion`" in found["description"]


def test_nothing_of_it_is_in_files_and_the_password_is_in_no_file_or_command_line(stack: Stack) -> None:
    home = stack.root / "home"
    assert not list(home.rglob("*.db"))
    assert json.loads((home / "stack/stack.json").read_text())["database"].startswith("postgresql://reca@127")
    written = [file for file in home.rglob("*") if file.is_file()]
    for secret in (PASSWORD, LOGIN[1]):
        assert not any(secret in line for line in processes_of(home).values())
        assert not [file for file in written if secret.encode() in file.read_bytes()]
