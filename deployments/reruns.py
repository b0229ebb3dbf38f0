"""What ``reca rerun`` is asked to repeat: a flow run or one stage, found by folder, hash or MLflow run.

A flow run is kept as ``flows/<MLflow run id>/request.json``, a stage as the request.json of its directory. A stage is
repeated by its own child process, as any caller of ``python -m reca_core.launch`` would: no flow, no server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployments.catalogue import FLOWS
from deployments.context import Context
from deployments.environment import enter
from evaluation.records import CollectRequest, CollectResult, JudgeRequest, JudgeResult
from reca_core.contracts.base import Config, Record
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.home import RunDirectory, beginning
from reca_core.contracts.records import SampleResult, TrainResult
from reca_core.contracts.requests import SampleRequest, TrainRequest

REQUEST = "request.json"
MLFLOW_RUN = re.compile(r"[0-9a-f]{32}")
KINDS = ("flows", "runs", "samples", "answers")


@dataclass(frozen=True)
class StoredFlow:
    """A flow run as it was asked for."""

    flow: str
    parameters: dict[str, Config]


@dataclass(frozen=True)
class StoredStage:
    """One stage as it was asked for."""

    name: str
    module: str
    command: str
    directory: RunDirectory
    request: Config
    result: type[Record]
    field: str
    """Of the request that names the directory."""

    def at(self, directory: RunDirectory) -> StoredStage:
        """The same work in another directory: where it lies is no part of what it is."""
        moved = {self.field: str(directory.path)}
        return StoredStage(
            self.name,
            self.module,
            self.command,
            directory,
            self.request.model_copy(update=moved),
            self.result,
            self.field,
        )


STAGES: dict[str, tuple[str, str, type[Config], type[Record], str]] = {
    "training": ("reca_core.launch", "train", TrainRequest, TrainResult, "run_directory"),
    "sampling": ("reca_core.launch", "sample", SampleRequest, SampleResult, "output_directory"),
    "pictures_from": ("evaluation.launch", "collect", CollectRequest, CollectResult, "output_directory"),
    "samples_directory": ("evaluation.launch", "judge", JudgeRequest, JudgeResult, "output_directory"),
}
"""A field that only one kind of request has -> module, command, request, result, the field that names its directory."""


def find(typed: str, context: Context) -> StoredFlow | StoredStage:
    """What a person named. Raises BadInput where it means nothing, PrerequisiteMissing where its request is gone."""
    home, path = context.surroundings.home, context.path(typed)
    if path.name == REQUEST and path.is_file():
        path = path.parent
    if (path / REQUEST).is_file():
        return _stored(path)
    known = [found for found in beginning(home, KINDS, typed) if (found / REQUEST).is_file()]
    if len(known) == 1:
        return _stored(known[0])
    if len(known) > 1:
        shown = [f"{folder.parent.name}/{folder.name}" for folder in known]
        raise BadInput(f"{len(known)} runs begin so", field=typed, choices=shown, remedy="type more of it")
    if MLFLOW_RUN.fullmatch(typed):
        return _of_mlflow(typed, context)
    raise BadInput(
        "names no run",
        field=typed,
        choices=[folder.name for kind in KINDS[:2] for folder in sorted((home.root / kind).glob("*"))],
        remedy="a folder with request.json, the beginning of its hash, or the id of a run in MLflow",
    )


def _of_mlflow(run_id: str, context: Context) -> StoredFlow | StoredStage:
    from tasks.tracking_runs import run_tags, stored_request

    enter(context.surroundings)
    tags = run_tags(run_id)
    request = stored_request(run_id)
    if request:
        return _flow(request, run_id)
    directory = Path(tags.get("run_directory", ""))
    if not (directory / REQUEST).is_file() or not tags.get("run_directory"):
        raise PrerequisiteMissing(
            f"its request is not on this machine: {directory / REQUEST}",
            field=run_id,
            remedy="repeat the flow run that it belongs to: its parent in MLflow",
        )
    return _stored(directory)


def _stored(directory: Path) -> StoredFlow | StoredStage:
    try:
        request = dict(json.loads((directory / REQUEST).read_text(encoding="utf-8")))
        if "flow" in request:
            return _flow(request, str(directory))
        return _stage(request, directory)
    except (ValidationError, ValueError) as error:
        raise BadInput(f"its request cannot be read: {error}", field=str(directory / REQUEST)) from error


def _flow(request: Mapping[str, Any], where: str) -> StoredFlow:
    entry = FLOWS.get(request["flow"])
    if entry is None:
        raise BadInput(f"no flow is called {request['flow']!r} here", field=where, choices=list(FLOWS))
    given = request["parameters"]
    return StoredFlow(entry.name, {name: owner(**given.get(name, {})) for name, owner in entry.parameters.items()})


def _stage(request: Mapping[str, Any], directory: Path) -> StoredStage:
    for mark, (module, command, owner, result, field) in STAGES.items():
        if mark in request:
            read = owner.model_validate(request)
            return StoredStage(
                f"{command} {directory.name}", module, command, RunDirectory(directory), read, result, field
            )
    raise BadInput("its request is of no kind that is known", field=str(directory / REQUEST))
