"""The compute plane's front door: ``python -m reca_core.launch {train|sample|prepare} REQUEST.json``.

Started as a child by the control plane, or by hand. It imports nothing heavy until the command is known, ties its life
to its parent's before it does, and turns errors into exit statuses (``reca_core.contracts.errors``). A training of more
than one process becomes torchrun's agent: its ranks run this same file, each tied to the agent in turn.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from reca_core.contracts.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_PREREQUISITE,
    EXIT_STAGE_FAILED,
    RecaError,
)
from reca_core.contracts.lifeline import PARENT_VARIABLE, die_with_parent

COMMANDS = {
    "train": "reca_core.training.run:main",
    "sample": "reca_core.sampling:main",
    "prepare": "reca_core.data.prepare:main",
}
"""Command -> ``package.module:function`` of one argument, the request file."""
LAUNCH_MODULE = "reca_core.launch"
RANK_VARIABLE = "RANK"
"""Set by torchrun for each of its ranks."""
LOCAL_ADDRESS = "127.0.0.1"
KNOWN_STATUSES = frozenset({EXIT_BAD_INPUT, EXIT_PREREQUISITE, EXIT_STAGE_FAILED, EXIT_INTERRUPTED})

log = logging.getLogger(LAUNCH_MODULE)


@dataclass(frozen=True)
class Invocation:
    """What the command line asked for."""

    command: str
    request: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    die_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.basicConfig(stream=sys.stderr, level=_level(), format="%(asctime)s %(levelname)s %(message)s")
    invocation = _parse(list(sys.argv[1:] if arguments is None else arguments))
    if invocation is None:
        sys.stderr.write(f"usage: python -m {LAUNCH_MODULE} {{{'|'.join(COMMANDS)}}} REQUEST.json\n")
        return EXIT_BAD_INPUT
    try:
        if _processes(invocation) > 1 and RANK_VARIABLE not in os.environ:
            return _torchrun(invocation, _processes(invocation))
        _entry(invocation.command)(invocation.request)
    except ValidationError as error:
        return _fail(f"{invocation.request}: {error}", EXIT_BAD_INPUT)
    except RecaError as error:
        return _fail(str(error), error.exit_code)
    return EXIT_DONE


def _parse(arguments: list[str]) -> Invocation | None:
    if len(arguments) != 2 or arguments[0] not in COMMANDS:
        return None
    return Invocation(arguments[0], Path(arguments[1]))


def _entry(command: str) -> Callable[[Path], object]:
    module, _, name = COMMANDS[command].partition(":")
    entry: Callable[[Path], object] = getattr(importlib.import_module(module), name)
    return entry


def _processes(invocation: Invocation) -> int:
    """How many ranks the request wants. Raises BadInput through the request's own checks."""
    if invocation.command != "train":
        return 1
    from reca_core.contracts.requests import TrainRequest

    return TrainRequest.model_validate_json(invocation.request.read_bytes()).training.processes


def _torchrun(invocation: Invocation, processes: int) -> int:
    """Become the agent of ``processes`` ranks; returns the status of the first one that failed, or 0.

    torchrun ends all ranks when one fails or when this process is asked to end.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ[PARENT_VARIABLE] = str(os.getpid())
    options = ["--standalone", f"--local-addr={LOCAL_ADDRESS}", f"--nproc-per-node={processes}"]
    try:
        torchrun([*options, "-m", LAUNCH_MODULE, invocation.command, str(invocation.request)])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        status = failure.exitcode if failure.exitcode in KNOWN_STATUSES else EXIT_STAGE_FAILED
        return _fail(f"rank {failure.local_rank} ended with status {failure.exitcode}; its lines are above", status)
    except SignalException:
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _level() -> int:
    """One rank speaks; the others only when something is wrong."""
    return logging.INFO if os.environ.get(RANK_VARIABLE, "0") == "0" else logging.WARNING


def _fail(message: str, status: int) -> int:
    log.error("%s", message)
    return status


if __name__ == "__main__":
    sys.exit(main())
