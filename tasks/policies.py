"""Which failures are worth another try, and how every verb becomes a Prefect task.

Nothing is tried again for bad input, a missing prerequisite, a refused checkpoint or a stage that said why it failed:
the second time would fail like the first. A child killed from outside (out of memory, a preempted machine) is another
matter: it resumes from its last checkpoint. Interactive runs stop and say so; deployments ask for more attempts with
``RECA_STAGE_ATTEMPTS`` (deployments/prefect.yaml).

Results are not cached by Prefect: the run directory is the truth and knows what is done (tasks/stage.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from reca_core.contracts.errors import StageFailed
from reca_core.contracts.variables import whole_number
from tasks.processes import ChildKilled

ATTEMPTS_VARIABLE = "RECA_STAGE_ATTEMPTS"
RUN_ATTEMPTS_VARIABLE = "RECA_RUN_ATTEMPTS"
RETRY_DELAYS_SECONDS = [10.0, 60.0]
"""Before the second and the third attempt; the last one repeats."""
RETRIED = (ChildKilled, ConnectionError)

P = ParamSpec("P")
R = TypeVar("R")


def attempts(environment: Mapping[str, str] | None = None) -> int:
    """How often a stage may be started. Raises BadInput for anything but a whole number above 0."""
    return whole_number(ATTEMPTS_VARIABLE, 1, os.environ if environment is None else environment)


def check_run_attempts(begun: int, environment: Mapping[str, str]) -> None:
    """Raises StageFailed for a flow run that was begun more often than RECA_RUN_ATTEMPTS allows.

    A crashed run is put back in the queue by an automation, which cannot count. Failed, unlike crashed, is final.
    """
    if RUN_ATTEMPTS_VARIABLE not in environment:
        return
    allowed = whole_number(RUN_ATTEMPTS_VARIABLE, 1, environment)
    if begun > allowed:
        raise StageFailed(
            f"this run was begun {begun} times and crashed every time; {allowed} are allowed",
            field=RUN_ATTEMPTS_VARIABLE,
            remedy="read its log and those of its stages; Retry or the same command goes on from the last checkpoint",
        )


def may_retry(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """True for failures that another attempt can mend."""
    return isinstance(state.data, RETRIED)


def verb(name: str, run_name: str = "") -> Callable[[Callable[P, R]], Task[P, R]]:
    """The ``@task`` of this project.

    Args:
        name: of the task, as in the flow's story.
        run_name: template of the task run's name in the UI, such as ``"sample {benchmark}"``.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return task(
            name=name,
            task_run_name=run_name or name,
            retries=attempts() - 1,
            retry_delay_seconds=RETRY_DELAYS_SECONDS,
            retry_condition_fn=may_retry,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(function)

    return decorate
