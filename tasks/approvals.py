"""Asking a person: the form of a suspended run, and what becomes of a question that nobody answers.

A suspended run has no process, and Prefect ends it as Failed once its time is over: nobody of ours is there to write
down what that means. So the refusal that silence amounts to is written when the question is asked, to
``<home>/decisions/waiting/<flow run>.json``. Whoever looks next (``poll-registry`` every ten minutes, or the next
``re-evaluate``) and finds that run ended puts it into the ledger (tasks/promote.py), with how it ended as the reason.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from pydantic import Field, ValidationError

from reca_core.contracts.base import Record
from reca_core.contracts.files import atomic_write_text
from tasks import ledger
from tasks.home import current_home
from tasks.results import Decision
from tasks.run import RunContext

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

NOBODY = "nobody"
EXPIRED = "never resumed"
"""What Prefect says of a run whose pause is over."""


class Approval(RunInput):
    """The form that a person fills in to resume the run."""

    promote: bool = Field(False, title="Promote", description="Make the challenger champion.")
    person: str = Field("", title="Your name", description="Kept with the decision.")
    reason: str = Field("", title="Reason", description="Kept with the decision.")


class Question(Record):
    """What a suspended run asks, and what holds if nobody answers."""

    run: RunContext
    """The run that waits."""
    refusal: Decision
    """Its reasons are those for which the rule would have promoted."""
    days: int
    """For an answer."""
    until: str
    """When they are over, ISO 8601, UTC."""


def ask(run: RunContext, refusal: Decision, days: int) -> None:
    """Remember a question. A run that was cut off and asks again keeps its first deadline, as Prefect does."""
    file = _file(run.flow_run_id)
    if not file.is_file():
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        question = Question(run=run, refusal=refusal, days=days, until=until.isoformat(timespec="seconds"))
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(file, question.model_dump_json(indent=2) + "\n")


def forget(flow_run_id: str) -> None:
    """A question that was answered, or whose refusal is in the ledger."""
    _file(flow_run_id).unlink(missing_ok=True)


def unanswered() -> Iterator[tuple[Question, Decision]]:
    """Questions whose run ended without an answer, and the refusal of each as it belongs into the ledger."""
    for file in sorted(_folder().glob("*.json")):
        try:
            question = Question.model_validate_json(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValidationError):  # another run was quicker; or another version of this project
            continue
        state = _state(question.run.flow_run_id)
        reason = _silence(question, state)
        if reason:
            told = {"reasons": [reason, *question.refusal.reasons], "by": NOBODY, "at": ledger.now()}
            yield question, question.refusal.model_copy(update=told)
        elif state is not None and state.is_completed():  # cut off between its decision and forgetting the question
            forget(question.run.flow_run_id)


def _silence(question: Question, state: State[None] | None) -> str:
    """Why there will be no answer; empty while there may be one.

    A run that failed otherwise may be tried again, and one that this server does not know may wait on another: there
    the deadline decides.
    """
    if state is not None and state.is_cancelled():
        return "the run that asked was cancelled before anybody answered"
    ended = state is None or state.is_failed()
    expired = state is not None and state.is_failed() and EXPIRED in (state.message or "")
    over = datetime.datetime.fromisoformat(question.until) < datetime.datetime.now(datetime.UTC)
    return f"nobody answered within {question.days} days" if expired or (ended and over) else ""


def _state(flow_run_id: str) -> State[None] | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_flow_run(UUID(flow_run_id)).state
        except ObjectNotFound:
            return None


def _folder() -> Path:
    return current_home().decisions / "waiting"


def _file(flow_run_id: str) -> Path:
    return _folder() / f"{flow_run_id}.json"
