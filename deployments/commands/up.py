"""``reca up``: servers, worker and everything in them, in the background or (``--foreground``) here."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from deployments.context import Context
from deployments.stack import Stack
from deployments.stack_database import check_database
from deployments.stack_links import links, tell_links, to_stack
from deployments.stack_processes import is_everywhere
from deployments.stack_up import alone, down, refresh, running, up, watch
from deployments.terminal import Terminal
from reca_core.contracts.errors import EXIT_DONE, BadInput, PrerequisiteMissing

PORTS = range(1, 1 << 16)


def start(options: Namespace, context: Context) -> int:
    """Start the stack of this home, or say that it runs. Raises PrerequisiteMissing where something is in the way."""
    wanted, terminal = _wanted(options, context), context.terminal
    home = Path(wanted.home)
    _make(home)
    with alone(home):
        stack = running(home)
        if stack is not None:
            terminal.note(f"already running in {home}; reca down stops it")
            if stack.model_copy(update={"parts": {}}) != wanted:
                terminal.note("it was started with other options than these; reca down first to change them")
            refresh(stack, context.surroundings, terminal.note)
        else:
            if is_everywhere(wanted.host) and not wanted.auth:
                terminal.note("anyone who reaches this machine can start runs: neither server asks who calls")
            stack = up(wanted, context.surroundings, terminal.note)
    _tell(stack, terminal)
    if options.foreground:
        _stay(stack, context)
    return EXIT_DONE


def _wanted(options: Namespace, context: Context) -> Stack:
    for port, field in ((options.prefect_port, "--prefect-port"), (options.mlflow_port, "--mlflow-port")):
        if port not in PORTS:
            raise BadInput(f"{port} is no port", field=field, remedy=f"choose one from 1 to {PORTS[-1]}")
    if options.prefect_port == options.mlflow_port:
        raise BadInput(f"both servers cannot listen on {options.mlflow_port}", field="--mlflow-port")
    return Stack(
        home=str(context.surroundings.home.root),
        host=options.host,
        prefect_port=options.prefect_port,
        mlflow_port=options.mlflow_port,
        database=check_database(options.database),
        auth=context.surroundings.auth,
    )


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrerequisiteMissing(
            f"the home {home} cannot be made: {error.strerror}",
            field="--home",
            remedy="choose a directory you may write: reca --home DIR up",
        ) from error


def _tell(stack: Stack, terminal: Terminal) -> None:
    """The three links."""
    found, first = links(stack)
    tell_links(found, first, terminal)
    terminal.note(f"from the terminal: reca run FLOW{to_stack(stack)}")
    if stack.auth:
        terminal.note(f"both servers ask who calls: user and password are in {stack.auth}")
    parts = {part: record.pid for part, record in stack.parts.items()}
    terminal.answer({"links": found, "prefect_api": stack.api, "mlflow": stack.mlflow, "pids": parts})


def _stay(stack: Stack, context: Context) -> None:
    try:
        watch(stack, context.surroundings, context.terminal.note)
    except KeyboardInterrupt:
        context.terminal.note("stopping")
        down(Path(stack.home))
