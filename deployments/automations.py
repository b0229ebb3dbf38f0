"""Recovery without a person: the automations that notice a run whose process is gone and put it back in the queue.

Prefect's own server does neither: after a kill of worker and run (a reboot) the run stays RUNNING for ever and keeps
its slot (measured with 3.8.8). So:

1. *zombie*: a run that sent a heartbeat and then nothing for 90 s is marked CRASHED (RECA_SILENCE_SECONDS of ``reca
   up`` is another time). Runs send one every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml; Prefect allows no
   less); a run that ended, is being cancelled or waits for a person sends none and is left alone.
2. *unbegun*: a run that a process worker took and that sent no first heartbeat within ten minutes is marked CRASHED
   too: its machine died while it was starting. Elsewhere starting may rightly take longer, so it is for process pools.
3. *requeue*: a crashed run with the tag ``resume-auto`` is scheduled again after ``SETTLE_SECONDS``: the same flow
   run, which finds the same MLflow run and resumes from its last checkpoint.

All go by events, so a server that was away errs in each: ``tasks/resumption.py`` says what mends that.

How often that may happen is decided by the run itself (``tasks/policies.py``, RECA_RUN_ATTEMPTS), because an automation
cannot count: a run that crashes its machine must not do so for ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from reca_core.contracts.errors import BadInput
from reca_core.contracts.variables import whole_number
from tasks.resumption import RESUME_NAME, RESUME_TAG, RESUMED, SILENT, UNBEGUN

HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEAT_SECONDS = 30
"""Prefect's least, and what the deployments have."""
SILENCE_VARIABLE = "RECA_SILENCE_SECONDS"
SILENCE_SECONDS = 90
"""Three heartbeats."""
SILENT_STATES = ("Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "Suspended", "Paused", "AwaitingRetry")
"""After one of these a run sends no heartbeat, and that is as it should be."""
PENDING = "prefect.flow-run.Pending"
BEGIN_SECONDS = 600
"""From being taken by a worker to the first heartbeat, which took 4 to 14 s on two cores."""
CRASHED = "prefect.flow-run.Crashed"
SETTLE_SECONDS = 20
AFTER_A_CRASH = ("AwaitingRetry", "Scheduled", "Pending", "Running", "Completed", "Failed", "Cancelled")
"""A person, or another machine, was quicker."""
ANY_RUN = {"prefect.resource.id": ["prefect.flow-run.*"]}


def automations(environment: Mapping[str, str] | None = None) -> list[Automation]:
    """All, ready to be created. Raises what ``silence_seconds`` raises."""
    return [zombie(silence_seconds(os.environ if environment is None else environment)), unbegun(), requeue()]


def silence_seconds(environment: Mapping[str, str]) -> int:
    """RECA_SILENCE_SECONDS. Raises BadInput for what is no longer than a heartbeat: every run would be called dead."""
    seconds = whole_number(SILENCE_VARIABLE, SILENCE_SECONDS, environment)
    if seconds <= HEARTBEAT_SECONDS:
        raise BadInput(
            f"runs send a heartbeat every {HEARTBEAT_SECONDS} s: after {seconds} s of silence none is dead",
            field=SILENCE_VARIABLE,
            remedy=f"set it to {2 * HEARTBEAT_SECONDS} or more",
        )
    return seconds


def zombie(seconds: int = SILENCE_SECONDS) -> Automation:
    """Runs that were silent for so long are marked CRASHED."""
    told = f"{SILENT} {seconds} s: the process is gone."
    trigger = _unless_heard(HEARTBEAT, SILENT_STATES, seconds)
    return _mark_crashed("reca: mark silent runs as crashed", told, trigger)


def unbegun(seconds: int = BEGIN_SECONDS) -> Automation:
    """Runs that a process worker took and that did not begin for so long are marked CRASHED."""
    told = f"{UNBEGUN} {seconds} s: the machine that took it is gone."
    trigger = _unless_heard(PENDING, (*SILENT_STATES, "Scheduled"), seconds)
    trigger.match_related = [
        ResourceSpecification({"prefect.resource.role": "work-pool", "prefect.work-pool.type": "process"}),
        ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{RESUME_TAG}"}),
    ]
    return _mark_crashed("reca: mark runs that never began as crashed", told, trigger)


def _unless_heard(after: str, states: Iterable[str], seconds: int) -> EventTrigger:
    """For each run: after that event neither a heartbeat nor one of the states for so long."""
    return EventTrigger(
        after={after},
        expect={HEARTBEAT} | {f"prefect.flow-run.{state}" for state in states},
        match=ANY_RUN,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=seconds),
    )


def _mark_crashed(name: str, told: str, trigger: EventTrigger) -> Automation:
    return Automation(
        name=name,
        description=f"{told} docs/operations.md, Recovery.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=told)],
    )


def requeue() -> Automation:
    """Runs that crashed and to which nothing else happens for a moment are scheduled again.

    Not at once: the worker reports one crash twice, two seconds apart, and the second report would end the attempt that
    has just begun (measured).
    """
    return Automation(
        name=RESUME_NAME,
        description="Crashed runs of the deployments go on from their last checkpoint. docs/operations.md, Recovery.",
        trigger=EventTrigger(
            after={CRASHED},
            expect={f"prefect.flow-run.{state}" for state in AFTER_A_CRASH},
            match=ANY_RUN,
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{RESUME_TAG}"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SETTLE_SECONDS),
        ),
        actions=[ChangeFlowRunState(state=StateType.SCHEDULED, name="AwaitingRetry", message=RESUMED)],
    )
