"""The door to MLflow, part one: the store, the runs and what is written into them. Part two: tracking_models.py.

MLflow is a window onto the run directories: everything here can be lost and logged again. So every function may be
called twice and leaves one of each. A run is found again by its tags; parameters are written once; a metric point has
a time that follows from its own row, because MLflow keeps one point per (key, step, time, value); a picture is found
by its key and step.

Layout of the one experiment ``reca``: a parent run per flow run; below it one run for the training and one for each
model on each benchmark. ``import mlflow`` costs a second, so it happens when the store is first used, not at import.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from filelock import FileLock
from PIL import Image

from reca_core.contracts.base import Record
from reca_core.contracts.files import read_jsonl
from tasks.home import current_home

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

EXPERIMENT = "reca"
METRICS_PER_CALL = 1000
"""MLflow's own limit."""
DIGEST_LENGTH = 36
"""MLflow's own limit for a data set's digest; the full one is a tag."""
MILLISECONDS = 1000
TABLE_FILE = "per_prompt.json"
RERUN_TAG, DESCRIPTION_TAG = "rerun", "mlflow.note.content"
LONGEST_TAG = 8000
"""MLflow's limit, in characters."""
LEFT_OUT = "The rest is among the artifacts of this run."


class TrackedRun(Record):
    """A run in MLflow."""

    run_id: str
    experiment_id: str
    store: str
    """Tracking address, without credentials."""
    url: str
    """Page of the run; empty where no server shows it."""


def store_address() -> str:
    """``MLFLOW_TRACKING_URI``, or the sqlite file below the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{current_home().mlflow / 'mlflow.db'}"


def client() -> MlflowClient:
    """The client of the store, which is created on first use.

    Processes take turns at that: two that migrate one new database at once break it.
    """
    folder = current_home().mlflow
    folder.mkdir(parents=True, exist_ok=True)
    return _connect(store_address(), folder)


@functools.cache
def _connect(address: str, folder: Path) -> MlflowClient:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(address)
    mlflow.set_registry_uri(address)
    opened = mlflow.MlflowClient()
    with FileLock(folder / "store.lock"):
        if opened.get_experiment_by_name(EXPERIMENT) is None:
            _create_experiment(opened, address, folder)
    return opened


def _create_experiment(opened: MlflowClient, address: str, folder: Path) -> None:
    from mlflow.exceptions import MlflowException

    location = None if address.startswith("http") else (folder / "artifacts").as_uri()
    try:
        opened.create_experiment(EXPERIMENT, artifact_location=location)
    except MlflowException as error:  # another machine was quicker
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def experiment_id() -> str:
    """Of the one experiment."""
    experiment = client().get_experiment_by_name(EXPERIMENT)
    assert experiment is not None, "the experiment is created with the connection"
    return str(experiment.experiment_id)


def _tracked(run: Run) -> TrackedRun:
    address = without_credentials(store_address())
    page = f"{address.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    return TrackedRun(
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        store=address,
        url=page if address.startswith("http") else "",
    )


def without_credentials(address: str) -> str:
    """An address as it may be shown and stored."""
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def quoted(value: str) -> str:
    """A value inside a filter of MLflow. Raises ValueError for what its grammar cannot hold."""
    if "'" in value:
        raise ValueError(f"MLflow cannot search for {value!r}")
    return f"'{value}'"


def find_run(tags: Mapping[str, str]) -> Run | None:
    """The oldest run with all these tags."""
    condition = " and ".join(f"tags.`{name}` = {quoted(value)}" for name, value in tags.items())
    runs = client().search_runs([experiment_id()], condition, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


@contextmanager
def tracked_run(
    name: str,
    identity: Mapping[str, str],
    tags: Mapping[str, str],
    parent: TrackedRun | None = None,
    waits: tuple[type[BaseException], ...] = (),
) -> Iterator[TrackedRun]:
    """A run for the block: the one that has the tags ``identity``, or a new one.

    It ends FINISHED, FAILED where the block raises an Exception, SCHEDULED where it raises one of ``waits``, KILLED
    where it is cancelled. After a SIGKILL it stays RUNNING until the flow run is resumed and finds it again.
    """
    run = begin_run(name, identity, tags, parent)

    def end(kind: type[BaseException] | None, *_: object) -> None:
        client().set_terminated(run.run_id, _status(kind, waits))

    with ExitStack() as ending:
        ending.push(end)
        yield run


def _status(ended_by: type[BaseException] | None, waits: tuple[type[BaseException], ...]) -> str:
    """MLflow's word for how a block ended. What is no Exception is a cancel, an interrupt or an exit."""
    if ended_by is None:
        return "FINISHED"
    if issubclass(ended_by, waits):
        return "SCHEDULED"
    return "FAILED" if issubclass(ended_by, Exception) else "KILLED"


