"""The stack as ``reca up`` was asked for it: addresses, ports, database, and what each part gets as its environment.

Three parts: the Prefect server, the MLflow server, and one worker on the process pool. Everything about them lies in
``<home>/stack/``: ``stack.json`` (what was started, for ``status`` and ``down``), ``lock``, and one log per part.
Pure but for reading and writing ``stack.json``; processes are in stack_processes.py, the order of starting in
stack_up.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from deployments.auth import Credentials, read_credentials
from deployments.environment import Surroundings, variables
from deployments.stack_database import mlflow_database, prefect_database
from deployments.stack_users import user_settings
from reca_core.contracts.base import Record
from reca_core.contracts.files import atomic_write_text
from tasks.home import MLFLOW_DATABASE_VARIABLE

PartName = Literal["prefect", "mlflow", "worker"]
PARTS: tuple[PartName, ...] = ("prefect", "mlflow", "worker")
"""In the order of starting."""
POOL = "reca"
QUEUE = "re-evaluate"
LIMIT = "reca-accelerator"
HOME_MARK, PART_MARK = "RECA_STACK_HOME", "RECA_STACK_PART"
"""Variables that every process of a stack carries, its runs and their children too: by them ``down`` finds orphans."""
EVERYWHERE = ("0.0.0.0", "::", "")
"""Hosts to listen on that are no address to call."""

FOR_CLIENTS = ("MLFLOW_TRACKING_", "MLFLOW_REGISTRY_", "PREFECT_API_AUTH_STRING")
"""Settings of who calls a server; the MLflow server calls none."""

QUICK = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    "PREFECT_RUNNER_POLL_FREQUENCY": "3",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
}
"""A click on Run starts within seconds. MLflow's job runner and its seven processes of 240 MB stay away. Leases of
limits outlive the server: kept in memory (the default) a slot that was held when the server died is never free again.
Prefect forgets what ended more than 90 days ago: by default it keeps flow runs and their logs for ever.
"""


class PartRecord(Record):
    """A started process, told from a later one that got the same number by when it began."""

    pid: int
    began: float
    """Seconds since the epoch, as the kernel tells."""


class Stack(Record):
    """What ``reca up`` was asked for, and what it started so far."""

    home: str
    host: str
    prefect_port: int
    mlflow_port: int
    database: str = ""
    """``postgresql://user@host:port/`` without database and password; empty: sqlite below the home."""
    auth: str = ""
    """Absolute path of the file with user and password; empty: nobody is asked."""
    parts: dict[str, PartRecord] = {}

    @property
    def folder(self) -> Path:
        """State and logs."""
        return stack_folder(Path(self.home))

    @property
    def reach(self) -> str:
        """The host as processes of this machine call it."""
        return "127.0.0.1" if self.host in EVERYWHERE else self.host

    @property
    def prefect_ui(self) -> str:
        """Pages of Prefect."""
        return f"http://{self.reach}:{self.prefect_port}"

    @property
    def api(self) -> str:
        """API of Prefect."""
        return f"{self.prefect_ui}/api"

    @property
    def mlflow(self) -> str:
        """Pages and API of MLflow."""
        return f"http://{self.reach}:{self.mlflow_port}"

    def log(self, part: str) -> Path:
        """Output of one part, all starts one after another."""
        return self.folder / f"{part}.log"

    def credentials(self) -> Credentials | None:
        """User and password, read anew. Raises what ``read_credentials`` raises."""
        return read_credentials(Path(self.auth)) if self.auth else None

    def login(self) -> tuple[str, str] | None:
        """The same for HTTP basic authentication."""
        found = self.credentials()
        return found.pair if found else None

    def surroundings(self, chosen: Surroundings) -> Surroundings:
        """The same place, with this stack's servers."""
        found = (chosen.credentials if chosen.auth == self.auth else None) or self.credentials()
        return replace(chosen, prefect_url=self.api, mlflow_uri=self.mlflow, auth=self.auth, credentials=found)


