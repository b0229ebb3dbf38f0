"""Finding and reading Janus checkpoints: names, layouts, refusals, and files that want to run code."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import JanusForConditionalGeneration, JanusProcessor

from reca_core.contracts.errors import BadInput, CheckpointRefused, PrerequisiteMissing
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel
from reca_core.models.janus import upstream
from reca_core.models.janus.adapter import Janus
from reca_core.models.janus.checkpoint import Sizes, config_from_deepseek, to_deepseek, to_native
from reca_core.models.load import load_adapter
from tests.reca_core.tiny_janus import save_tiny_janus, tiny_janus

PRO_1B = {
    "model_type": "multi_modality",
    "gen_vision_config": {"params": {"image_token_size": 16384, "n_embed": 8}},
    "language_config": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 16384,
        "num_attention_heads": 16, "num_hidden_layers": 24, "num_key_value_heads": 16, "vocab_size": 102400,
    },
    "vision_config": {"params": {"image_size": 384, "model_name": "siglip_large_patch16_384"}},
}  # fmt: skip
"""The fields of DeepSeek's config.json for Janus-Pro-1B that decide sizes."""
UNREAD = {
    "vision_model.vision_tower.attn_pool.latent": torch.ones(2),
    "gen_vision_model.quantize.codebook_used": torch.ones(3),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_tiny_janus(tmp_path / "model")


def as_pickle(saved: Path) -> Path:
    """The same checkpoint with its weights in a ``.bin`` file."""
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    return saved / "pytorch_model.bin"


def equal(first: Janus, second: Janus) -> bool:
    pairs = zip(first.network.state_dict().items(), second.network.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# ---- layouts ---------------------------------------------------------------------------------------------------


def test_transformers_own_classes_read_what_we_save(saved: Path) -> None:
    model = JanusForConditionalGeneration.from_pretrained(saved)
    ours = Janus.load(saved).network.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in model.state_dict().items())
    assert model.generation_config.generation_kwargs["boi_token_id"] == Janus.load(saved).chat.ids.boi
    assert JanusProcessor.from_pretrained(saved).tokenizer.get_vocab() == Janus.load(saved).tokenizer.get_vocab()


def test_weights_in_shards_and_in_a_pickle_load_alike(saved: Path) -> None:
    whole = Janus.load(saved)
    whole.network.save_pretrained(saved / "shards", max_shard_size="100KB")
    for name, content in whole._companions.items():
        (saved / "shards" / name).write_bytes(content)
    assert len(list((saved / "shards").glob("*.safetensors"))) > 1
    assert equal(Janus.load(saved / "shards"), whole)
    as_pickle(saved)
    assert equal(Janus.load(saved), whole)


def test_loading_and_training_leave_the_files_alone(saved: Path) -> None:
    before = sha256_tree(saved)
    model = Janus.load(saved)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(1)
    assert sha256_tree(saved) == before


def test_a_head_that_differs_from_the_embeddings_is_not_tied(tmp_path: Path) -> None:
    untied = tiny_janus(tied=False)
    untied.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))  # transformers' default says tied
    assert equal(Janus.load(tmp_path), untied)


def test_half_precision_files_load_as_float32(saved: Path) -> None:
    file = saved / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    assert {parameter.dtype for parameter in Janus.load(saved).network.parameters()} == {torch.float32}


def test_deepseek_s_layout_loads_as_the_same_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Janus.load(saved)
    theirs = to_deepseek(ours.network.state_dict()) | UNREAD
    (saved / "model.safetensors").unlink()
    torch.save(theirs, saved / "pytorch_model.bin")
    (saved / "config.json").write_text(json.dumps(PRO_1B))
    (saved / "chat_template.jinja").write_text("{{ messages[0].content }}")  # a text-only one must not be used
    monkeypatch.setattr(upstream, "config_from_deepseek", lambda settings: tiny_janus(tied=False).network.config)
    read = Janus.load(saved)
    assert equal(read, ours)
    assert read.chat.system_prompt
    read.save(saved / "again")
    again = Janus.load(saved / "again")
    assert equal(again, ours)
    assert again.chat.system_prompt == read.chat.system_prompt