def begin_run(
    name: str, identity: Mapping[str, str], tags: Mapping[str, str], parent: TrackedRun | None = None
) -> TrackedRun:
    """The run with the tags ``identity``, set to RUNNING again, or a new one."""
    linked = {**identity, **({"mlflow.parentRunId": parent.run_id} if parent else {})}
    found = find_run(linked)
    if found is None:
        found = client().create_run(experiment_id(), tags={**tags, **linked}, run_name=name)
        describe(_tracked(found), "")
    else:
        client().update_run(found.info.run_id, status="RUNNING")
    return _tracked(found)


def describe(run: TrackedRun, text: str) -> None:
    """The description on a run's page, Markdown; below it the command that repeats the run, which is a tag too.

    MLflow cuts a tag that is too long anywhere; here whole tables are left out, and it is said.
    """
    command = rerun_command(run)
    repeat = f"Repeat: `{command}`"
    parts, room = text.split("\n\n"), LONGEST_TAG - len(LEFT_OUT) - len(repeat) - 8
    while len(parts) > 1 and len("\n\n".join(parts)) > room:
        parts.pop()
    kept = "\n\n".join(parts)[:room]
    said = [kept, *([LEFT_OUT] if len(kept) < len(text) else []), repeat] if text else [repeat]
    log_tags(run, {RERUN_TAG: command, DESCRIPTION_TAG: "\n\n".join(said)})


def rename(run: TrackedRun, name: str) -> None:
    """What a run is called in tables."""
    client().update_run(run.run_id, name=name)


def rerun_command(run: TrackedRun) -> str:
    """What a person types to repeat a run, from any directory."""
    store = ["--mlflow-uri", run.store] if run.store.startswith("http") else []
    return shlex.join(["reca", "--home", str(current_home().root), *store, "rerun", run.run_id])


