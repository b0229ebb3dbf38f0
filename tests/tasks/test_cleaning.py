"""`reca clean` on a made-up home: what something refers to stays, whatever its age; the rest goes when it is old."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.commands.clean import store_of
from deployments.environment import Surroundings
from deployments.stack import Stack, write_stack
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.home import Home
from tasks.cleaning import age_limit, removable, remove
from tasks.tracking_weights import KnownWeights

DAY = 86400.0
OLD = 60 * DAY


def write(path: Path, content: str | dict[str, Any] = "x" * 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def age(root: Path, seconds: float = OLD) -> None:
    then = time.time() - seconds
    for path in root.rglob("*"):
        os.utime(path, (then, then))


def training(home: Home, name: str) -> Path:
    """A finished training with one checkpoint on the way."""
    run = home.run(name)
    write(run.request, {"run_directory": str(run.path), "model": {"path": "/models/base"}})
    write(run.checkpoints / "step-00000010/model.bin")
    write(run.final / "model.safetensors")
    write(run.done, {"checkpoint": {"sha256": f"sha-{name}"}})
    write(run.log)
    return run.path


def measurement(home: Home, name: str, model: Path, *, scored: bool = True) -> Path:
    """Samples drawn with a model, and what a judge said of them."""
    samples = home.samples(name)
    write(samples.request, {"model": {"path": str(model)}, "output_directory": str(samples.path)})
    write(samples.path / "00000/samples/0000.png")
    write(home.answers(name).request, {"samples_directory": str(samples.path)})
    if scored:
        write(home.answers(name).path / "scores.json", {})
    return samples.path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def known(*runs: Path, registered: str = "", sha256: str = "", download: str = "") -> KnownWeights:
    """What a store says that has heard of these trainings."""
    return KnownWeights(
        registered_paths=frozenset({registered} - {""}),
        registered_sha256=frozenset({sha256} - {""}),
        downloads=frozenset({download} - {""}),
        trainings=frozenset(str(run) for run in runs),
    )


def paths(home: Home, told: KnownWeights, seconds: float = 30 * DAY) -> set[str]:
    return {str(item.path.relative_to(home.root)) for item in removable(home, told, seconds)}


def test_an_old_training_that_nothing_refers_to_loses_its_weights_and_keeps_its_record(home: Home) -> None:
    run = training(home, "aa")
    age(home.root)
    items = removable(home, known(run), 30 * DAY)
    assert {(item.kind, item.bytes) for item in items} == {("checkpoints", 100), ("weights", 100)}
    assert remove(items) == items
    assert sorted(path.name for path in run.iterdir()) == ["DONE.json", "lock", "log.txt", "request.json"]


def test_registered_weights_stay_by_path_and_by_hash(home: Home) -> None:
    run = training(home, "aa")
    age(home.root)
    assert paths(home, known(run, registered=str(run / "final"))) == {"runs/aa/checkpoints"}
    assert paths(home, known(run, sha256="sha-aa")) == {"runs/aa/checkpoints"}


def test_weights_of_a_training_that_the_store_never_heard_of_stay(home: Home) -> None:
    training(home, "aa")
    age(home.root)
    assert paths(home, known()) == {"runs/aa/checkpoints"}


def test_scored_samples_and_the_model_that_drew_them_stay(home: Home) -> None:
    run = training(home, "aa")
    measurement(home, "bb", run / "final")
    age(home.root)
    assert paths(home, known(run)) == {"runs/aa/checkpoints"}


def test_samples_that_were_never_scored_go_with_the_model_that_drew_them(home: Home) -> None:
    run = training(home, "aa")
    measurement(home, "bb", run / "final", scored=False)
    age(home.root)
    assert paths(home, known(run)) == {"runs/aa/checkpoints", "runs/aa/final", "samples/bb"}


def test_what_was_used_lately_stays(home: Home) -> None:
    run = training(home, "aa")
    measurement(home, "bb", run / "final", scored=False)
    age(home.root, 10 * DAY)
    assert paths(home, known(run)) == set()
    assert paths(home, known(run), 5 * DAY) == {"runs/aa/checkpoints", "runs/aa/final", "samples/bb"}


def test_a_run_in_work_keeps_everything_it_has_and_needs(home: Home) -> None:
    base, run = training(home, "aa"), training(home, "bb")
    write(home.run("bb").request, {"run_directory": str(run), "model": {"path": str(base / "final")}})
    age(home.root)
    with write(home.run("bb").lock).open("rb") as lock:
        os.utime(lock.name, (0, 0))
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert paths(home, known(base, run)) == {"runs/aa/checkpoints"}


def test_what_came_into_use_after_it_was_listed_stays(home: Home) -> None:
    run = training(home, "aa")
    age(home.root)
    items = removable(home, known(run), 30 * DAY)
    with write(home.run("aa").lock).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove(items) == []
    assert (run / "final/model.safetensors").exists()


def test_caches_go_but_for_pictures_of_data_sets_fetched_versions_and_benchmark_files(home: Home) -> None:
    listed = write(home.cache / "pictures/aa/listed.png")
    write(home.cache / "pictures/aa/loose.png")
    write(home.data / "dd/manifest.jsonl", json.dumps({"file": str(listed)}) + "\n")
    write(home.cache / "models/m-kept/model.safetensors")
    write(home.cache / "models/m-loose/model.safetensors")
    write(home.cache / "hub/models--a--b/blobs/x")
    write(home.cache / "benchmark_data/geneval/prompts.jsonl")
    age(home.root)
    expected = {"cache/pictures/aa/loose.png", "cache/models/m-loose", "cache/hub/models--a--b"}
    assert paths(home, known(download="m-kept")) == expected


def test_features_go_when_nobody_read_them_lately_and_stay_while_a_training_holds_them(home: Home) -> None:
    for key in ("aa", "bb"):
        write(home.features / key / "about.json", {"part": "target"})
        write(home.features / key / "lock")
        write(home.features / key / "shard.safetensors")
    write(home.run("cc").request, {"feature_directory": str(home.features)})
    age(home.root)
    os.utime(home.run("cc").request)
    with (home.features / "aa/lock").open("rb") as one, (home.features / "aa/lock").open("rb") as other:
        for reader in (one, other):
            fcntl.flock(reader, fcntl.LOCK_SH)
        assert paths(home, known()) == {"cache/features/bb"}
    items = removable(home, known(), 30 * DAY)
    assert {(item.kind, item.path.name) for item in items} == {("features", "aa"), ("features", "bb")}
    with (home.features / "aa/lock").open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert [item.path.name for item in remove(items)] == ["bb"]
    assert [path.name for path in home.features.iterdir()] == ["aa"]


def test_a_request_that_says_where_to_put_things_keeps_none_of_them(home: Home) -> None:
    """Judgings name the cache, preparations the home: neither refers to what happens to lie there."""
    measurement(home, "bb", Path("/models/base"))
    write(home.answers("bb").request, {"samples_directory": str(home.samples("bb").path), "cache": str(home.cache)})
    write(home.run("dd").request, {"home": str(home.root), "run_directory": str(home.run("dd").path)})
    write(home.cache / "hub/models--a--b/blobs/x")
    age(home.root)
    os.utime(home.run("dd").request)
    assert paths(home, known()) == {"cache/hub/models--a--b"}


def test_a_hub_model_that_scores_refer_to_stays(home: Home) -> None:
    snapshot = write(home.cache / "hub/models--a--b/snapshots/1/config.json").parent
    measurement(home, "bb", snapshot)
    age(home.root)
    assert paths(home, known()) == set()


@pytest.mark.parametrize(("text", "seconds"), [("30d", 30 * DAY), ("12h", DAY / 2), ("2w", 14 * DAY), ("0d", 0.0)])
def test_an_age_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert age_limit(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "3 d", "30m"])
def test_another_age_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BadInput, match="choices: 12h, 30d, 4w"):
        age_limit(text)


def test_a_store_that_is_down_is_not_replaced_by_an_empty_one(home: Home) -> None:
    chosen = Surroundings(home, "", f"sqlite:///{home.mlflow}/mlflow.db", "")
    assert store_of(chosen) == chosen
    stack = Stack(home=str(home.root), host="127.0.0.1", prefect_port=1, mlflow_port=2)
    write_stack(stack)
    assert store_of(chosen) == chosen
    write_stack(stack.model_copy(update={"database": "postgresql://reca@127.0.0.1:3/"}))
    with pytest.raises(PrerequisiteMissing, match="reca up --database"):
        store_of(chosen)
    named = Surroundings(home, "", "http://tracking.example:5000", "")
    assert store_of(named) == named
