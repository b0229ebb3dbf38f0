"""What a person names is found, or refused with what would have been found."""

from __future__ import annotations

from pathlib import Path

import pytest

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import ModelChoice
from tasks import tracking
from tasks.models import resolve_model
from tasks.register import registered_name


def checkpoint(folder: Path, config: str = '{"model_type": "janus"}') -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config)
    return folder


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_directory_is_known_by_the_hash_of_its_files(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine")
    found = resolve_model(ModelChoice(source=str(folder)))
    assert (found.name, found.family, found.path) == ("mine", "janus", str(folder))
    assert found.sha256 == sha256_tree(folder)


def test_the_final_of_a_run_is_named_after_the_run(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "0123456789abcdef" / "final")
    assert resolve_model(ModelChoice(source=str(folder))).name == "0123456789abcdef"


def test_a_family_may_be_chosen_against_the_file(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "odd", '{"model_type": "something-else"}')
    with pytest.raises(BadInput) as caught:
        resolve_model(ModelChoice(source=str(folder)))
    assert caught.value.field == "model.family"
    assert "janus" in caught.value.choices
    assert resolve_model(ModelChoice(source=str(folder), family="janus")).family == "janus"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("/nowhere/at/all", PrerequisiteMissing),
        ("tiny-janos", BadInput),
        ("../relative", BadInput),
        ("models:/name", BadInput),
        ("owner/bad--name", BadInput),
        ("owner/not-in-this-cache", PrerequisiteMissing),
    ],
)
def test_what_is_not_there_is_refused_by_name(source: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        resolve_model(ModelChoice(source=source))
    assert caught.value.field == "model.source"  # type: ignore[attr-defined]


def test_a_config_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"config\.json"):
        resolve_model(ModelChoice(source=str(checkpoint(tmp_path / "torn", "{"))))


def test_a_version_registered_by_someone_else_gets_its_family_from_its_files(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "foreign")
    client = tracking.client()
    run = tracking.begin_run("foreign", {"flow_run_id": "foreign"}, {})
    model = client.create_logged_model(tracking.experiment_id(), "foreign", run.run_id)
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model("foreign")
    client.create_model_version("foreign", f"models:/{model.model_id}", run.run_id, model_id=model.model_id)
    found = resolve_model(ModelChoice(source="models:/foreign/1"))
    assert (found.family, found.sha256, found.name) == ("janus", sha256_tree(folder), "foreign/1")


@pytest.mark.parametrize(
    ("base", "name"),
    [("tiny-janus", "reca-tiny-janus"), ("reca-tiny-janus/3", "reca-tiny-janus"), ("a b:c", "reca-a-b-c")],
)
def test_a_trained_model_is_registered_under_its_bases_name(base: str, name: str) -> None:
    assert registered_name(ResolvedModel(name=base, family="janus", path="/x", sha256="0")) == name
