"""The home directory of this process: ``RECA_HOME``, set by the command line or by the deployment, always absolute."""

from __future__ import annotations

import os
from pathlib import Path

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.home import HOME_VARIABLE, Home

BENCHMARK_DATA_VARIABLE = "RECA_BENCHMARK_DATA"
MLFLOW_DATABASE_VARIABLE = "RECA_MLFLOW_DATABASE"
"""Where MLflow keeps its rows, without a password; set by ``reca up`` for the worker beside the server."""
FETCHED = "benchmark_data"
"""Where ``reca fetch`` puts them, inside the cache."""


def current_home() -> Home:
    """The home that ``RECA_HOME`` names. Raises PrerequisiteMissing where it is unset or relative."""
    value = os.environ.get(HOME_VARIABLE, "")
    if not os.path.isabs(value):
        raise PrerequisiteMissing(
            f"{value!r} is not an absolute directory" if value else "is not set",
            field=HOME_VARIABLE,
            remedy=f"export {HOME_VARIABLE}=/absolute/directory, or start flows with: reca run FLOW --home DIR",
        )
    return Home(Path(value))


def benchmark_data() -> Path | None:
    """The folder with the benchmarks' own files: the one that is named, or what was fetched; rendered worlds need none.

    Raises BadInput for a relative one.
    """
    value = os.environ.get(BENCHMARK_DATA_VARIABLE, "")
    if value and not os.path.isabs(value):
        raise BadInput(f"{value!r} is not an absolute directory", field=BENCHMARK_DATA_VARIABLE)
    fetched = current_home().cache / FETCHED
    return Path(value) if value else fetched if fetched.is_dir() else None
