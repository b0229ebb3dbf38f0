"""One stage: find its result or make it. The same for preparing, training, sampling and judging.

A stage is a request, the directory named by the request's hash, and a child process that turns the one into the other.
``DONE.json`` is written last by the child; here it is believed only if it can be read and what it points to is what it
says. Anything else in the directory is work to resume.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError

from reca_core.contracts.base import Config, Record
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.files import atomic_write_text, write_json
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.progress import Progress
from tasks import processes, sharing
from tasks.accelerators import accelerator
from tasks.cluster import ray_cluster
from tasks.progress import note, progress_sink, run_logger
from tasks.provenance import Provenance, current_provenance, differences

PROVENANCE_FILE = "provenance.json"
UNACCELERATED = "prepare"
"""The one command that needs no accelerator: it decodes and renders pictures."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Stage(Generic[R]):
    """What is to be done, where, by which child, and how its result is checked."""

    name: str
    """Short, for people: ``train``, ``sample geneval.shapeworld``."""
    module: str
    """The child's module, such as ``reca_core.launch``."""
    command: str
    """Its sub-command, such as ``train``."""
    request: Config
    directory: RunDirectory
    result: type[R]
    """Class of DONE.json."""
    fault: Callable[[R], str]
    """Says what is wrong with what a result points to; empty where nothing is."""
    unfinished: Callable[[R], str] = lambda result: ""
    """Says why a result that holds is worth another attempt; empty where it is not. Asked before, never after one."""
    always: bool = False
    """True where only the child can tell whether the result still holds (the source may have changed)."""
    observe: Callable[[Progress], None] | None = None
    """Hears the progress too."""


@dataclass(frozen=True)
class Finished(Generic[R]):
    """A stage's result."""

    result: R
    reused: bool
    """True if it was already there."""
    seconds: float
    """Spent now."""


def run_or_reuse(stage: Stage[R]) -> Finished[R]:
    """The stage's result, made now unless it is already there and intact.

    Raises BadInput, PrerequisiteMissing or StageFailed as the child's exit status says.
    """
    began = time.monotonic()
    found = None if stage.always else read_done(stage)
    rest = stage.unfinished(found) if found is not None else ""
    if found is not None and not rest:
        note(f"{stage.name}: already done in {stage.directory.path}")
        return Finished(found, True, time.monotonic() - began)
    if rest:
        note(f"{stage.name}: begun again: {rest}")
    _write_request(stage)
    _run(stage)
    result = read_done(stage)
    if result is None:
        raise StageFailed(
            "the child process ended without a usable DONE.json",
            field=str(stage.directory.done),
            remedy=f"read {stage.directory.log}, then start the same run again",
        )
    return Finished(result, False, time.monotonic() - began)


def read_done(stage: Stage[R]) -> R | None:
    """The result that is there, or None; a DONE.json that does not hold is removed and the log says why."""
    done = stage.directory.done
    if not done.exists():
        return None
    try:
        result = stage.result.model_validate_json(done.read_text())
        fault = stage.fault(result)
    except ValidationError as error:
        fault = f"it is not a {stage.result.__name__} ({error.error_count()} faults)"
    if not fault:
        return result
    run_logger().warning("%s: %s is not used: %s", stage.name, done, fault)
    done.unlink()
    return None


def _write_request(stage: Stage[R]) -> None:
    """request.json is rewritten on every attempt: paths and devices may differ, the hashed part may not."""
    directory = stage.directory
    directory.path.mkdir(parents=True, exist_ok=True)
    now, file = current_provenance(), directory.path / PROVENANCE_FILE
    if file.exists() and not stage.always:
        for difference in differences(Provenance.model_validate_json(file.read_text()), now):
            run_logger().warning("%s resumes work of other code: %s", stage.name, difference)
    write_json(file, now.model_dump())
    atomic_write_text(directory.request, stage.request.model_dump_json(indent=2) + "\n")


def _run(stage: Stage[R]) -> None:
    directory = stage.directory
    note(f"{stage.name}: working in {directory.path}")
    show = progress_sink(f"{stage.command}-{request_hash(stage.request)}", stage.name)

    def on_progress(progress: Progress) -> None:
        show(progress)
        if stage.observe is not None:
            stage.observe(progress)

    command = processes.module_command(stage.module, stage.command, str(directory.request))
    with contextlib.nullcontext() if stage.command == UNACCELERATED else accelerator():
        address, shared = os.environ.get(sharing.ADDRESS_VARIABLE, ""), sharing.to_share(stage.request)
        if address and shared is not None:
            with ray_cluster(address) as cluster:
                sharing.share_out(shared, directory, cluster, on_progress)
        processes.run_child(command, directory.log, run_logger().info, on_progress)
