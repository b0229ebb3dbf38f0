"""OpenUni's published files: tiny checkpoints in that layout, and files that are not what they should be."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models.openuni import checkpoint, upstream
from reca_core.models.openuni.adapter import OpenUni
from reca_core.models.openuni.chat import STRUCTURAL
from reca_core.models.openuni.checkpoint import TEXT_HEAD, WORDS
from tests.reca_core.tiny_janus import tiny_pictures

WEIGHTS, LANGUAGE, SANA = "openuni_b_internvl3_1b_sana_0_6b_512_hf_text2image23m.pth", "InternVL3-1B", "Sana_600M_512px"
FROZEN = ("lmm.", "vae.")
VISION = (
    (r"embeddings\.cls_token$", "embeddings.class_embedding"),
    (r"embeddings\.position_embeddings$", "embeddings.position_embedding"),
    (r"patch_embeddings\.projection\.", "patch_embedding."),
    (r"encoder\.layer\.(\d+)\.attention\.projection_layer\.", r"encoder.layers.\1.attn.proj."),
    (r"encoder\.layer\.(\d+)\.attention\.q_proj\.", r"encoder.layers.\1.attn.qkv."),
    (r"encoder\.layer\.(\d+)\.lambda_", r"encoder.layers.\1.ls"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.", r"encoder.layers.\1.norm1."),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.", r"encoder.layers.\1.norm2."),
    (r"encoder\.layer\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
    (r"lmm\.model\.vision_tower\.", "lmm.vision_model."),
    (r"lmm\.model\.language_model\.", "lmm.language_model.model."),
    (r"lmm\.lm_head\.", "lmm.language_model.lm_head."),
    (r"lmm\.model\.multi_modal_projector\.layer_norm\.", "lmm.mlp1.0."),
    (r"lmm\.model\.multi_modal_projector\.linear_1\.", "lmm.mlp1.1."),
    (r"lmm\.model\.multi_modal_projector\.linear_2\.", "lmm.mlp1.3."),
)


def state_of(model: OpenUni) -> dict[str, Tensor]:
    """All weights in the original layout: q, k and v of the vision tower in one tensor."""
    ours = model.network.state_dict()
    kept = [name for name in ours if not re.search(r"vision_tower.*\.[kv]_proj\.", name)]
    theirs = checkpoint.to_upstream(ours)
    assert theirs.keys() == {original(name) for name in kept}
    return theirs


def original(name: str) -> str:
    for pattern, replacement in VISION:
        name = re.sub(pattern, replacement, name)
    return name


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor.contiguous() for name, tensor in state.items() if name.startswith(prefix)}


def trained(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the authors' file holds."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(FROZEN)}


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def publish_language(place: Path, model: OpenUni) -> None:
    language: Any = model.configuration.sizes.language
    vision = language.vision_config
    settings = {
        "model_type": "internvl_chat",
        "downsample_ratio": language.downsample_ratio,
        "llm_config": language.text_config.to_dict(),
        "vision_config": {
            **{name: getattr(vision, name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")},
            **{name: getattr(vision, name) for name in ("num_attention_heads", "hidden_act", "layer_norm_eps")},
            "patch_size": vision.patch_size[0],
            "image_size": vision.image_size[0],
            "qkv_bias": vision.attention_bias,
            "qk_normalization": vision.use_qk_norm,
            "norm_type": vision.norm_type,
        },
    }
    write_json(place / "config.json", settings)
    save_file(part(state_of(model), "lmm."), place / "model.safetensors", metadata={"format": "pt"})
    for name, content in model._companions.items():
        if name != "templates.txt":
            (place / name).write_bytes(content)


def publish_sana(place: Path, model: OpenUni) -> None:
    sizes, state = model.configuration.sizes, state_of(model)
    for name, settings in (("transformer", sizes.transformer), ("vae", sizes.autoencoder)):
        write_json(place / name / "config.json", {"_class_name": "Any", "_diffusers_version": "0.33.1", **settings})
        save_file(part(state, f"{name}."), place / name / "diffusion_pytorch_model.safetensors")
    write_json(place / "scheduler" / "scheduler_config.json", {"flow_shift": 2.5, "prediction_type": "flow_prediction"})


@pytest.fixture(autouse=True)
def narrow_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny connector has two heads of 16."""
    monkeypatch.setattr(upstream, "HEAD_WIDTH", 16)


