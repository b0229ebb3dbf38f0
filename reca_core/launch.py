"""The compute plane's front door: ``python -m reca_core.launch {train|sample|prepare|convert|estimate} REQUEST.json``.

Started as a child by the control plane, or by hand. It imports nothing heavy until the command is known, ties its life
to its parent's before it does, and turns errors into exit statuses (``reca_core.contracts.errors``). A training of more
than one process becomes torchrun's agent: its ranks run this same file, each tied to the agent in turn. With several
machines every one runs this command; the agents meet, and meet again from the last checkpoint when one was lost.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from reca_core.contracts.base import Config
from reca_core.contracts.conversion import ConvertRequest
from reca_core.contracts.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_PREREQUISITE,
    EXIT_STAGE_FAILED,
    BadInput,
    RecaError,
)
from reca_core.contracts.estimate import EstimateRequest
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.lifeline import PARENT_VARIABLE, die_with_parent
from reca_core.contracts.requests import PrepareRequest, SampleRequest, TrainRequest
from reca_core.contracts.verdict import REASONED, explained, leave_verdict, verdict, verdict_file

COMMANDS: dict[str, tuple[type[Config], str]] = {
    "train": (TrainRequest, "reca_core.training.run"),
    "sample": (SampleRequest, "reca_core.sampling"),
    "prepare": (PrepareRequest, "reca_core.data.prepare"),
    "convert": (ConvertRequest, "reca_core.conversion.run"),
    "estimate": (EstimateRequest, "reca_core.training.estimate"),
}
"""Command -> its request and the module whose ``main`` takes one."""
ARGUMENTS = 2
"""Command and request file."""
LAUNCH_MODULE = "reca_core.launch"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""Set where the caller has not: threads of several processes fight for cores, and a log file is no terminal."""
RANK_VARIABLE, LOCAL_RANK_VARIABLE = "RANK", "LOCAL_RANK"
"""Set by torchrun for each of its ranks: its number among all, and on its machine."""
LOCAL_ADDRESS = "127.0.0.1"
LOOPBACK = frozenset({"localhost", LOCAL_ADDRESS, "::1"})
OWN_STORE_VARIABLE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Makes every meeting say anew where its first rank is. Without it a machine that joins later is never told by a first
rank that stayed, and both give up after a minute (torch 2.13)."""
RESTARTS_VARIABLE = "TORCHELASTIC_MAX_RESTARTS"
"""Set by torchrun for its ranks: how often it starts them again."""
KNOWN_STATUSES = frozenset({EXIT_BAD_INPUT, EXIT_PREREQUISITE, EXIT_STAGE_FAILED, EXIT_INTERRUPTED})

log = logging.getLogger(LAUNCH_MODULE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    die_with_parent()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(stream=sys.stderr, level=_level(), format="%(asctime)s %(levelname)s %(message)s")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != ARGUMENTS or given[0] not in COMMANDS:
        sys.stderr.write(f"usage: python -m {LAUNCH_MODULE} {{{'|'.join(COMMANDS)}}} REQUEST.json\n")
        return EXIT_BAD_INPUT
    is_rank = RANK_VARIABLE in os.environ
    reason = verdict() if is_rank else None
    if reason is not None:  # the agent started the ranks again before it was told
        if os.environ.get(LOCAL_RANK_VARIABLE) == "0":
            _need_no_new_start()
        return reason
    try:
        return _run(given[0], Path(given[1]))
    except REASONED as error:
        if not isinstance(error, RecaError):
            log.info("where it happened", exc_info=error)
        fault = explained(error)
        log.error("%s", fault)
        if is_rank and leave_verdict(error):
            _need_no_new_start()
        return fault.exit_code


def _run(command: str, path: Path) -> int:
    request_class, module = COMMANDS[command]
    request = _read(path, request_class)
    if isinstance(request, TrainRequest) and RANK_VARIABLE not in os.environ:
        if request.training.nodes > 1:
            return _among_machines(command, path, request)
        if request.training.processes > 1:
            options = ["--standalone", f"--local-addr={LOCAL_ADDRESS}"]
            with verdict_file():
                return _reason_or(
                    _torchrun([*options, f"--nproc-per-node={request.training.processes}"], command, path)
                )
    importlib.import_module(module).main(request)
    return EXIT_DONE


def _read(path: Path, request_class: type[Config]) -> Config:
    """The request in a file. Raises BadInput naming the file and the fields at fault."""
    try:
        return request_class.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"cannot be read as {request_class.__name__}: {error}", field=str(path)) from error


def _among_machines(command: str, path: Path, request: TrainRequest) -> int:
    """Be one machine's agent. The agents start all ranks anew when a machine was lost and another takes its place.

    Where the machine that hosted the meeting point was lost, the others' agents end and are made again here.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError

    plan = request.training
    host = plan.rendezvous.rsplit(":", 1)[0]
    if not host:
        raise BadInput("machines do not know where to meet", field="training.rendezvous", remedy="HOST:PORT")
    options = [
        f"--nnodes={plan.nodes}",
        f"--nproc-per-node={plan.processes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={plan.rendezvous}",
        f"--rdzv-id={request_hash(request)}",
        f"--max-restarts={plan.node_restarts}",
        *([f"--local-addr={LOCAL_ADDRESS}"] if host in LOOPBACK else []),
    ]
    os.environ[OWN_STORE_VARIABLE] = "1"
    with verdict_file():
        for attempt in range(plan.node_restarts + 1):
            try:
                status = _torchrun(options, command, path)
                break
            except RendezvousClosedError:
                status = _fail("another machine gave up; its lines say why", EXIT_STAGE_FAILED)
                break
            except (RendezvousError, DistError) as error:
                log.warning("attempt %d: the machines lost each other: %s", attempt + 1, error)
                status = EXIT_STAGE_FAILED
                if verdict() is not None:
                    break
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a rank may ask an agent to end that has ended
        if status != EXIT_DONE and verdict() is not None:
            _close_meeting(request)
        return _reason_or(status)


