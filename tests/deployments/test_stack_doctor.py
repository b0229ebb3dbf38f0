"""`reca doctor`: what is wrong is found and comes with a remedy; what is fine comes without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments import stack_doctor
from deployments.cli import main
from deployments.stack import HOME_MARK, PartRecord, Stack, write_stack
from deployments.stack_doctor import (
    Finding,
    cache,
    credentials,
    disk,
    notifications,
    orphans,
    schedules,
    servers,
    stale_runs,
    versions,
)
from deployments.stack_names import NAMES


@contextmanager
def server_that_says(answers: dict[str, Any], home: Path) -> Iterator[Stack]:
    """A stack whose Prefect API is a small server with fixed answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answers[self.path.removeprefix("/api")]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    me = PartRecord(pid=os.getpid(), began=psutil.Process().create_time())
    try:
        yield Stack(
            home=str(home), host="127.0.0.1", prefect_port=server.server_port, mlflow_port=1, parts={"prefect": me}
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def faults(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.remedy]


def test_a_package_outside_its_range_or_absent_is_named_with_the_lock_as_remedy() -> None:
    found = faults(versions(["httpx<0.1", "no-such-package>=1", "pydantic>=2", 'psycopg2>=99; extra == "postgres"']))
    assert [finding.fact.split(" ")[0] for finding in found] == ["httpx", "no-such-package"]
    assert {finding.remedy for finding in found} == {"pip install -r requirements.lock"}
    assert not faults(versions(["pydantic>=2"]))


DEPLOYMENT = {
    "id": "d",
    "entrypoint": "flows.re_evaluate.re_evaluate",
    "paused": False,
    "schedules": [{"active": True}],
}


@pytest.mark.parametrize(("coming", "wrong"), [([], 1), ([{"id": "r"}], 0)])
def test_an_active_schedule_that_creates_nothing_is_a_fault(tmp_path: Path, coming: list[Any], wrong: int) -> None:
    with server_that_says({"/deployments/filter": [DEPLOYMENT], "/flow_runs/filter": coming}, tmp_path) as stack:
        found = list(schedules(stack))
    assert len(found) == 1
    assert len(faults(iter(found))) == wrong
    assert not wrong or "sqlalchemy<2.1" in found[0].remedy


def test_a_run_without_a_process_is_stale_and_one_with_a_process_is_not(tmp_path: Path) -> None:
    runs = [{"id": name, "name": name, "state_name": "Running"} for name in ("alive-run-1", "dead-run-1")]
    words = [sys.executable, "-c", "import time; time.sleep(30)"]
    with subprocess.Popen(words, env=os.environ | {stack_doctor.RUN_VARIABLE: "alive-run-1"}) as process:
        time.sleep(0.2)
        with server_that_says({"/flow_runs/filter": runs}, tmp_path) as stack:
            found = faults(stale_runs(stack))
        process.kill()
    assert [finding.fact.split(" ")[0] for finding in found] == ["dead-run-1"]


def block(kind: str) -> dict[str, Any]:
    return {"block_type": {"slug": kind}}


def automation(name: str, enabled: bool = True) -> dict[str, Any]:
    return {"name": name, "enabled": enabled}


ALL_ON = [automation(name) for name in NAMES]


@pytest.mark.parametrize(
    ("blocks", "made", "fact", "wrong"),
    [
        ([], [], "told to nobody", 0),
        ([block("webhook")], ALL_ON, "told to nobody", 0),
        ([block("webhook"), block("secret")], ALL_ON, "go to the address in reca-webhook", 0),
        ([block("secret")], ALL_ON[1:], f"missing or switched off: {NAMES[0]}", 1),
        ([block("secret")], [*ALL_ON[:2], automation(NAMES[2], enabled=False)], NAMES[2], 1),
    ],
)
def test_whether_anybody_hears_of_failures_is_told_and_a_missing_automation_is_a_fault(
    tmp_path: Path, blocks: list[Any], made: list[Any], fact: str, wrong: int
) -> None:
    with server_that_says({"/block_documents/filter": blocks, "/automations/filter": made}, tmp_path) as stack:
        (found,) = notifications(stack)
    assert (found.check, bool(found.remedy)) == ("webhook", bool(wrong))
    assert fact in found.fact
    assert not wrong or found.remedy.startswith("reca up")


def test_without_a_stack_nothing_is_asked_and_nothing_is_wrong(tmp_path: Path) -> None:
    assert not faults(servers(tmp_path, None))
    assert not list(schedules(None))
    assert not list(stale_runs(None))
    assert not list(notifications(None))
    assert not faults(orphans(tmp_path, None))


def test_a_part_that_died_is_a_fault_with_its_log(tmp_path: Path) -> None:
    gone = PartRecord(pid=os.getpid(), began=1.0)
    stack = Stack(home=str(tmp_path), host="127.0.0.1", prefect_port=1, mlflow_port=2, parts={"mlflow": gone})
    write_stack(stack)
    found = {finding.fact.partition(":")[0]: finding.remedy for finding in servers(tmp_path, stack)}
    assert str(stack.log("mlflow")) in found["mlflow"]


def test_processes_of_a_stack_that_was_forgotten_are_orphans(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import time; time.sleep(30)"]
    with subprocess.Popen(words, env=os.environ | {HOME_MARK: str(tmp_path)}) as process:
        time.sleep(0.2)
        found = faults(orphans(tmp_path, None))
        process.kill()
    assert [finding.remedy for finding in found] == ["reca down"]


def test_a_full_disk_points_to_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_doctor, "LEAST_FREE_GIGABYTES", 0)
    assert not faults(disk(tmp_path / "not yet there"))
    monkeypatch.setattr(stack_doctor, "LEAST_FREE_GIGABYTES", 10**9)
    assert "reca clean" in faults(disk(tmp_path))[0].remedy


def test_the_size_of_the_cache_is_told(tmp_path: Path) -> None:
    assert not faults(cache(tmp_path / "none"))
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    assert next(cache(tmp_path)).fact.startswith("0.00 GB in ")


def test_keys_are_told_by_name_only_and_an_open_password_file_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.write_text("host:5432:*:reca:hidden\n")
    file.chmod(0o644)
    found = list(credentials({"OPENAI_API_KEY": "hidden", "PGPASSFILE": str(file)}))
    assert "hidden" not in " ".join(finding.fact + finding.remedy for finding in found)
    assert [finding.remedy for finding in found if finding.remedy] == [f"chmod 600 {file}"]
    file.chmod(0o600)
    assert not faults(credentials({"PGPASSFILE": str(file)}))
    file.unlink()
    assert len(faults(credentials({"PGPASSFILE": str(file)}))) == 1


def test_the_command_prints_every_check_and_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--home", str(tmp_path), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == status
    assert {finding["check"] for finding in answer["findings"]} >= {"versions", "servers", "orphans", "disk", "gpu"}
    assert status == (3 if any(finding["remedy"] for finding in answer["findings"]) else 0)
