"""Recovery without a person: the two automations that notice a run whose process is gone and put it back in the queue.

Prefect's own server does neither: after a kill of worker and run (a reboot) the run stays RUNNING for ever and keeps
its slot (measured with 3.8.8). So:

1. *zombie*: a run that sent a heartbeat and then nothing for ``SILENCE_SECONDS`` is marked CRASHED. Runs send one every
   30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml); a run that ended, is being cancelled or waits for a person
   sends none and is left alone.
2. *requeue*: a crashed run with the tag ``resume-auto`` is scheduled again after ``SETTLE_SECONDS``: the same flow
   run, which finds the same MLflow run and resumes from its last checkpoint.

How often that may happen is decided by the run itself (``tasks/policies.py``, RECA_RUN_ATTEMPTS), because an automation
cannot count: a run that crashes its machine must not do so for ever.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture

RESUME_TAG = "resume-auto"
HEARTBEAT = "prefect.flow-run.heartbeat"
SILENCE_SECONDS = 90
"""Three heartbeats."""
SILENT_STATES = ("Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "Suspended", "Paused", "AwaitingRetry")
"""After one of these a run sends no heartbeat, and that is as it should be."""
CRASHED = "prefect.flow-run.Crashed"
SETTLE_SECONDS = 20
AFTER_A_CRASH = ("AwaitingRetry", "Scheduled", "Pending", "Running", "Completed", "Failed", "Cancelled")
"""A person, or another machine, was quicker."""
ANY_RUN = {"prefect.resource.id": ["prefect.flow-run.*"]}


def automations() -> list[Automation]:
    """Both, ready to be created."""
    return [zombie(), requeue()]


def zombie() -> Automation:
    """Silent runs are marked CRASHED."""
    return Automation(
        name="reca: mark silent runs as crashed",
        description="No heartbeat for 90 s: the process is gone. docs/operations.md, Recovery.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT} | {f"prefect.flow-run.{state}" for state in SILENT_STATES},
            match=ANY_RUN,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"No heartbeat for {SILENCE_SECONDS} s: the process is gone."
            )
        ],
    )


def requeue() -> Automation:
    """Runs that crashed and to which nothing else happens for a moment are scheduled again.

    Not at once: the worker reports one crash twice, two seconds apart, and the second report would end the attempt that
    has just begun (measured).
    """
    return Automation(
        name="reca: resume crashed runs",
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
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED, name="AwaitingRetry", message="Crashed: goes on from its last checkpoint."
            )
        ],
    )
