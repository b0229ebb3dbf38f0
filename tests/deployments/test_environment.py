"""Where a run lives is decided by us alone: no variable, profile or settings file of the user's reaches it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.environment import Wishes, decide, variables
from reca_core.contracts.errors import BadInput

HOSTILE = {
    "PREFECT_API_URL": "http://user.example:4200/api",
    "PREFECT_API_KEY": "pnu_secret",
    "PREFECT_PROFILE": "mine",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://user.example/prefect",
    "PREFECT_TEST_MODE": "1",
    "MLFLOW_TRACKING_URI": "http://user.example:5000",
    "MLFLOW_REGISTRY_URI": "databricks",
    "MLFLOW_EXPERIMENT_NAME": "theirs",
    "MLFLOW_RUN_ID": "abc",
}

PROBE = """
import json, os, sys
from pathlib import Path
from deployments.environment import Wishes, decide, enter
enter(decide(Wishes(), os.environ, Path.cwd()))
from prefect.settings import get_current_settings
settings = get_current_settings()
import mlflow
print(json.dumps({
    "url": settings.api.url, "key": str(settings.api.key), "home": str(settings.home),
    "profiles": str(settings.profiles_path), "analytics": settings.server.analytics_enabled,
    "database": settings.server.database.connection_url.get_secret_value(),
    "mlflow": mlflow.get_tracking_uri(), "registry": mlflow.get_registry_uri(),
    "left": sorted(name for name in os.environ if "user.example" in os.environ[name]),
}))
"""


def test_hostile_variables_profiles_and_settings_files_are_not_followed(tmp_path: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    profiles = user / "profiles.toml"
    profiles.write_text('active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://user.example/profile"\n')
    (user / "prefect.toml").write_text('[api]\nurl = "http://user.example/toml"\n')
    (user / ".env").write_text("PREFECT_API_URL=http://user.example/dotenv\n")
    (user / "pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://user.example/pyproject"\n')
    environment = os.environ | HOSTILE | {"PREFECT_PROFILES_PATH": str(profiles), "RECA_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=user, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(result.stdout)
    home = tmp_path / "home"
    assert found["url"] is None
    assert found["key"] == "None"
    assert found["analytics"] is False
    assert found["left"] == []
    assert found["database"] == f"sqlite+aiosqlite:///{home}/prefect/prefect.db"
    assert found["mlflow"] == found["registry"] == f"sqlite:///{home}/mlflow/mlflow.db"
    assert Path(found["home"]) == home / "prefect"
    assert Path(found["profiles"]).is_relative_to(home)
    assert sorted(path.name for path in user.iterdir()) == [".env", "prefect.toml", "profiles.toml", "pyproject.toml"]


def test_option_wins_over_variable_wins_over_the_current_directory(tmp_path: Path) -> None:
    environment = {"RECA_HOME": "/from/variable"}
    assert decide(Wishes("typed"), environment, tmp_path).home.root == tmp_path / "typed"
    assert decide(Wishes(), environment, tmp_path).home.root == Path("/from/variable")
    assert decide(Wishes(), {}, tmp_path).home.root == tmp_path / "reca-home"


def test_folders_are_made_absolute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    chosen = decide(Wishes("~/x"), {"RECA_BENCHMARK_DATA": "../data"}, tmp_path)
    assert chosen.home.root == Path("/home/somebody/x")
    assert variables(chosen, {})["RECA_BENCHMARK_DATA"] == str(tmp_path.parent / "data")


def test_a_server_is_used_only_when_asked_for_by_our_own_name(tmp_path: Path) -> None:
    assert decide(Wishes(), HOSTILE, tmp_path).embedded
    ours = HOSTILE | {
        "RECA_PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "RECA_MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    }
    chosen = decide(Wishes(), ours, tmp_path)
    kept = variables(chosen, ours)
    assert kept["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert kept["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert kept["PREFECT_API_KEY"] == "pnu_secret"
    assert "MLFLOW_EXPERIMENT_NAME" not in kept


def test_credentials_do_not_travel_to_the_embedded_store(tmp_path: Path) -> None:
    assert "PREFECT_API_KEY" not in variables(decide(Wishes(), HOSTILE, tmp_path), HOSTILE)


def test_telemetry_is_off(tmp_path: Path) -> None:
    kept = variables(decide(Wishes(), {}, tmp_path), {})
    assert kept["DO_NOT_TRACK"] == "1"
    assert kept["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert kept["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize("home", ["what?", "a#b", "100%"])
def test_a_home_that_no_database_address_can_hold_is_refused(tmp_path: Path, home: str) -> None:
    with pytest.raises(BadInput, match="--home"):
        decide(Wishes(home), {}, tmp_path)


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--prefect-url"):
        decide(Wishes(prefect_url="localhost:4200"), {}, tmp_path)
