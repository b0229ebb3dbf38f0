"""``reca up`` and ``reca down``: the order of starting, what is undone when it fails, and what stopping means.

Nothing is started before ports, database and home were found good. Whatever goes wrong after that, also Ctrl-C, ends
every process that was started. A kill -9 of ``up`` itself leaves its children: ``reca down`` finds them by their mark.
The next ``reca up`` starts what is missing beside what still runs, so that a training outlives its server; what it
cannot use, or was asked for with other options, it takes down first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from deployments.embedded import ENDED_REMEDY, late_remedy
from deployments.environment import START_VARIABLE, Surroundings, enter
from deployments.stack import (
    PARTS,
    PartName,
    Stack,
    forget_parts,
    lock_file,
    part_environment,
    read_stack,
    write_stack,
)
from deployments.stack_database import ensure_databases, users_database
from deployments.stack_health import health, part_health
from deployments.stack_processes import check_port, end_left_of, find, marked, start, stop_all
from deployments.stack_users import admit, write_user_settings
from reca_core.contracts.errors import PrerequisiteMissing, RunLocked
from reca_core.contracts.files import run_lock
from reca_core.contracts.variables import whole_number

START_SECONDS = 180
"""Cold, on two busy cores, with a new database; RECA_SERVER_START_SECONDS is another time."""
POLL_SECONDS = 0.25
SPEAK_SECONDS = 10.0
"""Between two lines about something that is still waited for."""
WATCH_SECONDS = 5.0
LAST_LINES = 15

Say = Callable[[str], None]


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """One ``up`` or ``down`` at a time. Raises PrerequisiteMissing naming the other."""
    try:
        with run_lock(lock_file(home), wait_seconds=0):
            yield
    except RunLocked as error:
        raise PrerequisiteMissing(
            f"another reca up or reca down is at work: {error.fact.split(' is ')[0]}",
            field=str(home),
            remedy="wait for it to end",
        ) from error


def running(home: Path) -> Stack | None:
    """The stack of this home if every part of it answers."""
    return read_stack(home) if all(part.answers for part in health(home)) else None


def up(wanted: Stack, chosen: Surroundings, say: Say) -> Stack:
    """Start what is not there and wait until everything answers. The caller holds ``alone``.

    Raises PrerequisiteMissing for a taken port, a database that cannot be used or a part that does not start; nothing
    that was started is left running then.
    """
    home = Path(wanted.home)
    if marked(home):
        recorded = read_stack(home)
        if recorded is not None and recorded.model_copy(update={"parts": {}}) == wanted and _living(recorded):
            return _mend(recorded, chosen, say)
        say("an earlier stack of this home is half there; it is taken down first")
        down(home)
    with ExitStack() as undo:
        undo.callback(down, home)
        _check_ports(wanted, PARTS)
        made = ensure_databases(wanted.database, users=bool(wanted.auth))
        if made:
            say(f"created the databases {', '.join(made)}")
        stack = _start(wanted, chosen, say)
        undo.pop_all()
        return stack


def _living(stack: Stack) -> list[PartName]:
    """Parts that can stay: a server that answers, a worker that has a process (without its server it cannot answer)."""
    servers: list[PartName] = [part for part in PARTS if part != "worker" and part_health(stack, part).answers]
    return [*servers, "worker"] if find(stack.parts.get("worker")) is not None else servers


def _mend(stack: Stack, chosen: Surroundings, say: Say) -> Stack:
    """Start the other parts. What a dead worker left goes on by itself: its runs end as they would have ended."""
    home, living = Path(stack.home), _living(stack)
    missing = [part for part in PARTS if part not in living]
    if missing:
        say(f"still there: {', '.join(living)}; started again: {', '.join(missing)}")
    with ExitStack() as undo:
        for part in missing:
            if part != "worker":
                end_left_of(home, part)
                undo.callback(end_left_of, home, part)
        _check_ports(stack, missing)
        stack = _start(stack, chosen, say, missing)
        undo.pop_all()
        return stack


def _check_ports(stack: Stack, parts: Sequence[PartName]) -> None:
    if "prefect" in parts:
        check_port(stack.host, stack.prefect_port, "--prefect-port")
    if "mlflow" in parts:
        check_port(stack.host, stack.mlflow_port, "--mlflow-port")


def _start(wanted: Stack, chosen: Surroundings, say: Say, missing: Sequence[PartName] = PARTS) -> Stack:
    enter(wanted.surroundings(chosen))
    if wanted.auth:
        write_user_settings(wanted.folder, users_database(wanted.database, chosen.home))
    stack = wanted
    for server in [part for part in missing if part != "worker"]:
        stack = _begin(stack, server, chosen)
    from deployments import stack_setup  # imports Prefect: seconds, while the servers start

    wait_for_part(stack, "prefect", say)
    stack_setup.furnish()
    stack_setup.deploy()
    say("work pool, limit, automations and deployments are there")
    say(told(stack_setup.notify()))
    _recover(say)
    wait_for_part(stack, "mlflow", say)
    if wanted.auth and admit(stack.mlflow, part_environment(stack, "mlflow", chosen, os.environ), stack.login()):
        say("mlflow: the password of the file is the user's password now")
    if find(stack.parts.get("worker")) is not None:
        say("worker: still there; it was without its server and looks for it again within minutes")
        return stack
    stack = _begin(stack, "worker", chosen)
    wait_for_part(stack, "worker", say)
    return stack


def told(somebody: bool) -> str:
    """Who hears of failures, drift and promotions."""
    if somebody:
        return "failures, drift and promotions are told to the webhook of the block reca-webhook"
    return "failures, drift and promotions are told to nobody: make a Secret block reca-webhook, then reca up again"


def refresh(stack: Stack, chosen: Surroundings, say: Say) -> None:
    """What a second ``reca up`` does to a stack that runs: look for the webhook again, and at the time of silence."""
    enter(stack.surroundings(chosen))
    from deployments import stack_setup

    stack_setup.furnish()
    say(told(stack_setup.notify()))


def _begin(stack: Stack, part: PartName, chosen: Surroundings) -> Stack:
    stack = stack.model_copy(update={"parts": stack.parts | {part: start(stack, part, chosen)}})
    write_stack(stack)
    return stack


def wait_for_part(stack: Stack, part: PartName, say: Say) -> None:
    """Return when the part answers. Raises PrerequisiteMissing with its last lines when it ends or takes too long."""
    seconds = whole_number(START_VARIABLE, START_SECONDS, os.environ)
    began = spoke = time.monotonic()
    while not (found := part_health(stack, part)).answers:
        now = time.monotonic()
        if found.pid is None or now - began > seconds:
            lines = stack.log(part).read_text(errors="replace").splitlines()[-LAST_LINES:]
            waited = f" (waited {seconds} s)" if found.pid is not None else ""
            remedy = f"reca doctor; {ENDED_REMEDY if found.pid is None else late_remedy(seconds)}"
            told = f"{part} did not start: {found.fact}{waited}\n  " + "\n  ".join(lines)
            raise PrerequisiteMissing(told, field=str(stack.log(part)), remedy=remedy)
        if now - spoke > SPEAK_SECONDS:
            spoke = now
            say(f"{part}: starting, {now - began:.0f} s")
        time.sleep(POLL_SECONDS)
    say(f"{part}: {found.fact}")


def down(home: Path) -> int:
    """End every process of this home's stack and forget it; databases and logs stay. Returns how many ended."""
    stack = read_stack(home)
    if stack is not None:
        write_stack(
            stack.model_copy(update={"parts": {}})
        )  # first: a watching `up` must not start again what ends here
    ended = stop_all(home)
    forget_parts(home)
    return ended


