"""``reca doctor``: one finding per thing that can be wrong, each with its remedy. Looks, and changes nothing.

Every check is a function that returns findings; a finding without a fault says what was found. The two version bounds
that matter most are those whose breach shows nowhere (docs/decisions/0002-pins.md).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import psutil
from packaging.requirements import Requirement

from deployments.environment import Surroundings
from deployments.stack import POOL, Stack, read_stack
from deployments.stack_health import ANSWER_SECONDS, health
from deployments.stack_names import NAMES, WEBHOOK_BLOCK
from deployments.stack_processes import marked
from reca_core.contracts.errors import RecaError
from reca_core.contracts.home import HOME_VARIABLE

DISTRIBUTION = "reca-pipeline"
GIGABYTE = 1 << 30
LEAST_FREE_GIGABYTES = 10
"""A checkpoint of a published model has up to 30 GB, one of a tiny model a few MB."""
STAGES = ("reca_core.launch", "evaluation.launch")
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
ACTIVE = ("RUNNING", "CANCELLING")
KEYS = {
    "OPENAI_API_KEY": "judges at an OpenAI-compatible address",
    "HF_TOKEN": "gated models of the hub",
}
PRIVATE = 0o077
"""Rights that nobody else may have on a file with a password."""
SMI_SECONDS = 20


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    fact: str
    remedy: str = ""
    """What to do; empty where nothing is wrong."""


def examine(chosen: Surroundings, environment: Mapping[str, str]) -> list[Finding]:
    """Everything, in the order in which it should be mended."""
    home = chosen.home.root
    stack = read_stack(home)
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: versions(metadata.requires(DISTRIBUTION) or []),
        lambda: servers(home, stack),
        lambda: schedules(stack),
        lambda: notifications(stack),
        lambda: stale_runs(stack),
        lambda: orphans(home, stack),
        lambda: disk(home),
        accelerators,
        lambda: cache(chosen.home.cache),
        lambda: credentials(environment),
    ]
    return [finding for check in checks for finding in check()]


def versions(requirements: list[str]) -> Iterator[Finding]:
    """Installed packages against the tested ranges."""
    wanted = [Requirement(line) for line in requirements]
    wanted = [item for item in wanted if item.marker is None or item.marker.evaluate({"extra": ""})]
    remedy, wrong = "pip install -r requirements.lock", False
    for item in wanted:
        fault = _version_fault(item)
        if fault:
            wrong = True
            yield Finding("versions", fault, remedy)
    if not wrong:
        yield Finding("versions", f"all {len(wanted)} packages are in their tested ranges")


def _version_fault(item: Requirement) -> str:
    try:
        found = metadata.version(item.name)
    except metadata.PackageNotFoundError:
        return f"{item.name} is not installed"
    return "" if item.specifier.contains(found, prereleases=True) else f"{item.name} {found} is not {item.specifier}"


def servers(home: Path, stack: Stack | None) -> Iterator[Finding]:
    """Every part of a stack that was started."""
    if stack is None or not stack.parts:
        yield Finding("servers", "no stack is started in this home; runs of the command line need none")
        return
    for part in health(home):
        remedy = "" if part.answers else f"reca up (it resumes what was cut off); {stack.log(part.part)} says why"
        yield Finding("servers", f"{part.part}: {part.fact}", remedy)


def _ask(stack: Stack | None, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """What the Prefect server says; None where there is none to ask (``servers`` reports that)."""
    if stack is None or not stack.parts:
        return None
    try:
        address = f"{stack.api}{path}"
        reply = httpx.post(address, json=body, timeout=ANSWER_SECONDS, trust_env=False, auth=stack.login())
        reply.raise_for_status()
    except (httpx.HTTPError, RecaError):
        return None
    found: list[dict[str, Any]] = reply.json()
    return found


def schedules(stack: Stack | None) -> Iterator[Finding]:
    """A schedule that is shown as active and creates nothing: the scheduler fails in silence with SQLAlchemy 2.1."""
    for deployment in _ask(stack, "/deployments/filter", {}) or []:
        active = [item for item in deployment["schedules"] if item["active"]]
        if not active or deployment["paused"]:
            continue
        query = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        coming = _ask(stack, "/flow_runs/filter", query | {"limit": 1})
        name = f"{len(active)} schedules of {deployment['entrypoint'].rpartition('.')[2]}"
        if coming is not None and not coming:
            yield Finding(
                "schedules",
                f"{name} created no run",
                "a server that just started needs a minute; else: pip install 'sqlalchemy<2.1' and reca down; reca up",
            )
        else:
            yield Finding("schedules", f"{name} create runs")


def notifications(stack: Stack | None) -> Iterator[Finding]:
    """Whether anybody hears of failures: the Secret block with the address, and the automations that use it."""
    blocks = _ask(stack, "/block_documents/filter", {"block_documents": {"name": {"any_": [WEBHOOK_BLOCK]}}})
    made = _ask(stack, "/automations/filter", {})
    if blocks is None or made is None:
        return
    secret = [block for block in blocks if block["block_type"]["slug"] == "secret"]
    there = {automation["name"] for automation in made if automation["enabled"]} & set(NAMES)
    if not secret:
        yield Finding("webhook", f"failures are told to nobody: there is no Secret block {WEBHOOK_BLOCK}")
    elif len(there) < len(NAMES):
        missing = ", ".join(sorted(set(NAMES) - there))
        yield Finding("webhook", f"missing or switched off: {missing}", "reca up, or switch them on in the UI")
    else:
        yield Finding("webhook", f"failures, drift and promotions go to the address in {WEBHOOK_BLOCK}")


def stale_runs(stack: Stack | None) -> Iterator[Finding]:
    """Runs that the server calls running and no process of this machine works on."""
    query = {"work_pools": {"name": {"any_": [POOL]}}, "flow_runs": {"state": {"type": {"any_": list(ACTIVE)}}}}
    runs = _ask(stack, "/flow_runs/filter", query)
    if runs is None:
        return
    alive = {environment.get(RUN_VARIABLE, "") for _, environment in _environments()}
    stale = [run for run in runs if run["id"] not in alive]
    for run in stale:
        yield Finding(
            "runs",
            f"{run['name']} is {run['state_name']} and no process here works on it",
            "if no other machine does: wait 90 s for the automation, or reca down; reca up",
        )
    yield Finding("runs", f"{len(runs) - len(stale)} are going on here")


def _environments() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            yield process, process.environ()


def orphans(home: Path, stack: Stack | None) -> Iterator[Finding]:
    """Processes of this home that nobody waits for."""
    found = False
    if (stack is None or not stack.parts) and (left := marked(home)):
        found = True
        yield Finding("orphans", f"{len(left)} processes of a stack that is not started any more", "reca down")
    for process, environment in _environments():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = " ".join(process.cmdline())
            ours = environment.get(HOME_VARIABLE) == str(home) and any(stage in words for stage in STAGES)
            if ours and process.ppid() == 1:
                found = True
                yield Finding("orphans", f"process {process.pid} lost its parent: {words[:80]}", f"kill {process.pid}")
    if not found:
        yield Finding("orphans", "none")


def disk(home: Path) -> Iterator[Finding]:
    """Room for the next checkpoint."""
    place = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(place).free / GIGABYTE
    low = free < LEAST_FREE_GIGABYTES
    yield Finding("disk", f"{free:.1f} GB free at {place}", "reca clean --dry-run, then reca clean" if low else "")
    if not os.access(place, os.W_OK):
        yield Finding("disk", f"{place} cannot be written", "choose another home: --home or RECA_HOME")


def accelerators() -> Iterator[Finding]:
    """What the NVIDIA driver says; no device is no fault, the tiny models need none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Finding("gpu", "no NVIDIA driver: runs use the CPU")
        return
    query = [program, "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        yield Finding("gpu", f"nvidia-smi does not answer within {SMI_SECONDS} s", "restart the driver or the machine")
        return
    if done.returncode != 0:
        yield Finding("gpu", (done.stdout + done.stderr).strip()[:200], "reinstall the driver, or run on the CPU")
        return
    yield from (Finding("gpu", f"{line}") for line in done.stdout.strip().splitlines())


def cache(folder: Path) -> Iterator[Finding]:
    """How much the cache holds; all of it may be deleted."""
    held = sum(entry.lstat().st_size for entry in folder.rglob("*") if not entry.is_dir()) if folder.is_dir() else 0
    usable = not folder.exists() or os.access(folder, os.W_OK)
    remedy = "" if usable else f"chown or delete {folder}: it is only a cache"
    yield Finding("cache", f"{held / GIGABYTE:.2f} GB in {folder}", remedy)


def credentials(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Which keys are there, never what they are, and whether files with passwords are private."""
    for name, purpose in KEYS.items():
        yield Finding("credentials", f"{name} is {'set' if environment.get(name) else 'not set'} ({purpose})")
    named = environment.get("PGPASSFILE", "")
    files = [Path(named)] if named else [Path.home() / ".pgpass"]
    for file in files:
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & PRIVATE:
            yield Finding("credentials", f"{file} can be read by others; PostgreSQL ignores it", f"chmod 600 {file}")
        if named and not file.exists():
            yield Finding("credentials", f"PGPASSFILE names {file}, which does not exist", "create it, or unset it")
