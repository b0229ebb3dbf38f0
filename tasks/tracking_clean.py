"""MLflow's own cleaning: runs that people deleted go for good (``mlflow gc``), unless a registered version needs them;
and saved views of comparisons whose run is not there any more.

``mlflow gc`` looks at nothing but age: it also takes the run or the stored weights behind a registered version, if
someone deleted those. So it is not called while any version points to something deleted; the version is named instead.
It works on MLflow's database, which only the worker beside the server knows (RECA_MLFLOW_DATABASE, by ``reca up``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reca_core.contracts.errors import StageFailed
from tasks.home import MLFLOW_DATABASE_VARIABLE
from tasks.tracking import client, experiment_id, store_address
from tasks.tracking_models import model_id_of
from tasks.tracking_views import VIEW_TAG, kept_for
from tasks.tracking_weights import versions

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

PURGE_SECONDS = 3600.0
DELETED = "deleted"
ABSENT = "RESOURCE_DOES_NOT_EXIST"
STORED_MODEL = "models:/"
"""How the source of a version begins whose weights, or the pointer to them, MLflow itself keeps."""


def purge(older_than_days: int, *, dry_run: bool) -> str:
    """Call ``mlflow gc`` where it is safe; returns one sentence on what was done or why not.

    Raises StageFailed with what MLflow said where it failed.
    """
    database = os.environ.get(MLFLOW_DATABASE_VARIABLE, "")
    if not database:
        return f"MLflow's deleted runs stay: this machine does not know its database ({MLFLOW_DATABASE_VARIABLE})"
    needed = sorted(needed_but_deleted())
    if needed:
        return f"MLflow's deleted runs stay: {', '.join(needed)} need some; restore those runs or delete the versions"
    if dry_run:
        return f"would remove what was deleted in MLflow more than {older_than_days} days ago"
    words = [
        sys.executable,
        "-m",
        "mlflow",
        "gc",
        "--older-than",
        f"{older_than_days}d",
        "--backend-store-uri",
        database,
    ]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store_address()}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PURGE_SECONDS, check=False)
    if done.returncode != 0:
        raise StageFailed(f"mlflow gc ended with status {done.returncode}: {done.stderr[-1000:]}", field="tracking")
    return f"removed what was deleted in MLflow more than {older_than_days} days ago"


def prune_views(*, dry_run: bool) -> str:
    """Take away saved views whose run was deleted; returns one sentence, empty where all are needed.

    A run that is brought back gets its views again with ``reca rerun``. Views that people saved stay.
    """
    stale = [tag for tag in _saved_views() if (run := kept_for(tag.removeprefix(VIEW_TAG))) and not _run_kept(run)]
    for tag in stale if not dry_run else []:
        client().delete_experiment_tag(experiment_id(), tag)
    verb = "would remove" if dry_run else "removed"
    return f"{verb} {len(stale)} saved views of comparisons that were deleted in MLflow" if stale else ""


def _saved_views() -> list[str]:
    tags = client().get_experiment(experiment_id()).tags
    return sorted(tag for tag in tags if tag.startswith(VIEW_TAG))


def _run_kept(run_id: str) -> bool:
    run = _run(run_id)
    return run is not None and run.info.lifecycle_stage != DELETED


def _run(run_id: str) -> Run | None:
    """A run, deleted or not; None where it is gone for good."""
    from mlflow.exceptions import MlflowException

    try:
        return client().get_run(run_id)
    except MlflowException as error:
        if error.error_code != ABSENT:
            raise
        return None


def needed_but_deleted() -> Iterator[str]:
    """Registered versions whose run, experiment or stored model somebody deleted."""
    for version in versions():
        if _run_deleted(version) or _model_deleted(version):
            yield f"{version.name}/{version.version}"


def _run_deleted(version: ModelVersion) -> bool:
    run = _run(version.run_id) if version.run_id else None
    if run is None:
        return False  # gone for good already: nothing can be lost any more
    experiment = client().get_experiment(run.info.experiment_id)
    return DELETED in (run.info.lifecycle_stage, experiment.lifecycle_stage if experiment else DELETED)


def _model_deleted(version: ModelVersion) -> bool:
    from mlflow.exceptions import MlflowException

    if not str(version.source).startswith(STORED_MODEL):
        return False
    try:
        return client().get_logged_model(model_id_of(version)) is None
    except MlflowException as error:
        if error.error_code != ABSENT:
            raise
        return True
