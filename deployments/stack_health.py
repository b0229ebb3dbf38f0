"""Whether each part of a stack answers: the one question behind ``reca status`` and the waiting of ``reca up``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deployments.stack import PARTS, POOL, PartName, Stack, read_stack
from deployments.stack_processes import find, worker_name
from reca_core.contracts.errors import RecaError

ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class PartHealth:
    """One line of ``reca status``."""

    part: PartName
    answers: bool
    fact: str
    """Where it is, or what is wrong."""
    pid: int | None = None
    """Of the process that was started; None where it is gone."""


def health(home: Path) -> list[PartHealth]:
    """Every part, also of a stack that was never started."""
    stack = read_stack(home)
    return [part_health(stack, part) for part in PARTS]


def part_health(stack: Stack | None, part: PartName) -> PartHealth:
    """One part: is its process there, and does it answer?"""
    process = find(stack.parts.get(part)) if stack else None
    if stack is None or part not in stack.parts:
        return PartHealth(part, False, "not started")
    if process is None:
        return PartHealth(part, False, f"its process is gone; {stack.log(part)} says why")
    fault = _worker_fault(stack) if part == "worker" else _server_fault(stack, part)
    address = {"prefect": stack.prefect_ui, "mlflow": stack.mlflow, "worker": f"{worker_name()} on pool {POOL}"}[part]
    return PartHealth(part, not fault, fault or address, process.pid)


def _server_fault(stack: Stack, part: PartName) -> str:
    address = f"{stack.api}/health" if part == "prefect" else f"{stack.mlflow}/health"
    try:
        httpx.get(address, timeout=ANSWER_SECONDS, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        return f"{address} does not answer: {error}"
    return ""


def _worker_fault(stack: Stack) -> str:
    """A worker has no address; it tells the server every 30 s that it is there."""
    address = f"{stack.api}/work_pools/{POOL}/workers/filter"
    try:
        reply = httpx.post(address, json={}, timeout=ANSWER_SECONDS, trust_env=False, auth=stack.login())
        reply.raise_for_status()
    except RecaError as error:
        return f"the Prefect server cannot be asked about it: {error.fact}"
    except httpx.HTTPError as error:
        return f"the Prefect server cannot be asked about it: {error}"
    workers: list[dict[str, Any]] = reply.json()
    mine = [worker for worker in workers if worker["name"] == worker_name()]
    if not mine:
        return "it has not reported to the Prefect server yet"
    return "" if mine[0]["status"] == "ONLINE" else f"the server calls it {mine[0]['status'].lower()}"
