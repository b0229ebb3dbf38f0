"""What a fresh Prefect server lacks: the pool, its queue, the strict limit, the automations and the deployments.

Everything may be done again on a server that has it. Also brings back runs that a crash of this machine left RUNNING.
Import it only after ``environment.enter``: Prefect reads its settings at import.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import prefect
import psutil
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import AwaitingRetry, Cancelled, State
from prefect.variables import Variable
from prefect.workers.process import ProcessWorker

from deployments.automations import automations
from deployments.embedded import late_remedy
from deployments.environment import START_VARIABLE
from deployments.stack import LIMIT, POOL, QUEUE
from deployments.stack_names import NAMES
from deployments.stack_notifications import notifications, remove_webhook, save_webhook, webhook_address
from deployments.stack_processes import worker_name
from deployments.stack_recipes import deploy_recipes
from reca_core.contracts.errors import PrerequisiteMissing, StageFailed
from reca_core.contracts.variables import whole_number
from tasks.resumption import CUT_OFF, OBJECTION_SECONDS, crashed_runs, put_back

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
QUEUE_PRIORITY = 10
"""Lower numbers go first; the default queue has 1, so training wins over re-evaluation."""
AT_ONCE = 1
"""Runs that hold the accelerators of a machine at the same time."""
DEPLOY_SECONDS = 180
"""For all deployments together; RECA_SERVER_START_SECONDS is another time."""
DEPLOYED = "reca_deployed"
"""A variable of the server: the deployments that were made, and of which state of this project."""
PACKAGES = ("deployments", "flows", "tasks", "evaluation", "reca_core")
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
"""Prefect tells a flow process so which run it is."""
UNFINISHED = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


def furnish() -> None:
    """Make pool, queue, limit and automations as they should be."""
    with get_client(sync_client=True) as client:
        _pool(client)
        with suppress(ObjectAlreadyExists):  # as with the pool
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=AT_ONCE))
        _automations(client, automations())


def notify() -> bool:
    """Failures, drift and promotions go to the webhook of the Secret block; False where there is no such block.

    The address may have changed, so the block that the automations call is written again every time.
    """
    with get_client(sync_client=True) as client:
        address = webhook_address()
        if address:
            _automations(client, notifications(save_webhook(address)))
        else:
            _forget(client)
        return bool(address)


def _forget(client: SyncPrefectClient) -> None:
    """The address was taken away: nobody is told any more."""
    for name in NAMES:
        for found in client.read_automations_by_name(name):
            if found.id is not None:
                client.delete_automation(found.id)
    remove_webhook()


def _pool(client: SyncPrefectClient) -> None:
    template = ProcessWorker.get_default_base_job_template()
    wanted = WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=AT_ONCE)
    with suppress(ObjectAlreadyExists):  # a limit that a person has set since is theirs
        client.create_work_pool(wanted)
    with suppress(ObjectAlreadyExists):
        client.create_work_queue(QUEUE, priority=QUEUE_PRIORITY, work_pool_name=POOL)


def _automations(client: SyncPrefectClient, wanted_ones: Sequence[Automation]) -> None:
    """Create what is missing; update what an earlier version of the project wrote, on or off as it was left.

    What is as it should be is not touched: an update would forget which runs are being listened for.
    """
    for wanted in wanted_ones:
        found = client.read_automations_by_name(wanted.name)
        if not found:
            client.create_automation(AutomationCore(**_plain(wanted)))
        elif _plain(found[0]) != _plain(wanted) | {"enabled": found[0].enabled} and found[0].id is not None:
            client.update_automation(found[0].id, AutomationCore(**_plain(wanted) | {"enabled": found[0].enabled}))


def _plain(automation: Automation | AutomationCore) -> dict[str, Any]:
    return automation.model_dump(exclude={"id": True, "owner_resource": True, "trigger": {"id"}})


def deploy() -> bool:
    """Create or update all deployments, the recipes too; False where the server has all of them from this very code.

    What a person changed in the UI stays until the project is upgraded. Raises StageFailed with what Prefect said,
    PrerequisiteMissing where that takes too long.
    """
    code = code_digest()
    with get_client(sync_client=True) as client:
        known = client.read_variable_by_name(DEPLOYED)
        made = known.value if known is not None and isinstance(known.value, dict) else {}
        if made.get("code") == code and set(made["deployments"]) <= _deployment_ids(client):
            return False
    words = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
    seconds = whole_number(START_VARIABLE, DEPLOY_SECONDS, os.environ)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise PrerequisiteMissing(
            f"the deployments were not made within {seconds} s", field="prefect.yaml", remedy=late_remedy(seconds)
        ) from error
    if done.returncode != 0:
        raise StageFailed(f"the deployments were refused: {(done.stdout + done.stderr)[-2000:]}", field="prefect.yaml")
    with get_client(sync_client=True) as client:
        deploy_recipes(client)
        value = {"code": code, "deployments": sorted(_deployment_ids(client))}
    Variable.set(DEPLOYED, value, overwrite=True)
    return True


def code_digest() -> str:
    """Of everything that decides what a deployment is: this project's code and settings, and Prefect's release."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256(prefect.__version__.encode())
    for file in sorted(file for package in PACKAGES for file in (root / package).rglob("*")):
        if file.suffix in (".py", ".yaml", ".json"):
            digest.update(f"\0{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _deployment_ids(client: SyncPrefectClient) -> set[str]:
    pool = WorkPoolFilter.model_validate({"name": {"any_": [POOL]}})
    return {str(found.id) for found in client.read_deployments(work_pool_filter=pool)}


def recover() -> list[str]:
    """Put runs that died with this machine back in the queue; returns their names.

    Not by way of the automations: a server that has just started misses events (tasks/resumption.py).
    A run is dead for certain if no other machine works for the pool and no process here works on it. Where there are
    other machines, silence decides (deployments/automations.py). What silence has decided already, perhaps in the first
    second of a server that heard nobody while it was away, is put back too, unless the run says that it lives.
    """
    with get_client(sync_client=True) as client:
        alive = working_on()
        dead = [] if _other_workers(client) else [run for run in unfinished(client) if str(run.id) not in alive]
        for run in dead:
            cancelled = run.state_type == StateType.CANCELLING
            state: State[None] = Cancelled(message=CUT_OFF) if cancelled else AwaitingRetry(message=CUT_OFF)
            client.set_flow_run_state(run.id, state, force=True)
        if crashed_runs(client, 0):
            time.sleep(OBJECTION_SECONDS)
        crashed = [run for run in crashed_runs(client, OBJECTION_SECONDS) if str(run.id) not in alive]
        put_back(client, crashed)
        return [run.name for run in (*dead, *crashed)]


def _other_workers(client: SyncPrefectClient) -> bool:
    workers = client.read_workers_for_work_pool(POOL)
    return any(worker.status == WorkerStatus.ONLINE and worker.name != worker_name() for worker in workers)


def unfinished(client: SyncPrefectClient) -> Sequence[FlowRun]:
    """Runs of the pool that should have a process."""
    states = FlowRunFilter.model_validate({"state": {"type": {"any_": list(UNFINISHED)}}})
    pool = WorkPoolFilter.model_validate({"name": {"any_": [POOL]}})
    return client.read_flow_runs(flow_run_filter=states, work_pool_filter=pool)


def working_on() -> set[str]:
    """Ids of the flow runs that a process of this machine works on."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            if process.pid != os.getpid():
                found.add(process.environ().get(RUN_VARIABLE, ""))
    return found - {""}


if __name__ == "__main__":  # a server that reca up did not start: PREFECT_API_URL names it
    furnish()
    notify()
    deploy()
