"""MLflow's own cleaning: refused while a version needs something deleted, and views go with their comparison."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reca_core.contracts.errors import StageFailed
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel, VersionRef
from tasks import tracking, tracking_clean, tracking_models, tracking_views
from tasks.home import MLFLOW_DATABASE_VARIABLE
from tasks.tracking import TrackedRun

BENCHMARK = "geneval.shapeworld"
DAYS = 30


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for the module: making its tables costs a second."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECA_HOME", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv(MLFLOW_DATABASE_VARIABLE, f"sqlite:///{root}/mlflow/mlflow.db")
        yield root


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines of ``mlflow gc``, which is not run; what libraries ask the machine (``uname``) is."""
    made: list[list[str]] = []
    really = subprocess.run

    def run(words: list[str], **settings: Any) -> Any:
        if "gc" not in words:
            return really(words, **settings)
        made.append(words)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return made


def a_run(name: str) -> TrackedRun:
    return tracking.begin_run(name, {"flow_run_id": name}, {})


def registered(home: Path, name: str) -> VersionRef:
    folder = home / name
    folder.mkdir()
    (folder / "weights").write_text(name)
    model = ResolvedModel(name="tiny", family="janus", path=str(folder), sha256=sha256_tree(folder))
    run = a_run(f"makes {name}")
    return tracking_models.register(name, model, run.run_id, {"request_hash": name}, copy=False)[0]


def test_nothing_goes_for_good_while_a_version_needs_a_deleted_run_or_model(home: Path, calls: list[list[str]]) -> None:
    first, second = registered(home, "reca-a"), registered(home, "reca-b")
    assert "removed what was deleted" in tracking_clean.purge(DAYS, dry_run=False)
    (words,) = calls
    assert words[words.index("gc") :][:3] == ["gc", "--older-than", f"{DAYS}d"]
    store = tracking.client()
    store.delete_run(first.run_id)
    store.delete_logged_model(second.model_id)
    said = tracking_clean.purge(DAYS, dry_run=False)
    assert said.startswith("MLflow's deleted runs stay: reca-a/1, reca-b/1 need some")
    assert len(calls) == 1
    store.restore_run(first.run_id)
    store.delete_model_version("reca-b", "1")
    assert "would remove" in tracking_clean.purge(DAYS, dry_run=True)
    assert len(calls) == 1


def test_a_machine_that_does_not_know_the_database_removes_nothing(
    home: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MLFLOW_DATABASE_VARIABLE)
    assert MLFLOW_DATABASE_VARIABLE in tracking_clean.purge(DAYS, dry_run=False)
    assert not calls


def test_what_mlflow_said_when_its_cleaning_failed_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr="the artifact store is away")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(StageFailed, match="status 1: the artifact store is away"):
        tracking_clean.purge(DAYS, dry_run=False)


def test_views_of_a_deleted_comparison_go_and_all_others_stay(home: Path) -> None:
    kept, deleted = a_run("kept"), a_run("deleted")
    for run in (kept, deleted):
        tracking_views.save_comparison_views(run, "b against a", BENCHMARK, ["overall"], ["a_ring"])
    own = [f"{tracking_views.VIEW_TAG}{name}" for name in ("mine", f"{deleted.run_id}-of-ada", "0" * 32)]
    store = tracking.client()
    for tag in own:
        store.set_experiment_tag(kept.experiment_id, tag, "x")

    def views() -> set[str]:
        tags = store.get_experiment(kept.experiment_id).tags
        return {tag.removeprefix(tracking_views.VIEW_TAG) for tag in tags if tag.startswith(tracking_views.VIEW_TAG)}

    assert tracking_clean.prune_views(dry_run=False) == ""
    everything = views()
    store.delete_run(deleted.run_id)
    assert tracking_clean.prune_views(dry_run=True).startswith("would remove 2 saved views")
    assert views() == everything
    assert tracking_clean.prune_views(dry_run=False).startswith("removed 2 saved views")
    gone = {f"{deleted.run_id}-geneval_shapeworld-{kind}" for kind in ("numbers", "pictures")}
    assert views() == everything - gone
    assert tracking_clean.prune_views(dry_run=False) == ""
