"""Harmon's published files: tiny checkpoints in that layout, and files that are not what they should be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models import ldm_autoencoder
from reca_core.models.harmon import upstream
from reca_core.models.harmon.adapter import Harmon
from reca_core.models.harmon.checkpoint import TEXT_HEAD
from reca_core.models.harmon.network import HarmonNetwork
from reca_core.models.harmon.smallest import WIDTH

WEIGHTS = "harmon_0.5b.pth"


def original_layout(network: HarmonNetwork) -> dict[str, Tensor]:
    """The autoencoder under the names of the first latent diffusion code, attention as 1x1 convolutions."""
    mine = {name[4:]: tensor for name, tensor in network.state_dict().items() if name.startswith("vae.")}
    levels = len(network.sizes.autoencoder["block_out_channels"])
    blocks = network.sizes.autoencoder["layers_per_block"]
    return {
        name: mine[renamed][..., None, None] if ".attn" in name and mine[renamed].ndim == 2 else mine[renamed]
        for name in original_names(levels, blocks)
        if (renamed := ldm_autoencoder.diffusers_name(name, levels)) in mine
    }


def original_names(levels: int, blocks: int) -> list[str]:
    """Every name that such an autoencoder may have."""
    residual = [f"{part}.{kind}" for part in ("norm1", "conv1", "norm2", "conv2", "nin_shortcut") for kind in KINDS]
    attention = [f"{part}.{kind}" for part in ("norm", "q", "k", "v", "proj_out") for kind in KINDS]
    names = [f"{outer}.{kind}" for outer in ("quant_conv", "post_quant_conv") for kind in KINDS]
    for coder, count in (("encoder", blocks), ("decoder", blocks + 1)):
        names += [f"{coder}.{part}.{kind}" for part in ("conv_in", "conv_out", "norm_out") for kind in KINDS]
        names += [f"{coder}.mid.{block}.{part}" for block in ("block_1", "block_2") for part in residual]
        names += [f"{coder}.mid.attn_1.{part}" for part in attention]
        way = "down" if coder == "encoder" else "up"
        for level in range(levels):
            names += [f"{coder}.{way}.{level}.block.{i}.{part}" for i in range(count) for part in residual]
            names += [f"{coder}.{way}.{level}.attn.{i}.{part}" for i in range(count) for part in attention]
            names += [f"{coder}.{way}.{level}.{way}sample.conv.{kind}" for kind in KINDS]
    return names


KINDS = ("weight", "bias")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Harmon:
    """A tiny Harmon whose width the published table of head counts knows; 64 rounds need 64 tokens."""
    monkeypatch.setitem(upstream.HEADS, WIDTH, 2)
    monkeypatch.setattr(upstream, "SIDE", 32)
    return Harmon.smallest(seed=0)


@pytest.fixture
def published(model: Harmon, tmp_path: Path) -> Path:
    """The model in the authors' layout, beside the files of its language model."""
    directory = tmp_path / "published"
    directory.mkdir()
    for name, content in model._companions.items():
        (directory / name).write_bytes(content)
    (directory / "config.json").write_text(json.dumps(model.configuration.as_json()["llm"]))
    write(directory, state_of(model))
    torch.save({"model": original_layout(model.network), "epoch": 3}, directory / "kl16.ckpt")
    return directory


def state_of(model: Harmon) -> dict[str, Tensor]:
    """As upstream saves it: without autoencoder, with the tied text head written out."""
    return {name: tensor for name, tensor in model.network.state_dict().items() if not name.startswith("vae.")}


def write(directory: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, directory / WEIGHTS)


def equal(first: Harmon, second: Harmon) -> bool:
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_published_files_load_as_the_same_model(published: Path, model: Harmon) -> None:
    assert TEXT_HEAD in torch.load(published / WEIGHTS, weights_only=True)
    read = Harmon.load(published)
    assert equal(read, model)
    sizes, expected = read.configuration.sizes, model.configuration.sizes
    assert sizes.mar == expected.mar
    assert {name: sizes.autoencoder[name] for name in expected.autoencoder} == expected.autoencoder
    assert (read.configuration.drawing.rounds, read.configuration.drawing.head_steps) == (64, 100), "published settings"


