"""Starts a flow in this process: surroundings first, then the embedded server, then the import, then the run.

The order matters: Prefect reads its settings when it is imported. The server needs some seconds to answer, so it starts
before the import and is waited for after it. Whatever ends the run ends the server, also SIGKILL.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from deployments.catalogue import FlowEntry
from deployments.context import Context
from deployments.embedded import EmbeddedServer
from deployments.environment import enter
from deployments.terminal import Terminal
from reca_core.contracts.base import Config
from reca_core.contracts.errors import PrerequisiteMissing, RecaError, StageFailed
from reca_core.contracts.records import Outcome

RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
CONSOLE_VARIABLE = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
HEALTH_SECONDS = 10.0
PREFECT_QUESTION, MLFLOW_QUESTION = "admin/version", "api/2.0/mlflow/experiments/get-by-name?experiment_name=reca"
"""Answered only to those that the server knows."""
DELIVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Ended:
    """A flow run that came to its end."""

    outcome: Outcome
    startup_seconds: float
    """Until the flow began: imports and the embedded server."""
    seconds: float
    """In all."""


def run_flow(entry: FlowEntry, parameters: Mapping[str, Config], context: Context) -> Ended:
    """Run one flow to its end. Raises the RecaError that ended it, or StageFailed for any other exception in it."""
    began = time.monotonic()
    enter(context.surroundings)
    os.environ[CONSOLE_VARIABLE] = "INFO" if context.verbose else "CRITICAL"
    with api(context) as wait:
        module, _, name = entry.target.partition(":")
        flow = getattr(importlib.import_module(module), name)
        from tasks.progress import listening
        from tasks.tracking import client

        client()  # a new store takes seconds to make: while the server starts they cost nothing
        wait()
        startup = time.monotonic() - began
        with listening(context.terminal), warnings_to(context.terminal):
            state = flow(**parameters, return_state=True)
        outcome = outcome_of(state.result(raise_on_failure=False), context.terminal)
        return Ended(outcome, startup, time.monotonic() - began)


def outcome_of(result: Any, terminal: Terminal) -> Outcome:
    """What a flow returned, or its failure raised: our own errors as they are, others as a failed stage."""
    if isinstance(result, Outcome):
        return result
    if isinstance(result, RecaError):
        raise result
    terminal.note("".join(traceback.format_exception(result)))
    raise StageFailed(
        f"unexpected {type(result).__name__}: {result}", remedy="the traceback above says where"
    ) from result


class _Wait:
    """Called once the imports are done."""

    def __init__(self, server: EmbeddedServer | None) -> None:
        self._server = server

    def __call__(self) -> None:
        if self._server is not None:
            self._server.wait()


@contextlib.contextmanager
def api(context: Context) -> Iterator[_Wait]:
    """A Prefect API for the block: the server that was asked for, or one of our own."""
    chosen = context.surroundings
    if chosen.mlflow_uri.startswith("http"):
        _check_answers(f"{chosen.mlflow_uri.rstrip('/')}/health", "--mlflow-uri", "mlflow server")
        user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
        _check_login(f"{chosen.mlflow_uri.rstrip('/')}/{MLFLOW_QUESTION}", "--mlflow-uri", user, password)
    if not chosen.embedded:
        _check_answers(f"{chosen.prefect_url.rstrip('/')}/health", "--prefect-url", "prefect server start")
        user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
        _check_login(f"{chosen.prefect_url.rstrip('/')}/{PREFECT_QUESTION}", "--prefect-url", user, password)
        yield _Wait(None)
        return
    server = EmbeddedServer(chosen.home.prefect)
    try:
        server.begin()
        os.environ["PREFECT_API_URL"] = server.api_url
        yield _Wait(server)
    finally:
        deliver()
        server.stop()


def deliver() -> None:
    """Let Prefect hand over the last log lines and events while there is still someone to take them.

    Left to itself it does so when the interpreter ends, and waits a minute for a server that is gone by then.
    """
    if "prefect.events.worker" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (APILogWorker, EventsWorker):
        service.drain_all(timeout=DELIVERY_SECONDS)


def _check_answers(address: str, field: str, command: str) -> None:
    try:
        httpx.get(address, timeout=HEALTH_SECONDS).raise_for_status()
    except httpx.HTTPError as error:
        raise PrerequisiteMissing(
            f"{address} does not answer: {error}",
            field=field,
            remedy=f"start it ({command}), or leave the option out and files below the home are used",
        ) from error


def _check_login(address: str, field: str, user: str, password: str) -> None:
    """A server that asks who calls must know the caller before the flow begins. Tokens are left to the flow."""
    login = (user, password) if user else None
    if httpx.get(address, auth=login, timeout=HEALTH_SECONDS).status_code == httpx.codes.UNAUTHORIZED:
        raise PrerequisiteMissing(
            f"{address} asks who calls and does not {'take this user and password' if user else 'let everyone in'}",
            field=field,
            remedy="name the file with user and password that its reca up was given: --auth FILE",
        )


class _Warnings(logging.Handler):
    """Shows warnings of flow and task runs to the person; errors reach them as the command's own message."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        if record.levelno == logging.WARNING:
            self._terminal.note(record.getMessage())


@contextlib.contextmanager
def warnings_to(terminal: Terminal) -> Iterator[None]:
    """For the block, warnings of runs are shown."""
    handler = _Warnings(terminal)
    for name in RUN_LOGGERS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in RUN_LOGGERS:
            logging.getLogger(name).removeHandler(handler)
