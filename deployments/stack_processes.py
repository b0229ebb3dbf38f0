"""Processes of a stack: start one in a session of its own, tell whether it lives, stop it, find what was left behind.

A part is known by process number and start time (numbers are reused). Whatever a crash left behind is found by the
mark that every process of the stack carries in its environment, so ``reca down`` needs no file to find it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from deployments.environment import Surroundings
from deployments.stack import (
    EVERYWHERE,
    HOME_MARK,
    PART_MARK,
    PartName,
    PartRecord,
    Stack,
    command,
    part_environment,
)
from reca_core.contracts.errors import PrerequisiteMissing

SAME_START_SECONDS = 0.05
"""Two readings of one process's start time differ by less."""
SERVER_STOP_SECONDS = 10.0
RUN_STOP_SECONDS = 20.0
"""A flow run that is asked to stop saves, ends its children (10 s) and tells the server."""
POLL_SECONDS = 0.1
MEGABYTE = 1 << 20
GONE = (psutil.NoSuchProcess, psutil.ZombieProcess)


def worker_name() -> str:
    """One per machine, so that a restarted worker is the same in the UI."""
    return f"reca-{socket.gethostname()}"


def start(stack: Stack, part: PartName, chosen: Surroundings) -> PartRecord:
    """Start a part, apart from the terminal and from this process: it outlives both."""
    words = command(stack, part, worker_name(), sys.executable)
    with stack.log(part).open("ab") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=stack.home,
            env=part_environment(stack, part, chosen, os.environ),
            start_new_session=True,
        )
    return PartRecord(pid=process.pid, began=psutil.Process(process.pid).create_time())


def find(record: PartRecord | None) -> psutil.Process | None:
    """The process, if it still lives."""
    if record is None:
        return None
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.began) < SAME_START_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def marked(home: Path) -> dict[psutil.Process, str]:
    """Every process that carries the mark of this home's stack, with the part it belongs to."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (*GONE, psutil.AccessDenied):
            continue
        if alive and process.pid != os.getpid() and environment.get(HOME_MARK) == str(home):
            found[process] = environment.get(PART_MARK, "")
    return found


def stop_all(home: Path) -> int:
    """End every process of the stack, runs before servers so that they can say that they stopped. Returns how many."""
    everything = marked(home)
    mains = [process for process, part in everything.items() if part == "worker" and _is_worker(process)]
    runs = [process for process, part in everything.items() if part == "worker" and process not in mains]
    _ask(mains)  # a worker that was asked takes no new run; it ends once its runs have
    _ask(process for process in runs if "prefect" in _words(process))
    _await(runs, RUN_STOP_SECONDS)
    _end([*runs, *mains], 0)
    servers = [process for process, part in everything.items() if part != "worker"]
    _ask(servers)
    _end(servers, SERVER_STOP_SECONDS)
    late = list(marked(home))  # started while we were at it
    _end(late, 0)
    return len(everything) + len(late)


def end_left_of(home: Path, part: PartName) -> int:
    """End what a dead server left behind, which would hold its port: MLflow answers from a child. Returns how many."""
    left = [process for process, owner in marked(home).items() if owner == part]
    _end(left, 0)
    return len(left)


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (*GONE, psutil.AccessDenied):
        return ""


def _is_worker(process: psutil.Process) -> bool:
    return "prefect worker start" in _words(process)


def _ask(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        _signal(process, signal.SIGTERM)


def _await(processes: list[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(_lives(process) for process in processes):
        time.sleep(POLL_SECONDS)


def _end(processes: list[psutil.Process], seconds: float) -> None:
    """SIGKILL whatever is still there after ``seconds``, and see it gone."""
    _await(processes, seconds)
    for process in processes:
        _signal(process, signal.SIGKILL)
    _await(processes, SERVER_STOP_SECONDS)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except GONE:
        return


def resident_megabytes(home: Path) -> dict[str, float]:
    """Part -> memory of its processes (sum of resident set sizes, shared pages counted in each)."""
    totals: dict[str, float] = {}
    for process, part in marked(home).items():
        try:
            totals[part] = totals.get(part, 0.0) + process.memory_info().rss / MEGABYTE
        except GONE:
            continue
    return totals


def check_port(host: str, port: int, option: str) -> None:
    """Raises PrerequisiteMissing, naming who holds it, unless a server may listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection may linger
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PrerequisiteMissing(
                f"port {port} of {host} cannot be used: {holder(port) or error.strerror}",
                field=option,
                remedy=f"stop it, or choose another port: reca up {option} {port + 1}",
            ) from error


def holder(port: int) -> str:
    """Who listens on a port of this machine, in words; empty where nobody does or it may not be known."""
    for pid, words in _listeners(port):
        return f"process {pid} listens there ({words[:80]})"
    return ""


def _listeners(port: int) -> Iterator[tuple[int, str]]:
    for process in psutil.process_iter():
        try:
            held = [at for at in process.net_connections("inet") if at.status == psutil.CONN_LISTEN and at.laddr]
        except (*GONE, psutil.AccessDenied):
            continue
        if any(at.laddr.port == port for at in held):
            yield process.pid, _words(process)


def is_everywhere(host: str) -> bool:
    """True for a host that other machines reach too."""
    return host in EVERYWHERE or not (host.startswith("127.") or host in ("localhost", "::1"))
