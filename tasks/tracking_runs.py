"""The door to MLflow, part six: from the id of a run to what it stands for on this disk."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from reca_core.contracts.errors import PrerequisiteMissing
from tasks.tracking import client, experiment_id, quoted
from tasks.tracking_models import ABSENT
from tasks.tracking_views import VERDICT_TAG

BASE = "base"
"""Verdict of the model that another one is compared with."""
REQUEST_FILE = "request.json"


def run_tags(run_id: str) -> dict[str, str]:
    """Tags of a run. Raises PrerequisiteMissing where the store has no such run."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client().get_run(run_id).data.tags)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise PrerequisiteMissing(
            "the tracking store has no run with this id", field=run_id, remedy="another store: --mlflow-uri URI"
        ) from error


def judged_hashes(run_id: str) -> list[str]:
    """Request hashes of what a run judged; of a comparison, what it judged of the model that was trained."""
    tags = run_tags(run_id)
    if tags.get("stage") == "benchmark":
        return [tags["request_hash"]]
    condition = f"tags.`mlflow.parentRunId` = {quoted(run_id)} and tags.stage = 'benchmark'"
    children = [run.data.tags for run in client().search_runs([experiment_id()], condition)]
    trained = [tags for tags in children if tags.get(VERDICT_TAG) != BASE]
    return list(dict.fromkeys(tags["request_hash"] for tags in trained or children))


def stored_request(run_id: str) -> dict[str, Any]:
    """The request of a flow run, as its run keeps it; empty where there is none."""
    run_tags(run_id)
    if REQUEST_FILE not in {item.path for item in client().list_artifacts(run_id)}:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = client().download_artifacts(run_id, REQUEST_FILE, folder)
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