@contextmanager
def outages_tolerated() -> Iterator[None]:
    """For looks in passing: a store that does not answer now is looked at again later."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        logging.getLogger(__name__).warning("MLflow does not answer, trying again later: %s", error)


def finished(run: TrackedRun) -> bool:
    """True if everything was logged into the run before."""
    return client().get_run(run.run_id).data.tags.get("logged") == "all"


def mark_finished(run: TrackedRun) -> None:
    """Say that nothing is missing in the run."""
    client().set_tag(run.run_id, "logged", "all")


def log_params(run: TrackedRun, params: Mapping[str, Any]) -> None:
    """Parameters, once: those that the run has are left alone, since MLflow never changes one."""
    from mlflow.entities import Param

    known = client().get_run(run.run_id).data.params
    new = [Param(name, _text(value)) for name, value in params.items() if name not in known]
    client().log_batch(run.run_id, params=new)


def flat(parameters: Mapping[str, Record | Any]) -> dict[str, Any]:
    """``{"training": TrainingPlan}`` as ``{"training.steps": 150, ...}``."""
    return {
        f"{name}.{field}": value for name, owner in parameters.items() for field, value in owner.model_dump().items()
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def log_tags(run: TrackedRun, tags: Mapping[str, str]) -> None:
    """Tags; later ones win."""
    log_tags_of(run.run_id, tags)


def log_tags_of(run_id: str, tags: Mapping[str, str]) -> None:
    """The same for a run of which only the id is known."""
    from mlflow.entities import RunTag

    client().log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def log_metrics(
    run: TrackedRun, metrics: Mapping[str, float], model_id: str = "", dataset: tuple[str, str] = ("", "")
) -> None:
    """Numbers that a run has once; with ``model_id`` they show on the model's page too.

    Args:
        dataset: name and digest of what was measured on.
    """
    from mlflow.entities import Metric

    time = client().get_run(run.run_id).info.start_time
    extra = {"model_id": model_id or None, "dataset_name": dataset[0] or None, "dataset_digest": dataset[1] or None}
    points = [Metric(name, value, time, 0, **extra) for name, value in metrics.items()]
    _log_points(run, points)


def _log_points(run: TrackedRun, points: Sequence[Metric]) -> None:
    for first in range(0, len(points), METRICS_PER_CALL):
        client().log_batch(run.run_id, metrics=points[first : first + METRICS_PER_CALL])


class MetricMirror:
    """Copies ``metrics.jsonl`` of a run directory into a run, each step once, also over resumes of either side."""

    def __init__(self, run: TrackedRun, file: Path) -> None:
        self._run = run
        self._file = file
        self._start = client().get_run(run.run_id).info.start_time
        self._last_step = self._last_logged_step()

    def _last_logged_step(self) -> int:
        for row in read_jsonl(self._file):
            keys = [key for key in _numbers(row) if key != "step"]
            history = client().get_metric_history(self._run.run_id, keys[0]) if keys else []
            return max((point.step for point in history), default=-1)
        return -1

    def update(self) -> int:
        """Log what is new; returns the newest step. Whole rows go into one call, so no step is logged by halves.

        What a call that fails should have logged counts as new the next time.
        """
        points: list[Metric] = []
        newest = self._last_step
        for row in read_jsonl(self._file):
            if row["step"] <= newest:
                continue
            new = self._points(row)
            if len(points) + len(new) > METRICS_PER_CALL:
                self._log(points, newest)
                points = []
            points += new
            newest = row["step"]
        self._log(points, newest)
        return newest

    def _log(self, points: Sequence[Metric], newest: int) -> None:
        _log_points(self._run, points)
        self._last_step = newest

    def _points(self, row: Mapping[str, Any]) -> list[Metric]:
        from mlflow.entities import Metric

        time = self._start + int(float(row.get("seconds", 0)) * MILLISECONDS)
        return [Metric(name, value, time, row["step"]) for name, value in _numbers(row).items() if name != "step"]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}


def log_table(run: TrackedRun, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The run's per-prompt table, in the form that MLflow's table view reads. Written whole, so never doubled."""
    client().log_dict(run.run_id, {"columns": list(columns), "data": [list(row) for row in rows]}, TABLE_FILE)
    client().set_tag(run.run_id, "mlflow.loggedArtifacts", json.dumps([{"path": TABLE_FILE, "type": "table"}]))


def log_pictures(run: TrackedRun, pictures: Iterable[tuple[str, int, Path]]) -> None:
    """Pictures as (key, step, file): MLflow's grid shows one row per key and one column per run, with a step slider.

    Keys are reduced to ``[a-z0-9_]``: anything else breaks the grid. What is there already is not logged again.
    """
    there = {Path(item.path).name for item in client().list_artifacts(run.run_id, "images")}
    for key, step, file in pictures:
        plain = plain_key(key)
        if any(name.startswith(f"{plain}+step+{step}+") for name in there):
            continue
        with Image.open(file) as picture:
            client().log_image(run.run_id, picture.convert("RGB"), key=plain, step=step, synchronous=True)


def plain_key(text: str) -> str:
    """``text`` in lower case with anything but letters and digits as ``_``."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text.lower())


def log_file(run: TrackedRun, file: Path) -> None:
    """A file as an artifact of the run."""
    client().log_artifact(run.run_id, str(file))


def log_dataset(run: TrackedRun, name: str, digest: str, source: str, context: str) -> None:
    """The data set that a run read, by name and digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(name, digest[:DIGEST_LENGTH], "local", json.dumps({"uri": source}))
    client().log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
