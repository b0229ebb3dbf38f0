"""``drop missed``: what a schedule wanted while the machine was off, or busy, is done once.

A server that could not start runs keeps them all: after a month of sleep thirty re-evaluations would follow one another
(measured with Prefect 3.8.8). All of them would ask for the same thing, so the first that begins does it, and the
others that are due when it begins, or when it has ended, are cancelled with the reason. Not by a deployment's limit
with CANCEL_NEW: where the lease behind such a limit cannot be renewed, because the server is away or has called the run
dead, Prefect raises CancelledError in the run, wherever it is.
"""

from __future__ import annotations

import datetime

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.states import Cancelled

from tasks.policies import verb
from tasks.progress import SERVER_TROUBLE, note, run_logger

WAITING = ("Scheduled", "Late")
"""Not AwaitingRetry or Resuming: such a run has begun."""


@verb("drop missed runs")
def drop_missed() -> int:
    """Cancel the other runs that the schedule of this one has due by now; returns how many."""
    context = FlowRunContext.get()
    mine = context.flow_run if context is not None else None
    if mine is None or mine.deployment_id is None or not mine.auto_scheduled:
        return 0
    try:
        with get_client(sync_client=True) as client:
            missed = [run for run in _due(client, mine) if run.parameters == mine.parameters]
            for run in missed:
                message = f"Missed: {mine.name}, which asks for the same, began before this could."
                client.set_flow_run_state(run.id, Cancelled(name="Missed", message=message), force=True)
    except SERVER_TROUBLE as error:
        run_logger().warning("missed runs could not be looked for: %s", error)
        return 0
    if missed:
        note(f"{len(missed)} missed runs of the same schedule are not caught up with")
    return len(missed)


def _due(client: SyncPrefectClient, mine: FlowRun) -> list[FlowRun]:
    now = datetime.datetime.now(datetime.UTC).isoformat()
    wanted = {
        "deployment_id": {"any_": [mine.deployment_id]},
        "state": {"name": {"any_": list(WAITING)}},
        "next_scheduled_start_time": {"before_": now},
    }
    found = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))
    return [run for run in found if run.auto_scheduled and run.id != mine.id]
