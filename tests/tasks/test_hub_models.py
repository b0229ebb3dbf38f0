"""Published models come whole from the hub: every part, each at its commit, through the real client and a small hub."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reca_core.contracts.conversion import ConvertRequest
from reca_core.contracts.errors import BadInput
from reca_core.contracts.home import Home
from reca_core.contracts.hub_models import HUB_MODELS, Download, HubModel
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import ModelChoice
from reca_core.conversion.run import convert
from reca_core.models.load import adapter_class
from tasks.hub_models import Pins, fetch
from tasks.models import resolve_model
from tests.tasks.model_hub import Hub

SHOWO = "showlab/show-o-w-clip-vit"
RESOLVE = """
import json, sys
from reca_core.contracts import hub_models
from reca_core.contracts.requests import ModelChoice
from tasks.models import resolve_model
hub_models.HUB_MODELS.update({
    name: hub_models.HubModel(model.family, tuple(
        hub_models.Download(d.repository, d.files, d.place, "") for d in model.downloads))
    for name, model in hub_models.HUB_MODELS.items()
})
choice = ModelChoice(source=sys.argv[1], revision=sys.argv[2])
sys.stdout.write(resolve_model(choice).model_dump_json())
"""
DOWNLOAD = """
import sys
from pathlib import Path
from reca_core.contracts.home import Home
from reca_core.contracts.requests import ModelChoice
from tasks.hub_models import download_bytes, hub_cache
from tasks.models import resolve_model
choice, home = ModelChoice(source=sys.argv[1]), Home(Path(sys.argv[2]))
before = download_bytes(choice, home)
path = Path(resolve_model(choice).path)
hub = Path(sys.argv[2]) / "cache" / "hub" if len(sys.argv) < 4 else Path(sys.argv[3])
print(before, download_bytes(choice, home), hub_cache(home) == hub, path.is_relative_to(hub))
"""
"""The child of a test: the real client against our hub. Its commits are not the published ones, so no pin applies."""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    server = Hub()
    server.begin()
    yield server
    server.shutdown()


def resolve(hub: Hub, home: Path, source: str, revision: str = "") -> dict[str, str]:
    """``resolve_model`` in a process whose hub is ours: the client reads its address when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {"HF_ENDPOINT": hub.address, "RECA_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, source, revision], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def showo(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest Show-o, published as its authors do: four repositories. Returns it in our layout."""
    place = tmp_path_factory.mktemp("showo")
    adapter_class("showo").smallest(seed=0).save(place / "ours")
    request = ConvertRequest(
        family="showo", source=str(place / "ours"), target=str(place / "theirs"), layout="upstream", report=""
    )
    assert convert(request).written
    for download in HUB_MODELS[SHOWO].downloads:
        folder = place / "theirs" / download.place
        own = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        hub.publish(download.repository, own | {"README.md": b"not needed"})
    return place / "ours"


def test_a_model_of_four_repositories_is_put_together_and_loads(hub: Hub, showo: Path, tmp_path: Path) -> None:
    found = resolve(hub, tmp_path / "home", SHOWO)
    commits = {download.repository: hub.commit(download.repository) for download in HUB_MODELS[SHOWO].downloads}
    assert found["family"] == "showo"
    assert found["revision"] == " ".join(f"{name}@{commit}" for name, commit in commits.items())
    assert json.loads((Path(found["path"]) / "downloads.json").read_text()) == commits
    assert not list(Path(found["path"]).rglob("README.md"))
    read, saved = adapter_class("showo").load(Path(found["path"])), adapter_class("showo").load(showo)
    ours, theirs = saved.network.state_dict(), read.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    again = list(hub.downloads)
    assert resolve(hub, tmp_path / "home", SHOWO)["sha256"] == found["sha256"]
    assert hub.downloads == again, "what is there is not fetched again"
    before = hub.commit("showlab/magvitv2")
    hub.publish("showlab/magvitv2", {"config.json": b'{"new": true}'})
    hub.asked.clear()
    pins = json.loads((tmp_path / "home" / "cache" / "hub-pins.json").read_text())
    assert pins["showlab/magvitv2"] == before, "the first download decides from then on"


def test_a_commit_that_is_asked_for_is_the_one_that_is_read(hub: Hub, tmp_path: Path) -> None:
    commit = hub.publish("someone/janus", {"config.json": b'{"model_type": "janus"}', "model.safetensors": b"x"})
    found = resolve(hub, tmp_path / "home", "someone/janus", commit)
    assert (found["revision"], found["family"]) == (commit, "janus")


@pytest.mark.parametrize("own_cache", [False, True])
def test_a_download_is_as_large_as_what_is_not_here_yet(hub: Hub, tmp_path: Path, own_cache: bool) -> None:
    files = {"config.json": b'{"model_type": "janus"}', "model.safetensors": b"x" * 1000, "README.md": b"not needed"}
    hub.publish("someone/other-janus", files)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    theirs = {"HF_HUB_CACHE": str(tmp_path / "theirs")} if own_cache else {}
    said = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, "someone/other-janus", str(tmp_path / "home"), *theirs.values()],
        env=kept | theirs | {"HF_ENDPOINT": hub.address, "RECA_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["1023", "0", "True", "True"]


def test_a_repository_of_several_models_is_refused_with_their_names(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refusal:
        fetch(ModelChoice(source="wusize/harmon"), Home(tmp_path))
    assert "harmon_0.5b.pth" in refusal.value.choices
    with pytest.raises(BadInput, match="one model"):
        fetch(ModelChoice(source="ByteDance-Seed/BAGEL-7B-MoT", weights="other.safetensors"), Home(tmp_path))


def test_the_chosen_weights_of_a_directory_keep_the_parts_of_every_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECA_HOME", str(tmp_path / "home"))
    folder = tmp_path / "harmon"
    folder.mkdir()
    for name in ("kl16.ckpt", "harmon_0.5b.pth", "harmon_1.5b.pth", "config.json"):
        (folder / name).write_text("{}")
    found = resolve_model(ModelChoice(source=str(folder), weights="harmon_0.5b.pth"))
    assert {path.name for path in Path(found.path).iterdir()} == {"kl16.ckpt", "harmon_0.5b.pth", "config.json"}
    assert found.family == "harmon", "known by its files"


def test_the_table_s_commit_comes_before_a_remembered_one(tmp_path: Path) -> None:
    pins = Pins(Home(tmp_path))
    free, pinned = Download("a/b", ("*",)), Download("c/d", ("*",), revision="1" * 40)
    pins.remember(tmp_path / ("2" * 40), free)
    pins.remember(tmp_path / ("3" * 40), pinned)
    pins.remember(tmp_path / ("4" * 40), free)
    assert Pins(Home(tmp_path)).of(free) == "2" * 40
    assert Pins(Home(tmp_path)).of(pinned) == "1" * 40


def test_every_published_model_is_of_a_known_family_with_its_own_places() -> None:
    for name, model in HUB_MODELS.items():
        assert model.family in FAMILIES
        assert name.startswith(model.downloads[0].repository)
        assert all(len(download.revision) in (0, 40) for download in model.downloads)
        assert dataclasses.is_dataclass(HubModel)
    assert {model.family for model in HUB_MODELS.values()} >= {"janus", "showo", "harmon", "openuni", "bagel"}
