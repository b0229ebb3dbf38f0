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
from reca_core.models.harmon.mar import Mar, MarConfiguration
from reca_core.models.harmon.network import HarmonNetwork
from reca_core.models.harmon.smallest import WIDTH
from tests.reca_core.test_conversion import replace, run

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
    loaded = Harmon.load(published)
    assert equal(loaded, model)
    sizes, expected = loaded.configuration.sizes, model.configuration.sizes
    assert sizes.mar == expected.mar
    assert {name: sizes.autoencoder[name] for name in expected.autoencoder} == expected.autoencoder
    assert (loaded.configuration.drawing.rounds, loaded.configuration.drawing.head_steps) == (64, 100), (
        "published settings"
    )


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
    loaded = Harmon.load(published)
    assert torch.equal(loaded.network.llm.lm_head.weight, state[TEXT_HEAD] + 1)
    assert torch.equal(loaded.network.llm.model.embed_tokens.weight, state[TEXT_HEAD])


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
    with pytest.raises(CheckpointRefused, match=r"encoder\.down_blocks\.1\.resnets\.0\.conv2\.weight"):
        Harmon.load(published)
    torch.save(original, published / "kl16.ckpt")
    with pytest.raises(CheckpointRefused, match="no entry 'model'"):
        Harmon.load(published)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of one file; the autoencoder's has an epoch beside them."""
    loaded = torch.load(path, weights_only=True)
    tensors: dict[str, Tensor] = loaded.get("model", loaded)
    return tensors


@pytest.mark.parametrize("width", [768, 1024, 1280])
def test_a_lost_last_block_of_a_published_width_does_not_change_the_depths(width: int) -> None:
    depth, head = {768: (12, 6), 1024: (16, 8), 1280: (20, 12)}[width]
    heads = upstream.HEADS[width]
    sizes = MarConfiguration(16, width, depth, depth, width, heads, heads, 16, head_depth=head, head_width=1024)
    with torch.device("meta"):
        state = {f"mar.{name}": tensor for name, tensor in Mar(sizes).state_dict().items()}
    lost = (f"decoder_blocks.{depth - 1}.", f"encoder_blocks.{depth - 1}.", f"res_blocks.{head - 1}.")
    assert upstream.mar_sizes(state) == sizes
    assert upstream.mar_sizes({n: t for n, t in state.items() if not any(part in n for part in lost)}) == sizes


@pytest.mark.parametrize(
    ("lost", "file"),
    [
        (("quant_conv.", "post_quant_conv."), "kl16.ckpt"),
        (("quant_conv.weight",), "kl16.ckpt"),
        (("encoder.down.2.attn.0.",), "kl16.ckpt"),
        (("encoder.down.2.",), "kl16.ckpt"),
        (("decoder.up.2.",), "kl16.ckpt"),
        (("decoder.mid.attn_1.",), "kl16.ckpt"),
        (("mar.decoder_blocks.0.",), WEIGHTS),
        (("mar.diffloss.net.res_blocks.0.",), WEIGHTS),
    ],
)
def test_a_lost_part_is_missing_by_all_its_names(
    published: Path, tmp_path: Path, lost: tuple[str, ...], file: str
) -> None:
    whole = read(published / file)
    kept = {name: tensor for name, tensor in whole.items() if not name.startswith(lost)}
    replace(published / file, kept)
    report = run("harmon", published, tmp_path / "out", "reca")
    assert set(report.missing) == set(whole) - set(kept)
    assert (report.unexpected, report.mismatched_shape, report.written) == ([], [], False)


TELLING = [
    ("mar.z_proj.bias", WEIGHTS),
    ("mar.decoder_norm.weight", WEIGHTS),
    ("mar.encoder_pos_embed_learned", WEIGHTS),
    ("mar.diffloss.net.input_proj.bias", WEIGHTS),
    ("mar.encoder_blocks.0.mlp.fc1.bias", WEIGHTS),
    ("encoder.conv_in.bias", "kl16.ckpt"),
    ("encoder.conv_out.bias", "kl16.ckpt"),
]


@pytest.mark.parametrize(("name", "file"), TELLING)
def test_a_tensor_that_tells_a_size_is_reported_like_any_other(
    published: Path, tmp_path: Path, name: str, file: str
) -> None:
    whole = read(published / file)
    rest = {other: tensor for other, tensor in whole.items() if other != name}
    replace(published / file, {**rest, f"{name}_": whole[name]})
    report = run("harmon", published, tmp_path / "out", "reca")
    assert (report.missing, report.unexpected, report.mismatched_shape) == ([name], [f"{name}_"], [])
    for damaged in (torch.zeros(()), whole[name][:0].clone()):
        replace(published / file, {**rest, name: damaged})
        report = run("harmon", published, tmp_path / "out", "reca")
        assert (report.missing, report.unexpected, report.mismatched_shape) == ([], [], [name])


def test_a_transposed_matrix_of_the_autoencoder_is_reported_by_name(published: Path, tmp_path: Path) -> None:
    whole = read(published / "kl16.ckpt")
    for name in ("decoder.conv_in.weight", "encoder.conv_in.weight"):
        replace(published / "kl16.ckpt", {**whole, name: whole[name].transpose(0, 1).contiguous()})
        report = run("harmon", published, tmp_path / "out", "reca")
        assert (report.missing, report.unexpected, report.mismatched_shape) == ([], [], [name])


@pytest.mark.parametrize(
    ("kind", "multipliers"), [(ldm_autoencoder.KL_16, (1, 1, 2, 2, 4)), (ldm_autoencoder.FLUX, (1, 2, 4, 4))]
)
def test_a_published_autoencoder_has_its_published_sizes_whatever_a_file_lacks(
    kind: ldm_autoencoder.Kind, multipliers: tuple[int, ...]
) -> None:
    levels = len(multipliers)
    state = {"encoder.conv_in.bias": torch.zeros(128), "decoder.up.0.block.0.conv1.bias": torch.zeros(128)}
    arguments = ldm_autoencoder.arguments_of(state, kind)
    assert arguments["block_out_channels"] == tuple(128 * multiplier for multiplier in multipliers)
    assert (len(arguments["up_block_types"]), arguments["layers_per_block"]) == (levels, 2)
    assert arguments["latent_channels"] == 16


class Attack:
    """Unpickling this would create a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("file", [WEIGHTS, "kl16.ckpt"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_nothing(published: Path, file: str) -> None:
    torch.save({"model": Attack(published / "ran")}, published / file)
    with pytest.raises(CheckpointRefused, match=r"run code: it names posix\.mkdir") as refusal:
        Harmon.load(published)
    assert "weights_only" not in str(refusal.value)
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
