"""Starts, follows and stops the child processes in which models, training and judges run (docs/decisions/0001).

Four rules, each paid for by a measured failure:

- the child writes to its own log file, never to a pipe: a parent that dies must not take it down with SIGPIPE, and a
  child that writes fast must not wait for a reader;
- it is started by one thread that lives as long as this process, because the kernel's death signal
  (``reca_core.contracts.lifeline``) follows the thread that started it, and task threads come and go;
- it leads its own process group, and the whole group is ended whatever ends the caller: failure, Ctrl-C or a
  cancellation by Prefect, which arrives as a BaseException;
- its exit status says whose fault it was: 2 bad input, 3 a prerequisite is missing, anything else a failed stage.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from reca_core.contracts.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_PREREQUISITE,
    BadInput,
    PrerequisiteMissing,
    RecaError,
    StageFailed,
)
from reca_core.contracts.lifeline import child_environment
from reca_core.contracts.progress import Progress
from tasks.following import LogFollower

GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL. Prefect itself kills a cancelled flow run after 30 s."""
POLL_SECONDS = 0.1

_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")
"""Its one thread ends with the interpreter, not before."""


_STOP: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


@contextmanager
def stoppable() -> Iterator[None]:
    """For a block whose children are followed by other threads: whatever ends it early ends them too.

    Threads must run in a copy of this context, as Prefect's tasks do.
    """
    stop = threading.Event()
    token = _STOP.set(stop)
    try:
        yield
    finally:
        stop.set()
        _STOP.reset(token)


class ChildKilled(StageFailed):
    """The child was ended by a signal from outside: out of memory, a reboot, a person. What it finished is kept."""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this project with this interpreter, whatever the working directory holds."""
    return [sys.executable, "-P", "-m", module, *arguments]


def run_child(
    command: Sequence[str],
    log: Path,
    on_text: Callable[[str], None],
    on_progress: Callable[[Progress], None],
    grace_seconds: float = GRACE_SECONDS,
    stop: threading.Event | None = None,
    extra_environment: Mapping[str, str] | None = None,
) -> None:
    """Run a child to its end, handing its log lines (in batches) and its progress to the caller on the way.

    Args:
        command: from ``module_command``.
        log: file that receives standard output and error, appended; its folder is the child's working directory.
        on_text: called with some lines at a time, at most every other second.
        on_progress: called with the newest progress, at most once a second.
        grace_seconds: how long a child may take to end after SIGTERM.
        stop: set by another thread that wants the child ended, which is then ChildKilled; without one, that of the
            block ``stoppable``, if there is one.
        extra_environment: for the child alone.

    Raises BadInput, PrerequisiteMissing or StageFailed with the child's last lines and the log's path.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    follower = LogFollower(log, on_text, on_progress)
    stop = stop or _STOP.get()
    process = _STARTER.submit(_start, list(command), log, extra_environment or {}).result()
    try:
        while not _ended(process) and not (stop and stop.is_set()):
            follower.follow()
    finally:
        stop_group(process, grace_seconds)
    follower.finish()
    if process.returncode != EXIT_DONE:
        raise _failure(process.returncode, log, follower.last_lines())


def _start(command: list[str], log: Path, extra_environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment_for_children({**os.environ, **extra_environment}),
            process_group=0,
        )


def environment_for_children(parent: Mapping[str, str]) -> dict[str, str]:
    """The parent's environment with what a child must have and without what it must not.

    One thread per process unless told otherwise, because libraries take every core and ranks then fight for them.
    Relative entries of PYTHONPATH (an empty one is the working directory) would change meaning in the child.
    """
    entries = [entry for entry in parent.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]
    kept = {name: value for name, value in parent.items() if name != "PYTHONPATH"}
    if entries:
        kept["PYTHONPATH"] = os.pathsep.join(entries)
    needed = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    return child_environment({"OMP_NUM_THREADS": "1"} | kept | needed)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def stop_group(process: subprocess.Popen[bytes], grace_seconds: float = GRACE_SECONDS) -> None:
    """End a child and everything in its process group: SIGTERM, a while to save, SIGKILL. A second Ctrl-C skips it."""
    try:
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + grace_seconds
            while time.monotonic() < deadline and not _ended(process):
                pass
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _failure(status: int, log: Path, last_lines: Sequence[str]) -> RecaError:
    said = "".join(f"\n  {line}" for line in last_lines) or " (it printed nothing)"
    if status < 0 or status == EXIT_INTERRUPTED:
        name = signal.Signals(-status).name if status < 0 else "a request to stop"
        return ChildKilled(
            f"the child process was ended by {name}; its last lines:{said}",
            field=str(log),
            remedy="start the same run again: it goes on from its last checkpoint"
            + ("; after an out-of-memory kill lower training.images_per_pass" if name == "SIGKILL" else ""),
        )
    kind = {EXIT_BAD_INPUT: BadInput, EXIT_PREREQUISITE: PrerequisiteMissing}.get(status, StageFailed)
    return kind(f"the child process ended with status {status}; its last lines:{said}", field=str(log))
