"""Show-o's published files: tiny checkpoints in that layout, and files that are not what they should be."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models.showo import chat, checkpoint, upstream
from reca_core.models.showo.adapter import Showo
from reca_core.models.showo.magvit import Magvit, MagvitConfiguration

SHOWO = "show-o-w-clip-vit"
WEIGHTS = ""
FILES = {WEIGHTS: SHOWO, checkpoint.TOKENIZER: upstream.TOKENIZER, checkpoint.CLIP: upstream.TOWER}
VARIANTS = pytest.mark.parametrize("clip", [True, False], ids=["clip", "vq"])


def parts_of(model: Showo) -> dict[str, dict[str, Tensor]]:
    """As upstream saves them: the sign patterns written out, CLIP with its text half and position numbers."""
    whole = checkpoint.to_upstream(model.network.state_dict())
    parts = {WEIGHTS: {n: t for n, t in whole.items() if not n.startswith((checkpoint.TOKENIZER, checkpoint.CLIP))}}
    for prefix in (checkpoint.TOKENIZER, checkpoint.CLIP):
        parts[prefix] = {n.removeprefix(prefix): t for n, t in whole.items() if n.startswith(prefix)}
    if not parts[checkpoint.CLIP]:
        del parts[checkpoint.CLIP]
    else:
        parts[checkpoint.CLIP] |= {
            "logit_scale": torch.zeros(()),
            "vision_model.embeddings.position_ids": torch.arange(5),
        }
    return parts


def publish(root: Path, model: Showo) -> Path:
    """The four downloads side by side; returns Show-o's own."""
    for part, state in parts_of(model).items():
        write(root, part, state)
    configuration = model.configuration.as_json()
    language = configuration["language"] | {"vocab_size": 77, "qk_layernorm": False}
    settings = {
        SHOWO: {
            "_class_name": "Showo",
            "w_clip_vit": configuration["clip"] is not None,
            "vocab_size": configuration["language"]["vocab_size"],
            "llm_vocab_size": configuration["text_vocabulary"],
            "llm_model_path": "microsoft/phi-1_5",
            "num_vq_tokens": model.configuration.tokens,
            "mask_token_id": configuration["language"]["vocab_size"] - 1,
        },
        upstream.LANGUAGE: language,
        upstream.TOWER: {"model_type": "clip", "vision_config": configuration["clip"] or {}},
    }
    for name, values in settings.items():
        (root / name).mkdir(exist_ok=True)
        (root / name / "config.json").write_text(json.dumps(values))
    for name, content in model._companions.items():
        place = SHOWO if name == "templates.txt" else upstream.LANGUAGE
        (root / place / name).write_bytes(content)
    return root / SHOWO


def write(root: Path, part: str, state: dict[str, Tensor]) -> None:
    (root / FILES[part]).mkdir(exist_ok=True, parents=True)
    torch.save(state, root / FILES[part] / "pytorch_model.bin")


@pytest.fixture
def model() -> Showo:
    return Showo.smallest(seed=0)


@pytest.fixture
def published(model: Showo, tmp_path: Path) -> Path:
    return publish(tmp_path / "hub", model)


def equal(one: Showo, other: Showo) -> bool:
    ours, theirs = one.network.state_dict(), other.network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@VARIANTS
def test_published_files_give_the_same_model(clip: bool, tmp_path: Path) -> None:
    model = Showo.smallest(seed=0, clip=clip)
    read = Showo.load(publish(tmp_path, model))
    assert equal(read, model)
    assert read.templates == model.templates
    ours, theirs = model.configuration.as_json(), read.configuration.as_json()
    assert theirs["system_prompt"] == (chat.SYSTEM_PROMPT if clip else "")
    assert theirs["max_text"] == 128
    for name in ("image_side", "text_vocabulary", "tokenizer", "language", "clip", "shown", "upstream_parity"):
        assert theirs[name] == ours[name], name


def test_parts_are_found_inside_the_directory_too(published: Path, model: Showo) -> None:
    for part in (upstream.TOKENIZER, upstream.TOWER, upstream.LANGUAGE):
        (published.parent / part).rename(published / part)
    assert equal(Showo.load(published), model)


