"""``python -m deployments.submit [--nodes N ...] | sbatch``: the Slurm script that puts a worker into an allocation.

Only renders deployments/templates/slurm.sbatch.jinja. Every value is checked first: it ends up in a shell script, so
nothing but plain names, paths and addresses is let through.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field, ValidationError

from reca_core.contracts.base import Config
from reca_core.contracts.errors import EXIT_DONE, BadInput, RecaError

TEMPLATES = Path(__file__).with_name("templates")
SLURM = "slurm.sbatch.jinja"
PATH = r"^/[A-Za-z0-9_./+-]+$"
NAME = r"^[A-Za-z0-9_.-]*$"
ADDRESS = r"^https?://[A-Za-z0-9_.:/\[\]-]+$"


class SlurmJob(Config):
    """One allocation."""

    home: str = Field(pattern=PATH)
    """Absolute home on a disk that all nodes share."""
    environment: str = Field(pattern=PATH)
    """Absolute virtual environment with the project, on the same disk."""
    prefect_url: str = Field(pattern=ADDRESS)
    """API of the Prefect server, without a password."""
    mlflow_uri: str = Field(pattern=ADDRESS)
    """Address of the MLflow server, without a password."""
    auth: str = Field("", pattern=rf"^$|{PATH}")
    """Absolute file user:password of the servers, mode 0600; empty where they do not ask."""
    nodes: int = Field(1, ge=1, le=1024)
    """Machines."""
    gpus_per_node: int = Field(8, ge=0, le=64)
    """GPUs of each."""
    cores_per_node: int = Field(32, ge=1, le=1024)
    """Cores of each."""
    hours: int = Field(24, ge=1, le=1000)
    """Longest run; what is cut off goes on in the next allocation."""
    partition: str = Field("", pattern=NAME)
    """Partition; empty: the default one."""
    account: str = Field("", pattern=NAME)
    """Account that pays; empty: the default one."""
    ray_port: int = Field(6379, ge=1024, le=65535)
    """Where the nodes meet."""
    ray_wait_seconds: int = Field(20, ge=1, le=600)
    """Between the first node's start and the others'."""


def slurm_script(job: SlurmJob) -> str:
    """The script. Pure."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(SLURM).render(job=job)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the script to standard output; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deployments.submit", description=SlurmJob.__doc__)
    for name, field in SlurmJob.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, default=None, required=field.is_required(), help=field.description)
    typed = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    try:
        sys.stdout.write(slurm_script(_job(typed)))
    except RecaError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return EXIT_DONE


def _job(typed: dict[str, str]) -> SlurmJob:
    try:
        return SlurmJob.model_validate(typed)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise BadInput(f"{first['input']!r} cannot be used: {first['msg']}", field=option) from error


if __name__ == "__main__":
    sys.exit(main())