@pytest.fixture
def model() -> OpenUni:
    return OpenUni.smallest(seed=0)


@pytest.fixture
def published(model: OpenUni, tmp_path: Path) -> Path:
    """The three downloads side by side; OpenUni's own directory."""
    hub = tmp_path / "hub"
    publish_language(hub / LANGUAGE, model)
    publish_sana(hub / SANA, model)
    (hub / "openuni").mkdir()
    torch.save(trained(state_of(model)), hub / "openuni" / WEIGHTS)
    (hub / "openuni" / "templates.txt").write_text("\n".join(model.templates))
    return hub / "openuni"


def equal(one: OpenUni, other: OpenUni) -> bool:
    ours, theirs = one.network.state_dict(), other.network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_published_files_give_the_same_model(published: Path, model: OpenUni) -> None:
    read = OpenUni.load(published)
    assert equal(read, model)
    assert read.templates == model.templates
    ours, theirs = model.configuration.as_json(), read.configuration.as_json()
    assert theirs["drawing"] == {"guidance": 4.5, "steps": 20, "flow_shift": 2.5}
    assert theirs["learning"] == ours["learning"]
    assert theirs["image_side"] == ours["image_side"]
    assert read.configuration.sizes.picture_tokens == model.configuration.sizes.picture_tokens


def test_the_read_model_computes_what_the_written_one_does(published: Path, model: OpenUni) -> None:
    read, images, dropped = OpenUni.load(published), model.prepare(tiny_pictures(2)), torch.tensor([False, True])
    told = []
    with torch.no_grad():
        for adapter in (model, read):
            condition = adapter.condition(adapter.understand(images), ["draw it"] * 2, dropped)
            told.append(adapter.network.ask(condition.embeddings, condition.attention).condition)
    assert torch.equal(*told)


def test_parts_are_found_inside_the_directory_too(published: Path, model: OpenUni) -> None:
    for name in (LANGUAGE, SANA):
        (published.parent / name).rename(published / name)
    assert equal(OpenUni.load(published), model)


