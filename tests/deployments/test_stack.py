"""The stack before anything is started: addresses, environments, databases, ports, processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deployments.arguments import build
from deployments.cli import main
from deployments.environment import START_VARIABLE, Surroundings
from deployments.stack import (
    HOME_MARK,
    PART_MARK,
    PartRecord,
    Stack,
    command,
    forget_parts,
    part_environment,
    read_stack,
    write_stack,
)
from deployments.stack_database import check_database, mlflow_database, prefect_database
from deployments.stack_health import health
from deployments.stack_processes import check_port, end_left_of, find, is_everywhere, marked, stop_all
from deployments.stack_up import wait_for_part, watch
from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_PREREQUISITE, BadInput, PrerequisiteMissing
from reca_core.contracts.home import Home

POSTGRES = "postgresql://reca@db.example:5432/"


def stack_in(home: Path, host: str = "127.0.0.1", database: str = "") -> Stack:
    return Stack(home=str(home), host=host, prefect_port=4200, mlflow_port=5000, database=database)


def chosen(home: Path) -> Surroundings:
    return Surroundings(Home(home), "", f"sqlite:///{home}/mlflow/mlflow.db", "")


def test_the_ports_and_host_are_the_usual_ones_unless_said() -> None:
    options = build().parse_args(["up"])
    assert (options.host, options.prefect_port, options.mlflow_port) == ("127.0.0.1", 4200, 5000)
    assert options.foreground is False


def test_no_command_line_names_a_database(tmp_path: Path) -> None:
    stack = stack_in(tmp_path, database=POSTGRES)
    for part in ("prefect", "mlflow", "worker"):
        assert "postgresql" not in " ".join(command(stack, part, "worker", "python"))


def test_drivers_are_spelled_out_and_each_server_has_its_own_database(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert prefect_database(POSTGRES, home) == "postgresql+asyncpg://reca@db.example:5432/reca_prefect"
    assert mlflow_database(POSTGRES, home) == "postgresql+psycopg2://reca@db.example:5432/reca_mlflow"
    assert prefect_database("", home).startswith("sqlite+aiosqlite:////")
    assert mlflow_database("", home) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


@pytest.mark.parametrize(
    "address",
    [
        "mysql://reca@db/",
        "postgresql://reca:secret@db/",
        "postgresql://reca@db/mine",
        "postgresql://db/",
        "postgresql://reca@db/?sslmode=require",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_a_password(address: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_database(address)
    assert caught.value.field == "--database"
    assert "secret" not in caught.value.render()


def test_the_closing_slash_of_a_database_address_may_be_left_out() -> None:
    assert check_database(POSTGRES.rstrip("/")) == check_database(POSTGRES) == POSTGRES
    assert check_database("") == ""


def test_parts_phone_nobody_and_carry_the_mark_of_their_home(tmp_path: Path) -> None:
    shell = {
        "PATH": "/bin",
        "PREFECT_API_URL": "http://theirs",
        "MLFLOW_TRACKING_URI": "http://theirs",
        "PGPASSWORD": "x",
    }
    for part in ("prefect", "mlflow", "worker"):
        found = part_environment(stack_in(tmp_path), part, chosen(tmp_path), shell)
        assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert found["DO_NOT_TRACK"] == "1"
        assert (found[HOME_MARK], found[PART_MARK]) == (str(tmp_path), part)
        assert found["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
        assert "http://theirs" not in found.values()
        assert found["PGPASSWORD"] == "x"


def test_mlflow_runs_no_jobs_and_writes_artifacts_where_a_run_without_it_finds_them(tmp_path: Path) -> None:
    found = part_environment(stack_in(tmp_path), "mlflow", chosen(tmp_path), {})
    assert found["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert found["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == f"file://{tmp_path}/mlflow/artifacts"
    assert "MLFLOW_TRACKING_URI" not in found
    shared = part_environment(stack_in(tmp_path, database=POSTGRES), "mlflow", chosen(tmp_path), {})
    assert "MLFLOW_DEFAULT_ARTIFACT_ROOT" not in shared


def test_a_server_for_everyone_is_called_by_an_address_that_can_be_called(tmp_path: Path) -> None:
    stack = stack_in(tmp_path, host="0.0.0.0")
    assert stack.api == "http://127.0.0.1:4200/api"
    found = part_environment(stack, "prefect", chosen(tmp_path), {})
    assert found["PREFECT_SERVER_UI_API_URL"] == "/api"
    assert is_everywhere("0.0.0.0")
    assert is_everywhere("192.168.1.5")
    assert not is_everywhere("127.0.0.1")


def test_after_down_only_where_the_databases_are_is_remembered(tmp_path: Path) -> None:
    assert read_stack(tmp_path) is None
    stack = stack_in(tmp_path).model_copy(update={"parts": {"prefect": PartRecord(pid=1, began=2.5)}})
    write_stack(stack)
    assert read_stack(tmp_path) == stack
    forget_parts(tmp_path)
    assert read_stack(tmp_path) == stack_in(tmp_path)
    (tmp_path / "stack/stack.json").write_text("{")
    assert read_stack(tmp_path) is None


def test_a_number_that_another_process_has_now_is_not_our_process() -> None:
    began = psutil.Process().create_time()
    assert find(PartRecord(pid=os.getpid(), began=began)) is not None
    assert find(PartRecord(pid=os.getpid(), began=began - 100)) is None
    assert find(None) is None


def test_a_port_in_use_is_refused_with_its_holder() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(PrerequisiteMissing) as caught:
            check_port("127.0.0.1", port, "--mlflow-port")
    assert f"process {os.getpid()} listens there" in caught.value.render()
    check_port("127.0.0.1", port, "--mlflow-port")


def sleeper(home: Path, part: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"]
    return subprocess.Popen(words, env=os.environ | {HOME_MARK: str(home), PART_MARK: part}, start_new_session=True)


def test_what_a_dead_server_left_behind_is_ended_and_the_other_parts_live_on(tmp_path: Path) -> None:
    """MLflow answers from a child of its own, which outlives its parent and holds the port."""
    left, run, other = (
        sleeper(tmp_path, "mlflow"),
        sleeper(tmp_path, "worker"),
        sleeper(tmp_path / "other", "mlflow"),
    )
    try:
        while len(marked(tmp_path)) < 2:
            time.sleep(0.05)
        assert end_left_of(tmp_path, "mlflow") == 1
        assert left.wait(5) < 0
        assert run.poll() is other.poll() is None
    finally:
        for process in (left, run, other):
            process.kill()
            process.wait()


def test_down_ends_orphans_of_its_own_home_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.stack_processes.SERVER_STOP_SECONDS", 2.0)
    monkeypatch.setattr("deployments.stack_processes.RUN_STOP_SECONDS", 0.5)
    mine, orphan, other = (
        sleeper(tmp_path, "mlflow"),
        sleeper(tmp_path, "worker"),
        sleeper(tmp_path / "other", "mlflow"),
    )
    try:
        while len(marked(tmp_path)) < 2:
            time.sleep(0.05)
        assert stop_all(tmp_path) == 2
        assert mine.wait(5) < 0
        assert orphan.wait(5) < 0
        assert not marked(tmp_path)
        assert other.poll() is None
    finally:
        for process in (mine, orphan, other):
            process.kill()
            process.wait()


def test_status_of_a_home_without_a_stack_says_so_for_every_part(tmp_path: Path) -> None:
    assert [(part.answers, part.fact) for part in health(tmp_path)] == [(False, "not started")] * 3
    assert main(["status", "--home", str(tmp_path)]) == EXIT_PREREQUISITE


def test_a_part_whose_process_is_gone_is_reported_with_its_log(tmp_path: Path) -> None:
    gone = PartRecord(pid=os.getpid(), began=1.0)
    write_stack(stack_in(tmp_path).model_copy(update={"parts": {"prefect": gone}}))
    found = health(tmp_path)[0]
    assert not found.answers
    assert found.pid is None
    assert str(tmp_path / "stack/prefect.log") in found.fact


def test_down_where_nothing_runs_is_no_error_and_makes_no_home(tmp_path: Path) -> None:
    assert main(["down", "--home", str(tmp_path / "none")]) == EXIT_DONE
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "words", [["--prefect-port", "70000"], ["--prefect-port", "5000"], ["--database", "postgresql://u:p@h/"]]
)
def test_bad_input_of_up_starts_nothing(tmp_path: Path, words: list[str]) -> None:
    assert main(["up", "--home", str(tmp_path / "home"), *words]) == EXIT_BAD_INPUT
    assert not (tmp_path / "home").exists()


def test_a_part_that_is_late_says_how_long_it_was_waited_for_and_what_gives_it_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(START_VARIABLE, "1")
    me = PartRecord(pid=os.getpid(), began=psutil.Process().create_time())
    stack = Stack(home=str(tmp_path), host="127.0.0.1", prefect_port=1, mlflow_port=2, parts={"mlflow": me})
    write_stack(stack)
    stack.log("mlflow").write_text("migrating\n")
    with pytest.raises(PrerequisiteMissing, match=r"(?s)mlflow did not start.*waited 1 s.*migrating") as caught:
        wait_for_part(stack, "mlflow", lambda _: None)
    assert f"{START_VARIABLE}=2" in caught.value.remedy


def test_what_was_taken_down_is_not_started_again_by_the_up_that_watches(tmp_path: Path) -> None:
    stack = Stack(home=str(tmp_path), host="127.0.0.1", prefect_port=1, mlflow_port=2)
    write_stack(stack)
    said: list[str] = []
    watch(stack, Surroundings(Home(tmp_path), "", "", ""), said.append)
    assert said == ["reca down took the stack down"]
    assert not marked(tmp_path)
