"""A child that dies with its parent, whatever kills the parent.

torchrun puts its ranks into sessions of their own, so killing an agent or its process group leaves them alive and
holding the GPU (docs/architecture.md, "Control plane and compute plane"). Therefore every child asks the kernel for
SIGKILL when its parent ends: prctl(2) PR_SET_PDEATHSIG on Linux, a thread that watches getppid() elsewhere.
Called before torch is imported, hence torch-free. Two things to know:

- the kernel's signal follows the *thread* that started the child: start children from a thread that outlives them;
- a parent may die between fork and this call, so the starter puts its pid into ``RECA_PARENT_PID``
  (``child_environment``) and the child compares.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from reca_core.contracts.errors import EXIT_INTERRUPTED, RunLocked, StageFailed
from reca_core.contracts.files import run_lock

log = logging.getLogger(__name__)

PARENT_VARIABLE = "RECA_PARENT_PID"
"""Environment variable in which a starter tells its child who the parent is."""
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
TURN_SECONDS = 1.0
"""How often a process that waits for another looks whether it is asked to stop."""
WATCH_SECONDS = 1.0
"""How often the watcher looks where the kernel offers no signal."""
ORPHAN_EXIT = 128 + signal.SIGKILL
"""Exit status of a child that found its parent already gone: that of the signal it just missed."""


class Interrupted(StageFailed):
    """The process was asked to stop, wrote down what it had, and can be run again to go on."""

    exit_code = EXIT_INTERRUPTED


class StopRequest:
    """Becomes ``requested`` when the process is asked to end; its work looks at it between two steps."""

    requested = False


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside the block SIGTERM and SIGINT set a flag instead of ending the process. Main thread only."""
    stop = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.requested = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def turn(lock: Path, stop: StopRequest) -> Iterator[None]:
    """Hold ``run_lock`` for the block, waiting as long as another process works there: its result will be ours too.

    Raises Interrupted when asked to stop while waiting.
    """
    waiting = False
    while True:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(run_lock(lock, TURN_SECONDS))
            except RunLocked as error:
                if not waiting:
                    log.info("%s: %s; waiting for its result", error.field, error.fact)
                waiting = True
                if stop.requested:
                    raise Interrupted("asked to stop while another process works here", field=error.field) from error
                continue
            yield
            return


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` for a child of this process, naming this process as the parent it must not outlive."""
    return {**environment, PARENT_VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
    """Tie the life of this process to that of its parent; end it at once if the parent is already gone.

    The parent is the process named in ``RECA_PARENT_PID``, or whoever is the parent now where it is not set.
    """
    parent = int(os.environ.get(PARENT_VARIABLE) or os.getppid())
    if not _kernel_signal():
        threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()
    if os.getppid() != parent:
        os._exit(ORPHAN_EXIT)


def _kernel_signal() -> bool:
    """Ask the kernel for SIGKILL at the parent's death. False where there is no such call (not Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)) == 0


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