def stack_folder(home: Path) -> Path:
    """``<home>/stack``."""
    return home / "stack"


def lock_file(home: Path) -> Path:
    """Held while ``up`` or ``down`` is at work."""
    return stack_folder(home) / "lock"


def _state(home: Path) -> Path:
    return stack_folder(home) / "stack.json"


def read_stack(home: Path) -> Stack | None:
    """The stack that was last started in this home, without parts once it is down; None where there was none.

    A file that cannot be read counts as none: ``down`` finds processes by their mark.
    """
    try:
        return Stack.model_validate_json(_state(home).read_text())
    except (FileNotFoundError, ValidationError):
        return None


def write_stack(stack: Stack) -> None:
    """Remember it; called after every start of a part, so that a crash in between leaves nothing unknown."""
    atomic_write_text(_state(Path(stack.home)), stack.model_dump_json(indent=2) + "\n")


def forget_parts(home: Path) -> None:
    """Nothing is started any more. Logs stay, and so does where the databases are: ``reca clean`` must know it."""
    stack = read_stack(home)
    if stack is not None:
        write_stack(stack.model_copy(update={"parts": {}}))
    lock_file(home).unlink(missing_ok=True)


def command(stack: Stack, part: PartName, worker_name: str, python: str) -> list[str]:
    """The command line of a part. It holds no address of a database: anyone on the machine can read it."""
    if part == "prefect":
        port = str(stack.prefect_port)
        return [python, "-m", "prefect", "server", "start", "--host", stack.host, "--port", port]
    if part == "mlflow":
        port = str(stack.mlflow_port)
        words = [python, "-m", "mlflow", "server", "--host", stack.host, "--port", port, "--workers", "1"]
        return words + (["--app-name", "basic-auth"] if stack.auth else [])
    return [python, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", worker_name]


def part_environment(
    stack: Stack, part: PartName, chosen: Surroundings, environment: Mapping[str, str]
) -> dict[str, str]:
    """Everything a part has in its environment. Pure."""
    mine = stack.surroundings(chosen)
    base = variables(mine, environment) | QUICK | {HOME_MARK: stack.home, PART_MARK: part, "PYTHONSAFEPATH": "1"}
    base["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = prefect_database(stack.database, mine.home)
    if stack.host in EVERYWHERE:
        base["PREFECT_SERVER_UI_API_URL"] = "/api"  # a browser elsewhere must not be sent to its own 127.0.0.1
    if mine.credentials and part == "prefect":
        base["PREFECT_SERVER_API_AUTH_STRING"] = base["PREFECT_API_AUTH_STRING"]
    if part == "worker":
        base[MLFLOW_DATABASE_VARIABLE] = mlflow_database(stack.database, mine.home)
    if part == "mlflow":
        base |= _mlflow_settings(stack, mine, environment)
        if mine.credentials:
            base |= user_settings(stack.folder, mine.credentials)
        base = {name: value for name, value in base.items() if not name.startswith(FOR_CLIENTS)}
    return base


def _mlflow_settings(stack: Stack, mine: Surroundings, environment: Mapping[str, str]) -> dict[str, str]:
    """With sqlite, artifacts are files that runs of this machine write themselves, so that a run without the stack can
    go on in the same experiment. With a database server, other machines write too, and go through MLflow.
    """
    artifacts = mine.home.mlflow / "artifacts"
    root = {} if stack.database else {"MLFLOW_DEFAULT_ARTIFACT_ROOT": artifacts.as_uri()}
    hosts = ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")
    return root | {name: environment[name] for name in hosts if name in environment} | {
        "MLFLOW_BACKEND_STORE_URI": mlflow_database(stack.database, mine.home),
        "MLFLOW_ARTIFACTS_DESTINATION": str(artifacts) + os.sep,
    }  # fmt: skip
