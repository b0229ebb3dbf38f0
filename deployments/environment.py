"""Decides once, before anything heavy is imported, where a run lives and which servers it may talk to.

Prefect and MLflow read their settings from the environment, from ``.env``, ``prefect.toml`` and ``pyproject.toml`` of
the current directory and from profile files, and Prefect does so at import. So the command line calls ``enter`` first:
it drops every PREFECT_* and MLFLOW_* variable the shell carried, sets ours, and moves into the home directory, where no
such file lies. A server is used only when asked for by name: ``--prefect-url`` / RECA_PREFECT_API_URL and
``--mlflow-uri`` / RECA_MLFLOW_TRACKING_URI. Otherwise all state is in sqlite files below the home.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from deployments.auth import Credentials, chosen_file, read_credentials
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.home import DEFAULT_HOME, HOME_VARIABLE, Home

PREFECT_URL_VARIABLE = "RECA_PREFECT_API_URL"
MLFLOW_URI_VARIABLE = "RECA_MLFLOW_TRACKING_URI"
BENCHMARK_DATA_VARIABLE = "RECA_BENCHMARK_DATA"

START_VARIABLE = "RECA_SERVER_START_SECONDS"
"""How long a server may take to answer for the first time, where a machine is slower than usual."""

FOREIGN_PREFIXES = ("PREFECT_", "MLFLOW_")
"""Settings of other projects on this machine: none of them may decide where our runs are recorded."""
PREFECT_CREDENTIALS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_API_SSL_CERT_FILE")
MLFLOW_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
)

NOT_IN_A_DATABASE_ADDRESS = "?#%"
"""``?`` begins the options of a database address, ``#`` its fragment, ``%`` an interpolation in alembic's settings."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


@dataclass(frozen=True)
class Wishes:
    """What was typed; empty where nothing was."""

    home: str = ""
    prefect_url: str = ""
    mlflow_uri: str = ""
    benchmark_data: str = ""
    auth: str = ""


@dataclass(frozen=True)
class Surroundings:
    """Where this run lives."""

    home: Home
    prefect_url: str
    """API of the Prefect server that was asked for; empty: one is started for this run alone."""
    mlflow_uri: str
    """Tracking store: an address that was asked for, or sqlite below the home."""
    benchmark_data: str
    """Absolute folder with the benchmarks' own files; empty: rendered worlds only, or what the cache holds."""
    auth: str = ""
    """Absolute path of the file with user and password of the servers; empty: they do not ask."""
    credentials: Credentials | None = field(default=None, repr=False)
    """What that file holds."""

    @property
    def embedded(self) -> bool:
        """True if no Prefect server was asked for."""
        return not self.prefect_url


def decide(wishes: Wishes, environment: Mapping[str, str], here: Path) -> Surroundings:
    """Option, else variable, else default. Reads nothing but the auth file, where one is named.

    Raises BadInput for an address that cannot be one, and what ``read_credentials`` raises.
    """
    home = Home(_absolute(wishes.home or environment.get(HOME_VARIABLE) or DEFAULT_HOME, here))
    _check_home(home.root)
    prefect = wishes.prefect_url or environment.get(PREFECT_URL_VARIABLE, "")
    if prefect:
        _check_url(prefect, "--prefect-url", "http://127.0.0.1:4200/api")
    mlflow = wishes.mlflow_uri or environment.get(MLFLOW_URI_VARIABLE) or f"sqlite:///{home.mlflow / 'mlflow.db'}"
    data = wishes.benchmark_data or environment.get(BENCHMARK_DATA_VARIABLE, "")
    auth = chosen_file(wishes.auth, environment, here)
    return Surroundings(
        home,
        prefect,
        mlflow,
        str(_absolute(data, here)) if data else "",
        auth=str(auth or ""),
        credentials=read_credentials(auth) if auth else None,
    )


def _absolute(typed: str, here: Path) -> Path:
    return Path(os.path.abspath(here / Path(typed).expanduser()))


def _check_home(root: Path) -> None:
    found = [character for character in NOT_IN_A_DATABASE_ADDRESS if character in str(root)]
    if found:
        raise BadInput(
            f"{str(root)!r} contains {' '.join(found)}, which an sqlite address cannot carry",
            field="--home",
            remedy="choose another directory: reca --home DIR ...",
        )


def _check_url(url: str, field: str, example: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadInput(f"{url!r} is not an http address", field=field, remedy=f"give an address such as {example}")


def variables(chosen: Surroundings, environment: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the run: the shell's, without foreign settings, with ours. Pure."""
    kept = {name: value for name, value in environment.items() if not name.startswith(FOREIGN_PREFIXES)}
    if not chosen.embedded:
        kept |= {name: environment[name] for name in PREFECT_CREDENTIALS if name in environment}
        kept["PREFECT_API_URL"] = chosen.prefect_url
    if chosen.mlflow_uri.startswith("http"):
        kept |= {name: environment[name] for name in MLFLOW_CREDENTIALS if name in environment}
    return kept | _login(chosen) | NO_TELEMETRY | QUIET | _ours(chosen)


def _login(chosen: Surroundings) -> dict[str, str]:
    """User and password, each only where its server is one that was named."""
    if chosen.credentials is None:
        return {}
    named = {"PREFECT_": not chosen.embedded, "MLFLOW_": chosen.mlflow_uri.startswith("http")}
    everything = chosen.credentials.for_clients().items()
    return {
        name: value for name, value in everything if any(named[prefix] and name.startswith(prefix) for prefix in named)
    }


def _ours(chosen: Surroundings) -> dict[str, str]:
    prefect_home = chosen.home.prefect
    return {
        **({"PREFECT_SERVER_UI_ENABLED": "false"} if chosen.embedded else {}),
        HOME_VARIABLE: str(chosen.home.root),
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_PROFILES_PATH": str(prefect_home / "profiles.toml"),
        "PREFECT_LOCAL_STORAGE_PATH": str(prefect_home / "storage"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{prefect_home / 'prefect.db'}",
        **({BENCHMARK_DATA_VARIABLE: chosen.benchmark_data} if chosen.benchmark_data else {}),
        "MLFLOW_TRACKING_URI": chosen.mlflow_uri,
        "MLFLOW_REGISTRY_URI": chosen.mlflow_uri,
    }


def enter(chosen: Surroundings) -> None:
    """Make the environment so and move into the home. Call before prefect, mlflow or a flow is imported.

    Raises PrerequisiteMissing if the home cannot be made or written.
    """
    try:
        chosen.home.prefect.mkdir(parents=True, exist_ok=True)
        chosen.home.mlflow.mkdir(parents=True, exist_ok=True)
        os.chdir(chosen.home.root)
    except OSError as error:
        raise PrerequisiteMissing(
            f"the home {chosen.home.root} cannot be used: {error.strerror}",
            field="--home",
            remedy="choose a directory you may write: reca --home DIR ...",
        ) from error
    complete = variables(chosen, os.environ)
    for name in set(os.environ) - set(complete):
        del os.environ[name]
    os.environ.update(complete)
