"""BAGEL's published files: tiny checkpoints in that layout, and files that are not what they should be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models.bagel import upstream
from reca_core.models.bagel.adapter import Bagel
from reca_core.models.bagel.checkpoint import FIXED
from reca_core.models.bagel.configuration import BagelConfiguration
from reca_core.models.bagel.smallest import PER_SIDE, PICTURES
from tests.reca_core.test_harmon_loading import original_layout

WEIGHTS = "ema.safetensors"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Bagel:
    """A tiny BAGEL whose pictures the published bounds fit, for this test."""
    monkeypatch.setattr(upstream, "BagelConfiguration", lambda sizes: BagelConfiguration(sizes, PICTURES))
    return Bagel.smallest(seed=0)


@pytest.fixture
def published(model: Bagel, tmp_path: Path) -> Path:
    """The model in the authors' layout."""
    directory = tmp_path / "published"
    directory.mkdir()
    for name, content in model._companions.items():
        (directory / name).write_bytes(content)
    settings = model.configuration.as_json()
    vision = settings["vision"] | {"num_hidden_layers": settings["vision"]["num_hidden_layers"] + 1, "rope": True}
    (directory / "vit_config.json").write_text(json.dumps(vision))
    (directory / "llm_config.json").write_text(json.dumps(settings["llm"] | {"qk_norm": True, "freeze_und": False}))
    (directory / "config.json").write_text('{"model_type": "bagel"}')
    save_file(state_of(model), directory / WEIGHTS)
    save_file(original_layout(model.network), directory / "ae.safetensors")
    return directory


def state_of(model: Bagel) -> dict[str, Tensor]:
    """As upstream saves it: without the autoencoder."""
    state = model.network.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if not name.startswith("vae.")}


def equal(first: Bagel, second: Bagel) -> bool:
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_published_files_load_as_the_same_model_and_are_saved_as_ours(
    published: Path, model: Bagel, tmp_path: Path
) -> None:
    read = Bagel.load(published)
    assert equal(read, model)
    assert read.configuration.drawing.times == 50, "published settings"
    read.save(tmp_path / "ours")
    assert not (tmp_path / "ours" / "llm_config.json").exists()
    assert equal(Bagel.load(tmp_path / "ours"), model)


def test_fixed_tables_may_be_absent_and_are_never_believed(
    published: Path, model: Bagel, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(model)
    save_file({name: t + 1 if name in FIXED else t for name, t in state.items()}, published / WEIGHTS)
    assert equal(Bagel.load(published), model)
    monkeypatch.setattr(upstream, "LATENT_PER_SIDE", PER_SIDE)
    save_file({name: tensor for name, tensor in state.items() if name not in FIXED}, published / WEIGHTS)
    assert equal(Bagel.load(published), model)


def test_the_published_latent_table_has_64_a_side(published: Path, model: Bagel) -> None:
    language, vision = (json.loads((published / name).read_text()) for name in ("llm_config.json", "vit_config.json"))
    weights = {name: tensor for name, tensor in state_of(model).items() if name not in FIXED}
    autoencoder = {f"vae.{name}": tensor for name, tensor in load_file(published / "ae.safetensors").items()}
    sizes = upstream.sizes_of(language, vision, weights | autoencoder)
    assert sizes.latent_per_side == 64
    assert sizes.vision.num_hidden_layers == model.network.sizes.vision.num_hidden_layers, "one fewer than it says"


@pytest.mark.parametrize("name", ["model.safetensors", "model_bf16.safetensors"])
def test_several_weights_are_refused_until_one_is_meant(published: Path, model: Bagel, name: str) -> None:
    save_file({key: tensor.bfloat16() for key, tensor in state_of(model).items()}, published / name)
    with pytest.raises(CheckpointRefused, match=rf"(?s)moving average.*{name}, ema\.safetensors"):
        Bagel.load(published)
    (published / WEIGHTS).unlink()
    read = Bagel.load(published)
    assert {parameter.dtype for parameter in read.network.parameters()} == {torch.float32}
    torch.testing.assert_close(read.network.llm2vae.weight, model.network.llm2vae.weight, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("damage", ["missing", "extra", "renamed", "transposed"])
@pytest.mark.parametrize("name", ["vae2llm.weight", "vit_model.vision_model.encoder.layers.0.mlp.fc1.weight"])
def test_damage_is_refused_by_name(published: Path, model: Bagel, damage: str, name: str) -> None:
    state = state_of(model)
    tensor = state.pop(name)
    changed = {"missing": {}, "extra": {name: tensor, f"{name}_": tensor.clone()}, "renamed": {f"{name}_": tensor}}
    changed["transposed"] = {name: tensor.T.contiguous()}
    save_file(state | changed[damage], published / WEIGHTS)
    with pytest.raises(CheckpointRefused) as refusal:
        Bagel.load(published)
    assert name in str(refusal.value)


@pytest.mark.parametrize("name", ["decoder.conv_in.weight", "encoder.conv_in.weight"])
def test_a_transposed_matrix_of_the_autoencoder_is_refused_by_name(published: Path, model: Bagel, name: str) -> None:
    state = load_file(published / "ae.safetensors")
    save_file(state | {name: state[name].transpose(0, 1).contiguous()}, published / "ae.safetensors")
    with pytest.raises(CheckpointRefused, match=rf"vae\.{re.escape(name)} is \["):
        Bagel.load(published)


@pytest.mark.parametrize("name", ["llm2vae.bias", "llm2vae.weight"])
@pytest.mark.parametrize("damage", ["renamed", "cut", "shapeless"])
def test_what_tells_the_latents_is_refused_by_name(published: Path, model: Bagel, name: str, damage: str) -> None:
    state = state_of(model)
    tensor = state.pop(name)
    damaged = {"renamed": {f"{name}_": tensor}, "cut": {name: tensor[:1].clone()}, "shapeless": {name: torch.zeros(())}}
    save_file(state | damaged[damage], published / WEIGHTS)
    with pytest.raises(CheckpointRefused, match=re.escape(name)):
        Bagel.load(published)


def test_a_missing_understanding_layer_is_refused_by_name(published: Path, model: Bagel) -> None:
    """Upstream's own export left out what was frozen."""
    kept = {name: tensor for name, tensor in state_of(model).items() if not name.startswith("connector.")}
    save_file(kept, published / WEIGHTS)
    with pytest.raises(CheckpointRefused, match=r"missing: connector\.fc1\.bias"):
        Bagel.load(published)


@pytest.mark.parametrize("name", ["num_hidden_layers", "image_size"])
def test_a_vision_configuration_that_says_too_little_is_refused(published: Path, name: str) -> None:
    path = published / "vit_config.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name}))
    with pytest.raises(CheckpointRefused, match=name):
        Bagel.load(published)


@pytest.mark.parametrize("file", [WEIGHTS, "ae.safetensors", "vit_config.json", "tokenizer.json"])
def test_an_absent_file_is_a_missing_prerequisite(published: Path, file: str) -> None:
    (published / file).unlink()
    with pytest.raises(PrerequisiteMissing):
        Bagel.load(published)
