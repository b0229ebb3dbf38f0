"""``register``: a checkpoint becomes a version in the registry, once per request, with everything it came from."""

from __future__ import annotations

import time
from pathlib import Path

from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import Registration
from tasks import events, tracking_lineage, tracking_models
from tasks.policies import verb
from tasks.progress import note
from tasks.provenance import current_provenance
from tasks.results import Registered, Trained
from tasks.run import RunContext


@verb("register")
def register(run: RunContext, trained: Trained, registration: Registration) -> Registered:
    """The version of a training's checkpoint; the alias is moved last."""
    began = time.monotonic()
    name = registration.name or registered_name(trained.base)
    copy = tracking_models.copies(Path(trained.checkpoint.path), registration.weights)
    version, there = tracking_models.register(
        name, trained.model(name), trained.mlflow_run_id, _tags(run, trained), copy=copy
    )
    tracking_models.link_models(trained.mlflow_run_id, makes=version.model_id, step=trained.checkpoint.step)
    if registration.alias:
        tracking_models.move_alias_forward(version, registration.alias)
    tracking_lineage.link_forward(version, trained.mlflow_run_id, trained.base_model_id)
    tracking_lineage.describe_lineage(version.model_id)
    label = f"{version.name}/{version.version}"
    note(f"register: {label} {'was there already' if there else 'made'}")
    if not there:
        events.tell(
            events.Notice(event=events.REGISTERED, model=name, version=version.version, text=f"{label} is registered")
        )
    return Registered(
        stage="register",
        seconds=time.monotonic() - began,
        reused=there,
        version=version,
        model=trained.model(label),
    )


def registered_name(base: ResolvedModel) -> str:
    """``reca-`` and the base's name; what RecA has made before keeps its name."""
    name = tracking_models.safe_name(base.name.partition("/")[0])
    return name if name.startswith("reca-") else f"reca-{name}"


def _tags(run: RunContext, trained: Trained) -> dict[str, str]:
    return {
        "request_hash": trained.request_hash,
        "data_digest": trained.data.digest,
        "base_model": trained.base.source or trained.base.name,
        "base_sha256": trained.base.sha256,
        "git_commit": current_provenance().git_commit,
        "flow_run_id": run.flow_run_id,
        "prefect_url": run.prefect_url,
        "step": str(trained.checkpoint.step),
        "run_directory": trained.directory,
    }