def test_what_was_published_is_saved_as_ours(published: Path, model: Showo, tmp_path: Path) -> None:
    Showo.load(published).save(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "showo"
    assert json.loads((tmp_path / "ours" / "generation_config.json").read_text()) == {"guidance": 6.0, "rounds": 16}
    again = Showo.load(tmp_path / "ours")
    assert equal(again, model)
    assert again.configuration.as_json() == Showo.load(published).configuration.as_json()


def test_safetensors_and_shards_are_read_as_well(published: Path, model: Showo) -> None:
    state = parts_of(model)[WEIGHTS]
    (published / "pytorch_model.bin").unlink()
    names = sorted(state)
    shards = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, kept in shards.items():
        save_file({name: state[name].contiguous() for name in kept}, published / file)
    index = {"weight_map": {name: file for file, kept in shards.items() for name in kept}}
    (published / "model.safetensors.index.json").write_text(json.dumps(index))
    assert equal(Showo.load(published), model)


def test_half_precision_files_become_float32(published: Path, model: Showo) -> None:
    halved = {name: tensor.bfloat16() for name, tensor in parts_of(model)[WEIGHTS].items()}
    write(published.parent, WEIGHTS, halved)
    read = Showo.load(published)
    assert {parameter.dtype for parameter in read.network.parameters()} == {torch.float32}
    assert read.network.tokenizer.quantize.power_vals.dtype == torch.int64


NAMES = {
    WEIGHTS: "showo.model.layers.0.mlp.fc1.weight",
    checkpoint.TOKENIZER: "encoder.mid.attn_1.q.weight",
    checkpoint.CLIP: "vision_model.encoder.layers.0.mlp.fc1.weight",
}


@pytest.mark.parametrize("damage", ["missing", "extra", "renamed", "transposed"])
@pytest.mark.parametrize("part", NAMES)
def test_damage_is_refused_by_name(published: Path, model: Showo, part: str, damage: str) -> None:
    state, name = parts_of(model)[part], NAMES[part]
    tensor = state.pop(name)
    changed = {"missing": {}, "extra": {name: tensor, f"{name}_": tensor}, "renamed": {f"{name}_": tensor}}
    changed["transposed"] = {name: torch.zeros(3, 5)}
    write(published.parent, part, state | changed[damage])
    with pytest.raises(CheckpointRefused) as refusal:
        Showo.load(published)
    assert checkpoint.our_name(part + name) in str(refusal.value)


@pytest.mark.parametrize("level", ["encoder.down.1", "encoder.down.2", "decoder.up.2"])
def test_a_tokenizer_without_a_level_is_refused_by_name(published: Path, model: Showo, level: str) -> None:
    state = {n: t for n, t in parts_of(model)[checkpoint.TOKENIZER].items() if level not in n}
    write(published.parent, checkpoint.TOKENIZER, state)
    with pytest.raises(CheckpointRefused, match=re.escape(f"{level}.block.0.conv2.bias")):
        Showo.load(published)


def test_the_published_tokenizer_has_its_published_sizes_whatever_a_file_lacks() -> None:
    with torch.device("meta"):
        whole = Magvit(MagvitConfiguration()).state_dict()
    lost = ("decoder.up.4.", "encoder.down.3.block.2.", "encoder.quant_conv.bias")
    assert upstream.magvit_sizes(whole) == MagvitConfiguration()
    assert upstream.magvit_sizes({n: t for n, t in whole.items() if not n.startswith(lost)}) == MagvitConfiguration()


class Attack:
    """Unpickling this would create a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("part", NAMES)
def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_nothing(published: Path, part: str) -> None:
    write(published.parent, part, {"weight": Attack(published / "ran")})  # type: ignore[dict-item]
    with pytest.raises(CheckpointRefused, match="run code"):
        Showo.load(published)
    assert not (published / "ran").exists()


@pytest.mark.parametrize("part", [upstream.TOKENIZER, upstream.TOWER, upstream.LANGUAGE])
def test_an_absent_download_is_named_with_both_places(published: Path, part: str) -> None:
    (published.parent / part).rename(published.parent / "elsewhere")
    with pytest.raises(PrerequisiteMissing) as refusal:
        Showo.load(published)
    for place in (published, published.parent):
        assert str(place / part) in str(refusal.value)


@pytest.mark.parametrize("absent", ["w_clip_vit", "vocab_size", "llm_vocab_size", "num_vq_tokens"])
def test_a_configuration_that_leaves_out_a_size_is_refused(published: Path, absent: str) -> None:
    settings = json.loads((published / "config.json").read_text())
    del settings[absent]
    (published / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointRefused, match=f"does not say {absent}"):
        Showo.load(published)


def test_another_language_model_is_refused(published: Path) -> None:
    (published.parent / upstream.LANGUAGE / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointRefused, match="llama"):
        Showo.load(published)


def test_a_tokenizer_of_another_language_model_is_refused(published: Path) -> None:
    settings = json.loads((published / "config.json").read_text())
    settings["llm_vocab_size"] += 1
    settings["vocab_size"] += 1
    (published / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointRefused, match="of another shape"):
        Showo.load(published)
