"""Where a stage's progress and log lines go: a progress artifact and the log in Prefect, and whoever listens here.

The command line listens to draw its bars. All of these are windows: none may stop a stage, so a Prefect server that
does not answer costs a picture of the progress and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError, PrefectHTTPStatusError
from prefect.logging import get_run_logger

from reca_core.contracts.progress import Pace, Progress, plural

SERVER_TROUBLE = (httpx.HTTPError, PrefectHTTPStatusError)
PERCENT = 100.0


class Listener(Protocol):
    """Something in this process that wants to know how far a flow run is."""

    def progress(self, progress: Progress) -> None:
        """A stage got further."""
        ...

    def note(self, text: str) -> None:
        """A line for people: a stage began, ended, or was found done."""
        ...


_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """For the block, ``listener`` hears of every stage that runs in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Prefect's logger of the running task or flow; outside of both an ordinary one."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("reca")


def note(text: str) -> None:
    """Say something to the log and to the listeners."""
    run_logger().info(text)
    for listener in _listeners:
        listener.note(text)


def progress_sink(key: str, description: str) -> Callable[[Progress], None]:
    """A function that shows the progress of one stage everywhere.

    Args:
        key: of the artifact: lower-case letters, digits and dashes.
        description: the artifact's caption.
    """
    artifact: list[UUID] = []
    pace = Pace()
    in_run = TaskRunContext.get() is not None or FlowRunContext.get() is not None

    def show(progress: Progress) -> None:
        for listener in _listeners:
            listener.progress(progress)
        speed = pace.see(progress)
        if in_run:
            _show_in_prefect(artifact, key, f"{description}: {in_words(progress, speed)}", progress)

    return show


def in_words(progress: Progress, speed: str) -> str:
    """Such as ``12/48 pictures, 2.41 pictures/s, 15 s left``."""
    done = f"{progress.done}/{progress.total} {plural(progress.unit)}"
    return f"{done}, {speed}" if speed else done


def _show_in_prefect(artifact: list[UUID], key: str, caption: str, progress: Progress) -> None:
    percent = PERCENT * min(progress.done, progress.total) / max(progress.total, 1)
    try:
        if artifact:
            update_progress_artifact(artifact[0], percent, caption)  # type: ignore[unused-coroutine]
        else:
            artifact.append(create_progress_artifact(percent, key, caption))  # type: ignore[arg-type]
    except SERVER_TROUBLE as error:
        run_logger().debug("progress is not shown in Prefect: %s", error)