def _reason_or(status: int) -> int:
    """What a rank left as the reason of a failure, or what torchrun says."""
    reason = verdict()
    return status if status == EXIT_DONE or reason is None else reason


def _close_meeting(request: TrainRequest) -> None:
    """Let the other machines end as well, instead of waiting for this one."""
    from torch.distributed import DistError
    from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    plan = request.training
    with contextlib.suppress(RendezvousError, DistError):  # whoever hosted it has ended, and the meeting with it
        get_rendezvous_handler(
            RendezvousParameters("c10d", plan.rendezvous, request_hash(request), plan.nodes, plan.nodes, read_timeout=5)
        ).set_closed()


def _torchrun(options: Sequence[str], command: str, path: Path) -> int:
    """Become the agent of this machine's ranks; returns the status of the first one that failed, or 0.

    torchrun ends all ranks when one fails or when this process is asked to end.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ[PARENT_VARIABLE] = str(os.getpid())
    try:
        torchrun([*options, "-m", LAUNCH_MODULE, command, str(path)])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        status = failure.exitcode if failure.exitcode in KNOWN_STATUSES else EXIT_STAGE_FAILED
        return _fail(f"rank {failure.local_rank} ended with status {failure.exitcode}; its lines are above", status)
    except SignalException:
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _need_no_new_start() -> None:
    """As a rank that failed for a reason: end the agent where it would start the ranks again."""
    if int(os.environ.get(RESTARTS_VARIABLE, "0")):
        os.kill(os.getppid(), signal.SIGTERM)


def _level() -> int:
    """One rank speaks; the others only when something is wrong."""
    return logging.INFO if os.environ.get(RANK_VARIABLE, "0") == "0" else logging.WARNING


def _fail(message: str, status: int) -> int:
    log.error("%s", message)
    return status


def _end(status: int) -> NoReturn:
    """Leave; a rank that failed without what runs at an interpreter's end, where gloo may abort it."""
    if status != EXIT_DONE and RANK_VARIABLE in os.environ:
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    _end(main())
