"""Real processes for tests: forked from a server that has torch loaded, so that one starts in a tenth of a second."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.reca_core.training_rig", "reca_core.sampling"])
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.01
FILE_CALLS = ("replace", "fsync", "unlink")


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """A running child."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def launch(command: str, request: Path) -> None:
    """What ``python -m reca_core.launch`` does, in the child."""
    from reca_core import launch as launcher

    os.environ.pop(launcher.PARENT_VARIABLE, None)
    sys.exit(launcher.main([command, str(request)]))


def launch_and_die(command: str, request: Path, call: int) -> None:
    """The same, killed just before its ``call``-th change of the file system: within a save, sooner or later."""
    die_at(call)
    launch(command, request)


def die_at(call: int) -> None:
    """Have this process killed just before its ``call``-th change of the file system."""
    calls = itertools.count(1)
    for name in FILE_CALLS:
        setattr(os, name, _dying(getattr(os, name), calls, call))


def _dying(function: Callable[..., object], calls: itertools.count[int], last: int) -> Callable[..., object]:
    def wrapped(*arguments: object, **named: object) -> object:
        if next(calls) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    return wrapped


def alive(pid: int) -> bool:
    """True while the process runs; a zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes_naming(text: str) -> list[int]:
    """Pids of running processes whose command line holds ``text``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / "cmdline").read_text() and alive(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> bool:
    """True as soon as the condition holds, False if it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(POLL_SECONDS)
    return False
