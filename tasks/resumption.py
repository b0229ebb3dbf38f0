"""``resume crashed runs``, and runs that look after themselves: what automations and worker of the stack do not see.

An automation decides by events (deployments/automations.py). A server that was away has heard none, and one that has
just started loses some: after 100 s without a server every run was marked crashed within a second of its start, dead or
alive, and the rule that puts crashed runs back did not fire at all (measured with Prefect 3.8.8). So

1. a run that lives and reads that it is dead says that it is running (``stay_running``), before it is begun twice;
2. crashed runs that the rule missed are put back in the queue: by ``reca up`` when it starts, and every ten minutes by
   ``poll-registry``;
3. a run that is cancelled ends by itself where its worker does not end it: a worker that was without its server for
   half a minute hears of no cancel any more (its log says so).
"""

from __future__ import annotations

import contextvars
import datetime
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from prefect._internal.control_listener import get_intent
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.runtime import flow_run as prefect_run
from prefect.states import AwaitingRetry, Cancelled, Running, State

from tasks.policies import verb
from tasks.progress import SERVER_TROUBLE, note, run_logger

RESUME_TAG = "resume-auto"
"""Of runs that go on by themselves after a crash."""
RESUME_NAME = "reca: resume crashed runs"
"""Of the automation that does so; switched off by a person, nothing here resumes anything either."""
SILENT = "No heartbeat for"
UNBEGUN = "It did not begin within"
RESUMED = "Crashed: goes on from its last checkpoint."
CUT_OFF = "The machine went down while this ran."
OBJECTION = "It lives; the server had said:"
CALLED_DEAD = (SILENT, UNBEGUN, RESUMED, CUT_OFF)
"""How messages begin that only a dead run can have; what a person sets has another message and stands."""
LOOK_SECONDS = 5.0
"""Between two looks of a run at its own state; a crashed one is put back after 20 s (deployments/automations.py)."""
CANCEL_SECONDS = 10.0
"""A worker that hears of a cancel has asked the run to end by then."""
OBJECTION_SECONDS = 15.0
"""So long a run that lives has had time to say so."""
MISSED_SECONDS = 120.0
"""Of being crashed: the automation has had its chance."""
KEPT = datetime.timedelta(days=7)
"""What crashed longer ago is left to a person: Retry in the UI."""


@contextmanager
def stay_running() -> Iterator[None]:
    """For the block, the flow run of this process cannot be called dead by mistake, and ends where it is cancelled."""
    flow_run_id = prefect_run.id
    if not flow_run_id or RESUME_TAG not in (prefect_run.tags or []):
        yield
        return
    ended = threading.Event()
    look = contextvars.copy_context().run  # which server: Prefect keeps it in a context variable
    watcher = threading.Thread(target=look, args=(_watch, UUID(flow_run_id), ended), name="stay running", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(LOOK_SECONDS)


def times_begun() -> int:
    """How often the flow run of this process was begun, without objections, which Prefect counts too.

    Where the server cannot be asked for them they stay in the count.
    """
    counted = int(prefect_run.run_count or 1)
    if counted == 1 or not prefect_run.id:
        return counted
    try:
        with get_client(sync_client=True) as client:
            history = client.read_flow_run_states(UUID(prefect_run.id))
    except SERVER_TROUBLE as error:
        run_logger().warning("the server cannot be asked how often this run was begun: %s", error)
        return counted
    return counted - sum((state.message or "").startswith(OBJECTION) for state in history)


def _watch(flow_run_id: UUID, ended: threading.Event) -> None:
    cancelled_at = 0.0
    with get_client(sync_client=True) as client:
        while not ended.wait(LOOK_SECONDS):
            try:
                state = client.read_flow_run(flow_run_id).state
                if state is None or ended.is_set():
                    continue
                if called_dead(state):
                    alive: State[None] = Running(message=f"{OBJECTION} {state.message}")
                    client.set_flow_run_state(flow_run_id, alive, force=True)
                cancelled_at = (cancelled_at or time.monotonic()) if state.type == StateType.CANCELLING else 0.0
                if cancelled_at and time.monotonic() - cancelled_at >= CANCEL_SECONDS:
                    _end_cancelled(client, flow_run_id)
                    return
            except SERVER_TROUBLE as error:
                run_logger().debug("the server cannot be asked what it thinks of this run: %s", error)


def _end_cancelled(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    """As the worker would, unless it has: Cancelled, and the signal that unwinds this process.

    An engine that knows of a final state leaves it as it is; otherwise it would call the run crashed, and the run would
    be resumed. A second signal would cut short what the first one began.
    """
    if get_intent() is not None:
        return
    state: State[None] = Cancelled(message="Ended by the run itself: its worker hears of no cancel.")
    client.set_flow_run_state(flow_run_id, state, force=True)
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        context.flow_run.state = state
    os.kill(os.getpid(), signal.SIGTERM)


def called_dead(state: State[object]) -> bool:
    """Whether the state says of a run that its process is gone."""
    given_up = state.type == StateType.CRASHED or state.name == "AwaitingRetry"
    return given_up and (state.message or "").startswith(CALLED_DEAD)


def crashed_runs(client: SyncPrefectClient, least_seconds: float) -> Sequence[FlowRun]:
    """Runs that should go on by themselves and have been crashed for so long; none where that is switched off."""
    if not any(automation.enabled for automation in client.read_automations_by_name(RESUME_NAME)):
        return []
    now = datetime.datetime.now(datetime.UTC)
    ended = {"after_": now - KEPT, "before_": now - datetime.timedelta(seconds=least_seconds)}
    wanted = {"tags": {"all_": [RESUME_TAG]}, "state": {"type": {"any_": [StateType.CRASHED]}}, "end_time": ended}
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))


def put_back(client: SyncPrefectClient, runs: Sequence[FlowRun]) -> None:
    """In the queue again, the same runs: each finds its MLflow run and its last checkpoint."""
    for run in runs:
        client.set_flow_run_state(run.id, AwaitingRetry(message=RESUMED), force=True)


@verb("resume crashed runs")
def resume_crashed() -> int:
    """Put back what the automation missed; returns how many."""
    try:
        with get_client(sync_client=True) as client:
            missed = crashed_runs(client, MISSED_SECONDS)
            put_back(client, missed)
    except SERVER_TROUBLE as error:
        run_logger().warning("crashed runs could not be looked for: %s", error)
        return 0
    if missed:
        note(f"put back in the queue: {', '.join(run.name for run in missed)}")
    return len(missed)
