"""A run that lives is not begun twice; the rest of ``tasks.resumption``: tests/end_to_end/test_stack_outages.py."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.automations import Automation
from prefect.states import AwaitingRetry, Cancelled, Crashed, Running, State

from deployments.automations import requeue, zombie
from tasks import resumption
from tasks.resumption import CUT_OFF, RESUMED, called_dead, crashed_runs, resume_crashed, stay_running, times_begun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.orchestration import SyncPrefectClient

RUN = uuid4()


class Server:
    """What a Prefect server would say of one flow run, and what it was told."""

    def __init__(self, state: State[None]) -> None:
        self.state, self.away, self.asked = state, False, 0
        self.told: list[State[None]] = []

    def read_flow_run(self, flow_run_id: UUID) -> SimpleNamespace:
        assert flow_run_id == RUN
        self.asked += 1
        if self.away:
            raise httpx.ConnectError("away")
        return SimpleNamespace(state=self.state)

    def set_flow_run_state(self, flow_run_id: UUID, state: State[None], force: bool) -> None:
        assert force
        self.state = state
        self.told.append(state)

    def read_flow_run_states(self, flow_run_id: UUID) -> list[State[None]]:
        assert flow_run_id == RUN
        if self.away:
            raise httpx.ConnectError("away")
        return [Running(), Crashed(message="x"), *self.told, Running()]

    def read_automations_by_name(self, name: str) -> list[Automation]:
        return []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server(Running())

    @contextmanager
    def connected(**_: Any) -> Iterator[Server]:
        yield found

    monkeypatch.setattr(resumption, "get_client", connected)
    monkeypatch.setattr(resumption, "LOOK_SECONDS", 0.01)
    return found


def in_a_run(monkeypatch: pytest.MonkeyPatch, tags: list[str], run_count: int = 1) -> None:
    monkeypatch.setattr(resumption, "prefect_run", SimpleNamespace(id=str(RUN), tags=tags, run_count=run_count))


def until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def message_of(automation: Automation) -> str:
    (action,) = automation.actions
    return str(action.message)  # type: ignore[union-attr]


@pytest.mark.parametrize("wrong", [Crashed(message=message_of(zombie())), AwaitingRetry(message=message_of(requeue()))])
def test_a_run_that_lives_says_so_after_the_server_was_away(
    server: Server, monkeypatch: pytest.MonkeyPatch, wrong: State[None]
) -> None:
    in_a_run(monkeypatch, ["resume-auto"])
    with stay_running():
        server.away = True
        until(lambda: server.asked > 2)
        server.state, server.away = wrong, False
        until(lambda: server.told)
        seen = server.asked
        until(lambda: server.asked > seen + 2)
    assert [state.type for state in server.told] == ["RUNNING"]
    assert wrong.message in str(server.told[0].message)
    assert not [thread for thread in threading.enumerate() if thread.name == "stay running"]


def test_an_objection_is_no_beginning(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five outages of the server must not use up the attempts of a run that never died."""
    in_a_run(monkeypatch, ["resume-auto"])
    with stay_running():
        server.state = Crashed(message=message_of(zombie()))
        until(lambda: server.told)
    in_a_run(monkeypatch, [], run_count=3)
    assert times_begun() == 2
    server.away = True
    assert times_begun() == 3
    in_a_run(monkeypatch, [], run_count=1)
    assert times_begun() == 1


@pytest.mark.parametrize("stands", [Crashed(message="by hand"), Cancelled(), AwaitingRetry(), Running()])
def test_what_a_person_or_the_run_itself_said_stands(
    server: Server, monkeypatch: pytest.MonkeyPatch, stands: State[None]
) -> None:
    in_a_run(monkeypatch, ["resume-auto"])
    server.state = stands
    with stay_running():
        until(lambda: server.asked > 2)
    assert not server.told


def test_a_run_that_nothing_resumes_asks_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_run(monkeypatch, [])
    with stay_running():
        time.sleep(0.05)
    assert not server.asked


def test_a_run_that_was_cut_off_with_its_machine_is_called_dead() -> None:
    assert called_dead(AwaitingRetry(message=CUT_OFF))
    assert called_dead(AwaitingRetry(message=RESUMED))
    assert not called_dead(Running(message=CUT_OFF))


def test_where_the_automation_is_missing_or_switched_off_nothing_is_put_back(server: Server) -> None:
    assert crashed_runs(cast("SyncPrefectClient", server), 0) == []
    assert resume_crashed.fn() == 0
