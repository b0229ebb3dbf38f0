"""MLflow's own users, where ``reca up --auth`` is on: its settings file, its first user, and a password that changed.

MLflow takes user and password from its environment only while it knows no such user. Afterwards the file may change and
MLflow would not notice: so the password is tried once it answers, and set in its database where it is refused. Prefect
needs none of this: it compares every call with what it was started with.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from deployments.auth import FIELD, Credentials
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.files import atomic_write_text

SETTINGS_FILE = "mlflow-users.ini"
LOGIN_SECONDS = 20.0
CHANGE_SECONDS = 120.0
KEY_BYTES = 32


def write_user_settings(folder: Path, database: str) -> None:
    """``<home>/stack/mlflow-users.ini``. Without a password: whoever is added later may read, as MLflow has it."""
    atomic_write_text(folder / SETTINGS_FILE, f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\n")


def user_settings(folder: Path, credentials: Credentials) -> dict[str, str]:
    """What the MLflow server has in its environment. The key signs one form of its pages, so it may be new each time.

    Args:
        folder: ``<home>/stack``.
    """
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / SETTINGS_FILE),
        "MLFLOW_AUTH_ADMIN_USERNAME": credentials.user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": credentials.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(KEY_BYTES),
    }


def login_status(mlflow: str, login: tuple[str, str] | None) -> int:
    """The HTTP status of a question that MLflow answers only to those it knows; 0 where there is no answer."""
    address = f"{mlflow.rstrip('/')}/api/2.0/mlflow/experiments/search"
    question = {"max_results": 1}
    try:
        return httpx.post(address, json=question, auth=login, timeout=LOGIN_SECONDS, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


def admit(mlflow: str, environment: Mapping[str, str], login: tuple[str, str] | None) -> bool:
    """Make sure that MLflow takes the password; True where it had to be changed.

    Args:
        environment: of the MLflow server.

    Raises PrerequisiteMissing where it is refused even then.
    """
    if login_status(mlflow, login) == httpx.codes.OK:
        return False
    words = [sys.executable, "-m", "tasks.tracking_users"]
    done = subprocess.run(
        words, env=dict(environment), capture_output=True, text=True, timeout=CHANGE_SECONDS, check=False
    )
    status = login_status(mlflow, login)
    if done.returncode != 0 or status != httpx.codes.OK:
        raise PrerequisiteMissing(
            f"MLflow does not take user and password (status {status}): {done.stderr.strip()[-1000:]}",
            field=FIELD,
            remedy="use the pair it was started with first",
        )
    return True