def test_what_was_published_is_saved_as_ours(published: Path, model: Harmon, tmp_path: Path) -> None:
    Harmon.load(published).save(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "harmon"
    settings = model.configuration.as_json()
    (tmp_path / "ours" / "generation_config.json").write_text(json.dumps(settings.pop("drawing")))
    (tmp_path / "ours" / "config.json").write_text(json.dumps(settings))
    assert equal(Harmon.load(tmp_path / "ours"), model)


def test_a_head_that_differs_from_the_word_embeddings_is_not_tied(published: Path, model: Harmon) -> None:
    state = state_of(model)
    write(published, state | {TEXT_HEAD: state[TEXT_HEAD] + 1})
    read = Harmon.load(published)
    assert torch.equal(read.network.llm.lm_head.weight, state[TEXT_HEAD] + 1)
    assert torch.equal(read.network.llm.model.embed_tokens.weight, state[TEXT_HEAD])


def test_half_precision_loads_as_float32(published: Path, model: Harmon) -> None:
    write(published, {name: tensor.bfloat16() for name, tensor in state_of(model).items()})
    assert {parameter.dtype for parameter in Harmon.load(published).network.parameters()} == {torch.float32}


@pytest.mark.parametrize("damage", ["missing", "extra", "renamed", "transposed"])
@pytest.mark.parametrize("name", ["mar.diffloss.net.input_proj.weight", "proj_in.0.bias", "mar.z_proj.weight"])
def test_damage_is_refused_by_name(published: Path, model: Harmon, damage: str, name: str) -> None:
    state = state_of(model)
    tensor = state.pop(name)
    if damage == "transposed" and (tensor.ndim < 2 or tensor.shape[0] == tensor.shape[1]):
        tensor = torch.zeros(3, 5)
    changed = {"missing": {}, "extra": {name: tensor, f"{name}_": tensor}, "renamed": {f"{name}_": tensor}}
    changed["transposed"] = {name: tensor.t()}
    write(published, state | changed[damage])
    with pytest.raises(CheckpointRefused) as refusal:
        Harmon.load(published)
    assert name in str(refusal.value) or "MAR is" in str(refusal.value)


def test_an_autoencoder_without_a_level_is_refused_by_name(published: Path, model: Harmon) -> None:
    original = original_layout(model.network)
    torch.save({"model": {n: t for n, t in original.items() if "down.1" not in n}}, published / "kl16.ckpt")
    with pytest.raises(CheckpointRefused, match=r"encoder\.down\.1\.block\.0\.conv2\.weight"):
        Harmon.load(published)
    torch.save(original, published / "kl16.ckpt")
    with pytest.raises(CheckpointRefused, match="no entry 'model'"):
        Harmon.load(published)


class Attack:
    """Unpickling this would create a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("file", [WEIGHTS, "kl16.ckpt"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_nothing(published: Path, file: str) -> None:
    torch.save({"model": Attack(published / "ran")}, published / file)
    with pytest.raises(CheckpointRefused, match="run code"):
        Harmon.load(published)
    assert not (published / "ran").exists()


def test_an_absent_or_ambiguous_model_is_said(published: Path) -> None:
    (published / WEIGHTS).rename(published / "harmon_1.5b.pth")
    (published / "harmon_1.5b-o.pth").write_bytes((published / "harmon_1.5b.pth").read_bytes())
    with pytest.raises(CheckpointRefused, match=r"harmon_1\.5b-o\.pth, harmon_1\.5b\.pth"):
        Harmon.load(published)
    for file in published.glob("*.pth"):
        file.unlink()
    with pytest.raises(PrerequisiteMissing, match="harmon"):
        Harmon.load(published)


def test_another_language_model_is_refused(published: Path) -> None:
    (published / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointRefused, match="llama"):
        Harmon.load(published)


def test_a_width_that_nobody_published_is_refused_with_the_choices(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(upstream.HEADS, WIDTH)
    with pytest.raises(CheckpointRefused, match="768, 1024, 1280"):
        Harmon.load(published)
