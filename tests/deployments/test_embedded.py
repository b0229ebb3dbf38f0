"""The embedded Prefect server answers, keeps to the home, and ends with its run, however that ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deployments.embedded import EmbeddedServer
from deployments.environment import START_VARIABLE
from reca_core.contracts.errors import BadInput, PrerequisiteMissing

GONE_SECONDS = 10.0

OWNER = """
import sys, time
from pathlib import Path
from deployments.environment import Wishes, decide, enter
import os
chosen = decide(Wishes(sys.argv[1]), os.environ, Path("/"))
enter(chosen)
from deployments.embedded import EmbeddedServer
server = EmbeddedServer(chosen.home.prefect)
server.begin()
server.wait()
print(server.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.servers
def test_a_killed_run_takes_its_server_with_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(home)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    assert (home / "prefect" / "prefect.db").is_file()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + GONE_SECONDS
    while psutil.pid_exists(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(server)


def test_nobody_can_take_the_port_before_the_server_has_it(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", server.port))
    server.stop()


def test_a_server_that_cannot_start_is_a_missing_prerequisite_with_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PREFECT_SERVER_DATABASE_CONNECTION_URL", "nonsense://")
    server = EmbeddedServer(tmp_path)
    server.begin()
    with pytest.raises(PrerequisiteMissing, match="did not start: it ended") as caught:
        server.wait()
    server.stop()
    assert START_VARIABLE not in caught.value.remedy


def test_a_server_that_is_late_says_how_long_it_was_waited_for_and_what_gives_it_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(START_VARIABLE, "1")
    server = EmbeddedServer(tmp_path)
    server.begin()
    try:
        with pytest.raises(PrerequisiteMissing, match="did not answer within 1 s") as caught:
            server.wait()
        assert f"{START_VARIABLE}=2" in caught.value.remedy
        monkeypatch.setenv(START_VARIABLE, "long")
        with pytest.raises(BadInput, match=START_VARIABLE):
            server.wait()
    finally:
        server.stop()
