"""Recovery, the parts that need no server: the attempt cap, the strict limit, and what the automations listen for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.utils.request_utils import JitteredRetry
from prefect.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.automations import EventTrigger as ServerTrigger
from prefect.server.events.schemas.events import RelatedResource, Resource
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError

from deployments import recipes, stack_setup
from deployments.automations import (
    HEARTBEAT,
    HEARTBEAT_SECONDS,
    SILENCE_SECONDS,
    SILENCE_VARIABLE,
    automations,
    requeue,
    silence_seconds,
    unbegun,
    zombie,
)
from deployments.environment import START_VARIABLE
from deployments.stack import LIMIT, POOL, QUEUE
from deployments.stack_setup import DEPLOYMENTS, deploy
from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed
from tasks.accelerators import LIMIT_VARIABLE, accelerator
from tasks.policies import RUN_ATTEMPTS_VARIABLE, check_run_attempts
from tasks.resumption import RESUME_TAG

MLFLOW_OUTAGE_SECONDS = 120.0


def environments() -> list[dict[str, str]]:
    entries = yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]
    return [entry["work_pool"]["job_variables"]["env"] for entry in entries]


def test_a_run_that_crashed_too_often_fails_and_one_below_the_cap_goes_on() -> None:
    check_run_attempts(100, {})
    check_run_attempts(3, {RUN_ATTEMPTS_VARIABLE: "3"})
    with pytest.raises(StageFailed, match="begun 4 times"):
        check_run_attempts(4, {RUN_ATTEMPTS_VARIABLE: "3"})
    with pytest.raises(BadInput, match=RUN_ATTEMPTS_VARIABLE):
        check_run_attempts(1, {RUN_ATTEMPTS_VARIABLE: "often"})


def test_every_deployment_is_capped_limited_and_resumed() -> None:
    for environment in environments():
        assert int(environment[RUN_ATTEMPTS_VARIABLE]) > 1
        assert environment[LIMIT_VARIABLE] == LIMIT
    document = yaml.safe_load(DEPLOYMENTS.read_text())
    assert {entry["work_pool"]["name"] for entry in document["deployments"]} == {POOL}
    assert not [entry["entrypoint"] for entry in document["deployments"] if "concurrency_limit" in entry]
    tags = {entry["entrypoint"].rpartition(".")[2]: entry["tags"] for entry in document["deployments"]}
    assert tags.pop("poll_registry") == []  # the next look comes anyway
    assert all(given == [RESUME_TAG] for given in tags.values())
    assert QUEUE in [entry["work_pool"].get("work_queue_name") for entry in document["deployments"]]


def test_the_flow_of_every_recipe_is_deployed() -> None:
    """Else ``reca up`` ends where it copies that deployment."""
    entries = yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]
    deployed = {
        entry["entrypoint"].rpartition(".")[2].replace("_", "-") for entry in entries if entry["name"] == "reca"
    }
    assert {recipes.flow_of(name) for name in recipes.RECIPES} <= deployed


class Server:
    """A Prefect server's deployments, and what it remembers of how they were made."""

    def __init__(self) -> None:
        self.ids, self.remembered, self.deployed = ["a", "b"], None, 0

    def read_variable_by_name(self, name: str) -> Any:
        return SimpleNamespace(value=self.remembered) if self.remembered else None

    def read_deployments(self, work_pool_filter: Any) -> list[Any]:
        assert POOL in str(work_pool_filter)
        return [SimpleNamespace(id=one) for one in self.ids]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()

    @contextmanager
    def connected(**_: Any) -> Iterator[Server]:
        yield found

    def run(*_: Any, **__: Any) -> Any:
        found.deployed += 1
        return SimpleNamespace(returncode=0)

    def remember(name: str, value: Any, overwrite: bool) -> None:
        assert overwrite
        found.remembered = value

    monkeypatch.setattr(stack_setup, "get_client", connected)
    monkeypatch.setattr(stack_setup, "deploy_recipes", lambda _: None)
    monkeypatch.setattr(stack_setup, "subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))
    monkeypatch.setattr(stack_setup.Variable, "set", remember)
    return found


def test_deployments_of_this_very_code_are_not_made_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert deploy()
    assert not deploy()
    server.ids.append("of another project")
    assert not deploy()
    server.ids.remove("a")  # somebody deleted it
    assert deploy()
    monkeypatch.setattr(stack_setup.prefect, "__version__", "4.0")
    assert deploy()
    assert not deploy()
    assert server.deployed == 3


def test_deployments_that_take_too_long_are_said_with_what_gives_them_more_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_setup, "subprocess", subprocess)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv(START_VARIABLE, "1")  # importing Prefect takes longer
    with pytest.raises(PrerequisiteMissing, match="within 1 s") as caught:
        deploy()
    assert f"{START_VARIABLE}=2" in caught.value.remedy