def watch(stack: Stack, chosen: Surroundings, say: Say) -> None:
    """Stay, and start again whatever dies. Ends by an interrupt, or when ``reca down`` took the stack down.

    A worker is started again once the server answers, after the runs that died with it were put back in the queue.
    """
    while _is_wanted(stack):
        for part in PARTS:
            if find(stack.parts.get(part)) is not None:
                continue
            if part == "worker" and not part_health(stack, "prefect").answers:
                continue
            say(f"{part} is gone and is started again; {stack.log(part)} says why it went")
            if part == "worker":
                enter(stack.surroundings(chosen))  # Prefect is imported now, if this `up` found the stack running
                _recover(say)
            else:
                end_left_of(Path(stack.home), part)
            stack = _begin(stack, part, chosen)
        time.sleep(WATCH_SECONDS)
    say("reca down took the stack down")


def _is_wanted(stack: Stack) -> bool:
    recorded = read_stack(Path(stack.home))
    return recorded is not None and bool(recorded.parts)


def _recover(say: Say) -> None:
    """Put runs without a process back in the queue. A server that is away again leaves that to the automations."""
    from deployments import stack_setup

    try:
        names = stack_setup.recover()
    except httpx.HTTPError as error:
        say(f"runs that were cut off could not be looked for: {error}")
        return
    for name in names:
        say(f"run {name} was cut off; it goes on")