def test_a_processor_s_old_template_file_is_read(saved: Path) -> None:
    template = (saved / "chat_template.jinja").read_text().replace("<|User|>", "<|User|>left ")
    (saved / "chat_template.jinja").unlink()
    (saved / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    model = Janus.load(saved)
    assert "left" in model.tokenizer.convert_ids_to_tokens(model.chat.drawing_prompts(["red"])[0])
    model.save(saved / "again")
    assert Janus.load(saved / "again").chat.drawing_prompts(["red"]) == model.chat.drawing_prompts(["red"])


def test_renaming_there_and_back_is_the_identity() -> None:
    native = dict(tiny_janus(tied=False).network.state_dict())
    back = to_native(to_deepseek(native))
    assert back.keys() == native.keys()
    assert all(torch.equal(back[name], native[name]) for name in native)


def test_the_published_configuration_has_the_published_size() -> None:
    config = config_from_deepseek(PRO_1B)
    assert Sizes.of(config) == Sizes(384, 384, 576, 576)
    with torch.device("meta"):
        network = JanusForConditionalGeneration(config)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert 2.0e9 < parameters < 2.1e9
    names = set(to_deepseek(network.state_dict()))
    assert {"vision_model.vision_tower.blocks.23.attn.qkv.weight", "gen_vision_model.encoder.mid.1.q.weight"} <= names
    assert not any(name.startswith("model.") for name in names)


def test_an_unknown_vision_tower_is_refused_with_the_choices() -> None:
    vision = {"params": {"image_size": 384, "model_name": "siglip_so400m_patch14_384"}}
    with pytest.raises(CheckpointRefused, match="siglip_large_patch16_384"):
        config_from_deepseek(PRO_1B | {"vision_config": vision})


# ---- files that are not what they should be --------------------------------------------------------------------


class Attack:
    """Unpickling this would create a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


def test_a_pickle_that_wants_to_run_code_is_refused_and_runs_nothing(saved: Path, tmp_path: Path) -> None:
    file = as_pickle(saved)
    torch.save({"lm_head.weight": torch.ones(1), "payload": Attack(tmp_path / "ran")}, file)
    with pytest.raises(CheckpointRefused, match="run code"):
        Janus.load(saved)
    file.write_bytes(pickle.dumps(Attack(tmp_path / "ran")))
    with pytest.raises(CheckpointRefused):
        Janus.load(saved)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [["a list"], {"epoch": 3, "weights": {}}])
def test_a_pickle_of_something_else_is_refused(saved: Path, content: object) -> None:
    torch.save(content, as_pickle(saved))
    with pytest.raises(CheckpointRefused, match="not tensors alone"):
        Janus.load(saved)


def test_an_index_cannot_point_outside_its_directory(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved.parent / "model.safetensors")
    index = {"weight_map": {"lm_head.weight": "../model.safetensors"}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointRefused, match="not in its directory"):
        Janus.load(saved)


@pytest.mark.parametrize(
    "content", ['{"weight_map": {', "{}", "[]", '{"weight_map": {}}', '{"weight_map": {"lm_head.weight": 1}}', "\xff"]
)
def test_a_damaged_index_is_refused_by_its_name(saved: Path, content: str) -> None:
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointRefused, match=r"model\.safetensors\.index\.json"):
        Janus.load(saved)


@pytest.mark.parametrize(
    "content",
    [
        '{"image_mean": ',
        "[]",
        "\xff",
        '{"image_mean": "x"}',
        '{"image_std": [1]}',
        '{"image_mean": [1, 1, 1], "min_size": "x"}',
    ],
)
def test_damaged_picture_settings_are_refused_by_their_file(saved: Path, content: str) -> None:
    (saved / "preprocessor_config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointRefused, match=r"preprocessor_config\.json"):
        Janus.load(saved)


@pytest.mark.parametrize("damaged", [torch.zeros(()), torch.zeros(0), torch.zeros(2)])
def test_a_fused_projection_that_is_no_stack_of_three_keeps_its_name(damaged: torch.Tensor) -> None:
    name = "vision_model.vision_tower.blocks.0.attn.qkv.bias"
    assert name in to_native({name: damaged})


@pytest.mark.parametrize("settings", [{"vision_config": 1}, {"vision_config": {"params": {}}}])
def test_a_configuration_of_deepseek_that_says_too_little_is_refused(saved: Path, settings: dict[str, object]) -> None:
    (saved / "config.json").write_text(json.dumps(PRO_1B | settings))
    with pytest.raises(CheckpointRefused, match="does not describe a Janus"):
        upstream.configuration_of(saved)
    (saved / "reca.json").write_text(json.dumps({"text_config": "x"}))
    with pytest.raises(CheckpointRefused, match=r"reca\.json"):
        upstream.configuration_of(saved)


@pytest.mark.parametrize(
    "odd", [{1: torch.ones(1)}, {"a": torch.eye(2).to_sparse()}, {"a": torch.ones(1, device="meta")}, {}]
)
def test_a_pickle_of_nothing_that_can_be_computed_with_is_refused(saved: Path, odd: dict[object, torch.Tensor]) -> None:
    torch.save(odd, as_pickle(saved))
    with pytest.raises(CheckpointRefused, match=r"pytorch_model\.bin"):
        Janus.load(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_an_absent_file_is_a_missing_prerequisite(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(PrerequisiteMissing):
        Janus.load(saved)


def test_an_empty_template_file_is_refused(saved: Path) -> None:
    (saved / "templates.txt").write_text("\n")
    with pytest.raises(CheckpointRefused, match=r"templates\.txt"):
        Janus.load(saved)


# ---- through the registry --------------------------------------------------------------------------------------


def test_a_resolved_model_loads_through_the_registry(saved: Path) -> None:
    model = ResolvedModel(name="tiny", family="janus", path=str(saved), sha256=sha256_tree(saved))
    assert equal(load_adapter(model), Janus.load(saved))  # type: ignore[arg-type]


def test_an_unregistered_family_is_refused_with_the_choices(saved: Path) -> None:
    model = ResolvedModel(name="tiny", family="janos", path=str(saved), sha256=sha256_tree(saved))
    with pytest.raises(BadInput, match="janus"):
        load_adapter(model)