def test_what_was_published_is_saved_as_ours(published: Path, model: OpenUni, tmp_path: Path) -> None:
    OpenUni.load(published).save(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "openuni"
    again = OpenUni.load(tmp_path / "ours")
    assert equal(again, model)
    assert again.templates == model.templates
    assert again.configuration.as_json() == OpenUni.load(published).configuration.as_json()


def test_a_file_with_the_frozen_parts_is_read_alone(published: Path) -> None:
    other = OpenUni.smallest(seed=1)
    torch.save(state_of(other), published / WEIGHTS)
    assert equal(OpenUni.load(published), other)


def test_of_several_downloads_the_one_that_fits_is_taken(published: Path, model: OpenUni) -> None:
    hub = published.parent
    write_json(
        hub / "InternVL3-2B" / "config.json", {"model_type": "internvl_chat", "llm_config": {"hidden_size": 1536}}
    )
    larger = model.configuration.sizes.transformer | {"num_layers": 20}
    for name, settings in (("transformer", larger), ("vae", {})):
        write_json(hub / "Sana_1600M" / name / "config.json", settings)
    assert equal(OpenUni.load(published), model)
    publish_language(hub / "copy", model)
    with pytest.raises(CheckpointRefused, match="2 of 3 InternVL3"):
        OpenUni.load(published)


def test_an_absent_or_unfitting_download_is_said(published: Path) -> None:
    hub = published.parent
    settings = json.loads((hub / SANA / "transformer" / "config.json").read_text())
    write_json(hub / SANA / "transformer" / "config.json", settings | {"num_layers": 9})
    with pytest.raises(CheckpointRefused, match="0 of 1 SANA"):
        OpenUni.load(published)
    (hub / SANA / "transformer" / "config.json").unlink()
    with pytest.raises(PrerequisiteMissing, match="no SANA directory"):
        OpenUni.load(published)
    (hub / LANGUAGE / "config.json").unlink()
    with pytest.raises(PrerequisiteMissing, match="no InternVL3 directory"):
        OpenUni.load(published)


def test_two_models_in_one_directory_are_refused(published: Path) -> None:
    (published / "other.pth").write_bytes((published / WEIGHTS).read_bytes())
    with pytest.raises(CheckpointRefused, match=r"other\.pth"):
        OpenUni.load(published)


def test_half_precision_files_become_float32(published: Path, model: OpenUni) -> None:
    torch.save({name: tensor.bfloat16() for name, tensor in trained(state_of(model)).items()}, published / WEIGHTS)
    assert {parameter.dtype for parameter in OpenUni.load(published).network.parameters()} == {torch.float32}


@pytest.mark.parametrize("damage", ["missing", "extra", "renamed", "transposed"])
@pytest.mark.parametrize("name", ["projector.bias", "connector.layers.1.mlp.fc2.weight", "transformer.proj_out.bias"])
def test_damage_is_refused_by_name(published: Path, model: OpenUni, damage: str, name: str) -> None:
    state = trained(state_of(model))
    tensor = state.pop(name)
    changed = {"missing": {}, "extra": {name: tensor, f"{name}_": tensor}, "renamed": {f"{name}_": tensor}}
    changed["transposed"] = {name: torch.zeros(3, 5)}
    torch.save(state | changed[damage], published / WEIGHTS)
    with pytest.raises(CheckpointRefused) as refusal:
        OpenUni.load(published)
    assert name in str(refusal.value)


@pytest.mark.parametrize("name", ["meta_queries", "projector.weight", "connector.layers.0.mlp.fc1.weight"])
def test_weights_without_what_tells_the_sizes_are_refused_by_name(published: Path, model: OpenUni, name: str) -> None:
    torch.save({n: t for n, t in trained(state_of(model)).items() if n != name}, published / WEIGHTS)
    with pytest.raises(CheckpointRefused, match=f"missing: {re.escape(name)}"):
        OpenUni.load(published)


def test_a_connector_of_a_published_width_has_its_published_depth(
    published: Path, model: OpenUni, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = trained(state_of(model))
    width, layers = len(state["connector.layers.0.layer_norm1.bias"]), 2
    monkeypatch.setitem(upstream.DEPTHS, width, layers)
    assert equal(OpenUni.load(published), model)
    torch.save({n: t for n, t in state.items() if "connector.layers.1." not in n}, published / WEIGHTS)
    with pytest.raises(CheckpointRefused, match=r"missing: connector\.layers\.1\.layer_norm1\.bias"):
        OpenUni.load(published)
    assert upstream.DEPTHS[896] == 6


@pytest.mark.parametrize("name", ["meta_queries", "connector.layers.0.layer_norm1.bias", "projector.bias"])
def test_empty_and_shapeless_tensors_are_refused_by_name(published: Path, model: OpenUni, name: str) -> None:
    state = trained(state_of(model))
    for damaged in (state[name][:0].clone(), torch.zeros(())):
        torch.save(state | {name: damaged}, published / WEIGHTS)
        with pytest.raises(CheckpointRefused, match=rf"{re.escape(name)} is \["):
            OpenUni.load(published)


@pytest.mark.parametrize("rows", [0, 2])
def test_a_fused_projection_that_is_no_stack_of_three_is_refused_by_name(
    published: Path, model: OpenUni, rows: int
) -> None:
    state, name = part(state_of(model), "lmm."), "vision_model.encoder.layers.0.attn.qkv.weight"
    for damaged in (state[name][:rows].clone(), torch.zeros(())):
        save_file(state | {name: damaged}, published.parent / LANGUAGE / "model.safetensors")
        with pytest.raises(CheckpointRefused, match=r"attn\.qkv\.weight"):
            OpenUni.load(published)


@pytest.mark.parametrize("file", ["transformer/config.json", "vae/config.json"])
@pytest.mark.parametrize("content", ["{}", '{"caption_channels": "x"}', "[]", "{"])
def test_a_damaged_configuration_of_sana_is_refused(published: Path, file: str, content: str) -> None:
    (published.parent / SANA / file).write_text(content)
    with pytest.raises(CheckpointRefused, match=r"SANA|JSON"):
        OpenUni.load(published)


def test_a_damaged_frozen_part_is_refused_by_name(published: Path, model: OpenUni) -> None:
    state = part(state_of(model), "lmm.")
    del state["mlp1.1.weight"]
    save_file(state, published.parent / LANGUAGE / "model.safetensors")
    with pytest.raises(CheckpointRefused, match=r"multi_modal_projector\.linear_1\.weight"):
        OpenUni.load(published)


class Attack:
    """Unpickling this would create a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_nothing(published: Path) -> None:
    torch.save({"weight": Attack(published / "ran")}, published / WEIGHTS)
    with pytest.raises(CheckpointRefused, match="run code"):
        OpenUni.load(published)
    assert not (published / "ran").exists()


def test_a_tied_head_is_neither_needed_nor_written_twice(published: Path, model: OpenUni, tmp_path: Path) -> None:
    config = published.parent / LANGUAGE / "config.json"
    settings = json.loads(config.read_text())
    settings["llm_config"]["tie_word_embeddings"] = True
    write_json(config, settings)
    state = part(state_of(model), "lmm.")
    untied = OpenUni.load(published).network
    assert not torch.equal(untied.lmm.lm_head.weight, untied.lmm.model.language_model.embed_tokens.weight)
    del state["language_model.lm_head.weight"]
    save_file(state, published.parent / LANGUAGE / "model.safetensors")
    tied = OpenUni.load(published)
    assert tied.network.lmm.lm_head.weight is tied.network.lmm.model.language_model.embed_tokens.weight
    tied.save(tmp_path / "ours")
    again = OpenUni.load(tmp_path / "ours").network.state_dict()
    assert torch.equal(again[TEXT_HEAD], again[WORDS])


def test_a_download_without_tokenizer_json_is_read_from_vocabulary_and_merges(published: Path) -> None:
    place = published.parent / LANGUAGE
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (place / file).unlink()
    with pytest.raises(PrerequisiteMissing, match="no tokenizer files"):
        OpenUni.load(published)
    pieces = [*sorted(ByteLevel.alphabet()), "dr", "aw", "draw"]
    write_json(place / "vocab.json", {piece: index for index, piece in enumerate(pieces)})
    (place / "merges.txt").write_text("#version: 0.2\nd r\na w\ndr aw\n")
    order = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "</img>", "<IMG_CONTEXT>", "<img>")
    added = {token: len(pieces) + index for index, token in enumerate(order)}
    write_json(place / "added_tokens.json", added)
    decoder = {index: {"content": token, "special": True, "normalized": False} for token, index in added.items()}
    special = {"additional_special_tokens": list(STRUCTURAL), "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    write_json(
        place / "tokenizer_config.json",
        {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder, **special},
    )
    turns = OpenUni.load(published).turns
    assert {token: turns.tokenizer.get_vocab()[token] for token in added} == added
    assert pieces.index("draw") in turns.question_prompts(["draw"], [True])[0]
    write_json(place / "added_tokens.json", added | {"<img>": 999})
    with pytest.raises(CheckpointRefused, match="<img>"):
        OpenUni.load(published)
    write_json(place / "added_tokens.json", added)


def test_the_tokenizer_made_from_vocabulary_and_merges_is_kept(published: Path, tmp_path: Path) -> None:
    test_a_download_without_tokenizer_json_is_read_from_vocabulary_and_merges(published)
    read = OpenUni.load(published)
    read.save(tmp_path / "ours")
    again = OpenUni.load(tmp_path / "ours")
    assert again.turns.question_prompts(["draw it"], [True]) == read.turns.question_prompts(["draw it"], [True])
    assert again.turns.drawing_prompts(["a <img>"]) == read.turns.drawing_prompts(["a"])
