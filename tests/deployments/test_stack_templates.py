"""The systemd unit and the compose file: they call what exists, pin what breaks, and bring no password of their own."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from deployments.arguments import build
from deployments.stack import QUICK
from deployments.stack_database import DATABASES

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "deployments/templates"


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(TEMPLATES / "reca.service")
    return parser


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((TEMPLATES / "compose.yaml").read_text())
    return found


def test_the_unit_stays_in_the_foreground_is_restarted_and_leaves_nothing_behind(
    unit: configparser.ConfigParser,
) -> None:
    service = unit["Service"]
    program, *words = service["ExecStart"].split()
    options = build().parse_args(words)
    assert program.endswith("/bin/reca")
    assert options.foreground
    stop = build().parse_args(service["ExecStopPost"].split()[1:])
    assert stop.target.endswith("down:stop")
    assert stop.home == options.home
    assert service["Restart"] == "always"
    assert service["KillMode"] == "mixed"


def test_the_servers_of_the_compose_file_have_a_database_each_with_the_driver_spelled_out(
    compose: dict[str, Any],
) -> None:
    prefect, mlflow = (compose["services"][name]["environment"] for name in ("prefect", "mlflow"))
    assert prefect["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == (
        f"postgresql+asyncpg://reca@database:5432/{DATABASES['prefect']}"
    )
    assert mlflow["MLFLOW_BACKEND_STORE_URI"] == f"postgresql+psycopg2://reca@database:5432/{DATABASES['mlflow']}"
    assert compose["services"]["database"]["environment"]["POSTGRES_DB"] == DATABASES["prefect"]
    assert DATABASES["mlflow"] in compose["configs"]["second_database"]["content"]


def test_the_compose_file_has_no_password_and_opens_no_port_to_others(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            assert "PASSWORD" not in name or value.startswith("${RECA_DATABASE_PASSWORD:?")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_compose_file_sets_what_reca_up_sets(compose: dict[str, Any]) -> None:
    environments = [service["environment"] for service in compose["services"].values()]
    together = {name: value for environment in environments for name, value in environment.items()}
    for name in ("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"):
        assert together[name] == QUICK[name]
    assert together["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert together["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "--workers 1" in compose["services"]["mlflow"]["command"]


def test_what_the_compose_file_installs_lies_in_the_tested_ranges(compose: dict[str, Any]) -> None:
    text = compose["x-server"]["build"]["dockerfile_inline"]
    pinned = {item.name: item for item in map(Requirement, text.split('"')[1::2])}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {item.name: item for item in map(Requirement, project["dependencies"])}
    for name in ("fastapi", "sqlalchemy"):
        assert pinned[name].specifier == ranges[name].specifier
    for name in ("prefect", "mlflow"):
        (exact,) = pinned[name].specifier
        assert exact.operator == "=="
        assert ranges[name].specifier.contains(exact.version)