def test_silence_is_at_least_three_heartbeats() -> None:
    for environment in environments():
        assert int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) == HEARTBEAT_SECONDS
    assert 3 * HEARTBEAT_SECONDS <= silence_seconds({}) == SILENCE_SECONDS


def test_another_time_of_silence_reaches_the_automation_and_one_below_a_heartbeat_is_refused() -> None:
    trigger = automations({SILENCE_VARIABLE: "240"})[0].trigger
    assert isinstance(trigger, EventTrigger)
    assert trigger.within.total_seconds() == 240
    for wrong in (str(HEARTBEAT_SECONDS), "0", "soon"):
        with pytest.raises(BadInput, match=SILENCE_VARIABLE):
            automations({SILENCE_VARIABLE: wrong})


def test_runs_that_rightly_send_no_heartbeat_are_not_called_dead() -> None:
    trigger = zombie().trigger
    assert isinstance(trigger, EventTrigger)
    assert trigger.after == {HEARTBEAT}
    for state in ("Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "Suspended", "Paused"):
        assert f"prefect.flow-run.{state}" in trigger.expect


def test_only_tagged_runs_are_put_back_in_the_queue() -> None:
    trigger = requeue().trigger
    assert isinstance(trigger, EventTrigger)
    assert f"prefect.tag.{RESUME_TAG}" in str(trigger.match_related)
    assert len({automation.name for automation in automations()}) == 3


def test_a_run_that_never_began_is_called_dead_where_a_process_worker_took_it() -> None:
    trigger = unbegun().trigger
    assert isinstance(trigger, EventTrigger)
    assert trigger.after == {"prefect.flow-run.Pending"}
    assert HEARTBEAT in trigger.expect
    assert not trigger.expect & {"prefect.flow-run.Submitting", "prefect.flow-run.Running"}
    pool = {"prefect.resource.id": "prefect.work-pool.1", "prefect.resource.role": "work-pool"}
    tag = {"prefect.resource.id": f"prefect.tag.{RESUME_TAG}", "prefect.resource.role": "tag"}
    run = Resource({"prefect.resource.id": "prefect.flow-run.1"})
    for kind, covered in (("process", True), ("kubernetes", False)):
        related = [RelatedResource(pool | {"prefect.work-pool.type": kind}), RelatedResource(tag)]
        assert ServerTrigger.model_validate(trigger.model_dump()).covers_resources(run, related) is covered


def test_without_a_named_limit_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # asking would fail
    with accelerator():
        entered = True
    assert entered


def test_the_mlflow_client_of_a_run_waits_longer_than_two_minutes_for_its_server() -> None:
    """With the settings that the deployments give it, which leave MLflow's own patience as it is."""
    for environment in environments():
        assert not [name for name in environment if name.startswith("MLFLOW_HTTP_")]
    waited, retry = (
        0.0,
        JitteredRetry(
            total=MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), backoff_factor=MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get()
        ),
    )
    with suppress(MaxRetryError):
        while True:
            retry = retry.increment("GET", "/", error=ConnectTimeoutError())
            waited += retry.get_backoff_time()
    assert waited > MLFLOW_OUTAGE_SECONDS
