"""One flow run: its parent run in MLflow, its page in Prefect, and the links between the two."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.runtime import flow_run as prefect_run
from prefect.settings import get_current_settings
from prefect.utilities.urls import url_for

from reca_core.contracts.base import Config, Record
from reca_core.contracts.files import write_json
from tasks import tracking
from tasks.artifacts import show_link
from tasks.home import current_home
from tasks.policies import check_run_attempts
from tasks.provenance import current_provenance
from tasks.resumption import stay_running, times_begun
from tasks.tracking import TrackedRun


class RunContext(Record):
    """What every verb knows about the flow run it works for."""

    flow: str
    flow_run_id: str
    """Prefect's, or one of our own where a flow is called without Prefect."""
    prefect_url: str
    """Page in the Prefect UI; empty where there is none."""
    tracked: TrackedRun
    """Parent run."""


@contextmanager
def pipeline_run(flow: str) -> Iterator[RunContext]:
    """The parent run of the Prefect flow run that is going on; the same one again when that is resumed.

    Raises StageFailed where it was resumed too often.
    """
    check_run_attempts(times_begun(), os.environ)
    flow_run_id = str(prefect_run.id or uuid.uuid4())
    prefect_url = page()
    tags = {"flow": flow, "prefect_url": prefect_url, "git_commit": current_provenance().git_commit}
    name = str(prefect_run.name or flow)
    identity = {"flow_run_id": flow_run_id}
    with stay_running(), tracking.tracked_run(f"{flow} {name}", identity, tags, waits=(Pause,)) as tracked:
        tracking.log_params(tracked, tracking.flat(parameters()))
        keep_request(flow, tracked)
        _link_to_mlflow(tracked)
        yield RunContext(flow=flow, flow_run_id=flow_run_id, prefect_url=prefect_url, tracked=tracked)


def keep_request(flow: str, tracked: TrackedRun) -> None:
    """What was asked for, whole: ``reca rerun`` repeats it. MLflow's parameters are text, cut at some length."""
    directory = current_home().flow(tracked.run_id)
    asked = {name: value.model_dump(mode="json") for name, value in parameters().items()}
    write_json(directory.request, {"flow": flow, "parameters": asked})
    tracking.log_file(tracked, directory.request)


def page() -> str:
    """Address of the running flow run in the Prefect UI; empty where no server shows pages."""
    if not prefect_run.id or not get_current_settings().server.ui.enabled or not os.environ.get("PREFECT_API_URL"):
        return ""
    return url_for("flow-run", obj_id=prefect_run.id) or ""


def parameters() -> dict[str, Config]:
    """The typed parameters of the running flow."""
    context = FlowRunContext.get()
    found = context.parameters if context is not None else {}
    return {name: value for name, value in (found or {}).items() if isinstance(value, Config)}


def _link_to_mlflow(tracked: TrackedRun) -> None:
    if tracked.url:
        show_link(tracked.url, "MLflow run", "mlflow", "The same run in MLflow")
