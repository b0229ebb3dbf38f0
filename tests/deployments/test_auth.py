"""The password file: who may read it, what it may hold, where its content goes and where it never goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.auth import AUTH_VARIABLE, Credentials, read_credentials
from deployments.cli import main
from deployments.environment import Wishes, decide, variables
from deployments.stack import Stack, command, part_environment
from deployments.stack_users import write_user_settings
from reca_core.contracts.errors import BadInput, PrerequisiteMissing

PASSWORD = "only-in-this-file"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "auth"
    path.write_text(f"anna:{PASSWORD}\n")
    path.chmod(0o600)
    return path


def test_user_and_password_are_read_and_never_shown(file: Path) -> None:
    found = read_credentials(file)
    assert found.pair == ("anna", PASSWORD)
    assert PASSWORD not in repr(found)
    chosen = decide(Wishes(home=str(file.parent / "home"), auth=str(file)), {}, file.parent)
    assert PASSWORD not in repr(chosen)


def test_a_colon_belongs_to_the_password(file: Path) -> None:
    file.write_text("anna:with:colons:in:it")
    assert read_credentials(file).pair == ("anna", "with:colons:in:it")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(PrerequisiteMissing, match=f"chmod 600 {file}"):
        read_credentials(file)


@pytest.mark.parametrize(
    "text", ["", "anna", f":{PASSWORD}", "anna:short", f"anna:{PASSWORD}\nbert:{PASSWORD}", f"annä:{PASSWORD}"]
)
def test_what_is_no_pair_is_refused_without_repeating_it(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(BadInput) as refused:
        read_credentials(file)
    assert PASSWORD not in str(refused.value)
    assert "short" not in str(refused.value).replace(str(file), "")


def test_reca_up_with_a_file_that_is_not_there_or_not_private_starts_nothing(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert main(["up", "--home", str(home), "--auth", str(tmp_path / "none")]) == 3
    file.chmod(0o644)
    assert main(["up", "--home", str(home), "--auth", str(file)]) == 3
    assert "chmod 600" in capsys.readouterr().err
    assert not home.exists()


def test_the_password_goes_into_environments_and_into_no_command_line_or_settings_file(file: Path) -> None:
    home = file.parent / "home"
    chosen = decide(Wishes(home=str(home)), {AUTH_VARIABLE: str(file)}, file.parent)
    stack = Stack(home=str(home), host="127.0.0.1", prefect_port=1, mlflow_port=2, auth=chosen.auth)
    assert PASSWORD not in stack.model_dump_json()
    given = {part: part_environment(stack, part, chosen, {}) for part in ("prefect", "mlflow", "worker")}  # type: ignore[arg-type]
    pair = f"anna:{PASSWORD}"
    assert given["prefect"]["PREFECT_SERVER_API_AUTH_STRING"] == pair
    assert given["worker"]["PREFECT_API_AUTH_STRING"] == pair
    assert given["worker"]["MLFLOW_TRACKING_PASSWORD"] == PASSWORD
    assert given["mlflow"]["MLFLOW_AUTH_ADMIN_PASSWORD"] == PASSWORD
    assert "PREFECT_SERVER_API_AUTH_STRING" not in given["worker"]
    assert not [
        part for part in ("prefect", "mlflow", "worker") if PASSWORD in " ".join(command(stack, part, "w", "p"))
    ]  # type: ignore[arg-type]
    write_user_settings(stack.folder, "sqlite:///users.db")
    assert PASSWORD not in Path(given["mlflow"]["MLFLOW_AUTH_CONFIG_PATH"]).read_text()


def test_a_server_that_was_not_named_gets_no_password(file: Path) -> None:
    chosen = decide(Wishes(home=str(file.parent / "home"), auth=str(file)), {}, file.parent)
    assert not [name for name, value in variables(chosen, {}).items() if PASSWORD in value]
    named = decide(
        Wishes(home=str(file.parent / "home"), auth=str(file), mlflow_uri="http://tracking.example:5000"), {}, Path("/")
    )
    assert sorted(name for name, value in variables(named, {}).items() if PASSWORD in value) == [
        "MLFLOW_TRACKING_PASSWORD"
    ]


def test_without_auth_the_stack_starts_as_before(tmp_path: Path) -> None:
    chosen = decide(Wishes(home=str(tmp_path / "home")), {}, tmp_path)
    stack = Stack(home=str(tmp_path / "home"), host="127.0.0.1", prefect_port=1, mlflow_port=2)
    given = part_environment(stack, "prefect", chosen, {})
    assert not [name for name in given if "AUTH" in name]
    assert "--app-name" not in command(stack, "mlflow", "w", "p")
    assert Credentials("a", "b").pair == ("a", "b")
