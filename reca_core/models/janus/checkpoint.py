"""Janus weights: strictly into the native network, and between transformers' names and DeepSeek's, in both directions.

DeepSeek's files (``model_type: multi_modality``) name the same tensors differently; NAMES is the whole difference,
checked against DeepSeek's own outputs in tests/parity/test_models_janus.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from transformers import (
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.state import fill, without_memory

DEEPSEEK_TYPE = "multi_modality"
LM_HEAD, TEXT_EMBEDDINGS = "lm_head.weight", "model.language_model.embed_tokens.weight"

_SIGLIP, _NATIVE_SIGLIP = "vision_model.vision_tower", "model.vision_model"
_VQ, _NATIVE_VQ = "gen_vision_model", "model.vqmodel"
NAMES: tuple[tuple[str, str], ...] = (
    (f"{_SIGLIP}.patch_embed.proj.{{p}}", f"{_NATIVE_SIGLIP}.embeddings.patch_embedding.{{p}}"),
    (f"{_SIGLIP}.pos_embed", f"{_NATIVE_SIGLIP}.embeddings.position_embedding.weight"),
    (f"{_SIGLIP}.blocks.{{i}}.norm1.{{p}}", f"{_NATIVE_SIGLIP}.encoder.layers.{{i}}.layer_norm1.{{p}}"),
    (f"{_SIGLIP}.blocks.{{i}}.norm2.{{p}}", f"{_NATIVE_SIGLIP}.encoder.layers.{{i}}.layer_norm2.{{p}}"),
    (
        f"{_SIGLIP}.blocks.{{i}}.attn.proj.{{p}}",
        f"{_NATIVE_SIGLIP}.encoder.layers.{{i}}.self_attn.projection_layer.{{p}}",
    ),
    (f"{_SIGLIP}.blocks.{{i}}.mlp.{{rest}}", f"{_NATIVE_SIGLIP}.encoder.layers.{{i}}.mlp.{{rest}}"),
    (f"{_SIGLIP}.norm.{{p}}", f"{_NATIVE_SIGLIP}.post_layernorm.{{p}}"),
    ("aligner.layers.0.{p}", "model.aligner.fc1.{p}"),
    ("aligner.layers.2.{p}", "model.aligner.hidden_layers.0.{p}"),
    ("gen_aligner.layers.0.{p}", "model.generation_aligner.fc1.{p}"),
    ("gen_aligner.layers.2.{p}", "model.generation_aligner.hidden_layers.0.{p}"),
    ("gen_embed.weight", "model.generation_embeddings.weight"),
    ("gen_head.output_mlp_projector.{p}", "model.generation_head.proj_out.{p}"),
    ("gen_head.vision_head.{p}", "model.generation_head.vision_head.{p}"),
    (f"{_VQ}.encoder.conv_blocks.{{i}}.res.{{rest}}", f"{_NATIVE_VQ}.encoder.down.{{i}}.block.{{rest}}"),
    (f"{_VQ}.encoder.conv_blocks.{{i}}.{{rest}}", f"{_NATIVE_VQ}.encoder.down.{{i}}.{{rest}}"),
    (f"{_VQ}.decoder.conv_blocks.{{i}}.res.{{rest}}", f"{_NATIVE_VQ}.decoder.up.{{i}}.block.{{rest}}"),
    (f"{_VQ}.decoder.conv_blocks.{{i}}.{{rest}}", f"{_NATIVE_VQ}.decoder.up.{{i}}.{{rest}}"),
    (f"{_VQ}.{{coder}}.mid.0.{{rest}}", f"{_NATIVE_VQ}.{{coder}}.mid.block_1.{{rest}}"),
    (f"{_VQ}.{{coder}}.mid.1.{{rest}}", f"{_NATIVE_VQ}.{{coder}}.mid.attn_1.{{rest}}"),
    (f"{_VQ}.{{coder}}.mid.2.{{rest}}", f"{_NATIVE_VQ}.{{coder}}.mid.block_2.{{rest}}"),
    (f"{_VQ}.{{rest}}", f"{_NATIVE_VQ}.{{rest}}"),
    ("language_model.model.{rest}", "model.language_model.{rest}"),
    ("language_model.lm_head.weight", LM_HEAD),
)
"""(DeepSeek's name, transformers' name); the first line that matches decides, in both directions."""

QKV = re.compile(rf"{re.escape(_SIGLIP)}\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
PROJECTION = re.compile(rf"{re.escape(_NATIVE_SIGLIP)}\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)")
"""timm stacks query, key and value in one matrix; transformers keeps three."""
UNUSED = re.compile(rf"{re.escape(_SIGLIP)}\.attn_pool\..+|{re.escape(_VQ)}\.quantize\.codebook_used")
"""Tensors of DeepSeek's files that no computation reads; a conversion carries them along."""
_FIELDS = {"p": "weight|bias", "i": r"\d+", "coder": "encoder|decoder", "rest": ".+"}

SIGLIP_SIZES: dict[str, dict[str, Any]] = {
    "siglip_large_patch16_384": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 16,
    },
}  # fmt: skip
"""timm model name in DeepSeek's config -> sizes; the only one that published checkpoints use."""


def build(config: JanusConfig, state: Mapping[str, Tensor], where: Path) -> JanusForConditionalGeneration:
    """The native network with exactly these weights. Raises CheckpointRefused naming the keys that do not fit."""
    config.tie_word_embeddings = tied(config, state)
    with without_memory():
        network = JanusForConditionalGeneration(config)
    derivable = (LM_HEAD,) if config.tie_word_embeddings else ()
    fill(network, state, where, derivable=derivable)
    network.tie_weights()
    return network


def tied(config: JanusConfig, state: Mapping[str, Tensor]) -> bool:
    """Config says whether one matrix serves as text embedding and text head, unless the file has two different ones."""
    if not config.tie_word_embeddings:
        return False
    head, embeddings = state.get(LM_HEAD), state.get(TEXT_EMBEDDINGS)
    return head is None or (embeddings is not None and torch.equal(head, embeddings))


@dataclass(frozen=True)
class Sizes:
    """Sides in pixels, and how many embeddings and codes stand for one picture."""

    understanding_side: int
    target_side: int
    understanding_tokens: int
    image_tokens: int

    @classmethod
    def of(cls, config: JanusConfig) -> Sizes:
        """Read off: the image tokenizer halves the side at every level but the last; its grid is the vision grid."""
        vision: Any = config.vision_config
        codes: Any = config.vq_config
        grid: int = codes.num_patches
        return cls(vision.image_size, grid * 2 ** (len(codes.channel_multiplier) - 1), vision.num_image_tokens, grid**2)


# ---- DeepSeek's layout -----------------------------------------------------------------------------------------


def config_from_deepseek(settings: Mapping[str, Any]) -> JanusConfig:
    """DeepSeek's config.json as transformers' config. Raises CheckpointRefused for an unknown vision tower."""
    vision = settings["vision_config"]["params"]
    sizes = SIGLIP_SIZES.get(vision["model_name"])
    if sizes is None:
        raise CheckpointRefused(
            f"unknown vision tower {vision['model_name']!r}", field="vision_config", choices=tuple(SIGLIP_SIZES)
        )
    text = LlamaConfig(**{k: v for k, v in settings["language_config"].items() if k != "model_type"})
    codes = settings["gen_vision_config"]["params"]
    tokens = (vision["image_size"] // sizes["patch_size"]) ** 2
    return JanusConfig(
        text_config=text,
        vision_config=JanusVisionConfig(
            image_size=vision["image_size"], projection_dim=text.hidden_size, num_image_tokens=tokens, **sizes
        ),
        vq_config=JanusVQVAEConfig(
            num_embeddings=codes["image_token_size"],
            embed_dim=codes["n_embed"],
            projection_dim=text.hidden_size,
            image_token_embed_dim=text.hidden_size,
        ),
        tie_word_embeddings=False,
    )


def config_to_deepseek(config: JanusConfig) -> dict[str, Any]:
    """DeepSeek's config.json of transformers' config. Its loader knows the tower by name and fixes the tokenizer's
    channels, so a model of other sizes than the published ones is read back through ``reca.json`` alone.
    """
    text: Any = config.text_config
    vision: Any = config.vision_config
    codes: Any = config.vq_config
    width = text.hidden_size
    named = [name for name, sizes in SIGLIP_SIZES.items() if all(getattr(vision, k) == v for k, v in sizes.items())]
    connector = {"depth": 2, "n_embed": width, "projector_type": "mlp_gelu"}

    def part(kind: str, name: str, **params: Any) -> dict[str, Any]:
        return {"cls": name, "model_type": kind, "params": params}

    return {
        "model_type": DEEPSEEK_TYPE,
        "architectures": ["MultiModalityCausalLM"],
        "language_config": {**text.to_dict(), "model_type": "llama"},
        "vision_config": part(
            "vision",
            "CLIPVisionTower",
            image_size=vision.image_size,
            model_name=named[0] if named else "siglip",
            select_feature="same",
            select_layer=-1,
        ),
        "aligner_config": part("aligner", "MlpProjector", input_dim=vision.hidden_size, **connector),
        "gen_vision_config": part(
            "gen_vision", "VQ-16", image_token_size=codes.num_embeddings, n_embed=codes.embed_dim
        ),
        "gen_aligner_config": part("gen_aligner", "MlpProjector", input_dim=codes.embed_dim, **connector),
        "gen_head_config": part(
            "gen_head",
            "vision_head",
            image_token_embed=codes.image_token_embed_dim,
            image_token_size=codes.num_embeddings,
            n_embed=width,
        ),
    }


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(f"(?P<{p}>{_FIELDS[p]})" if n % 2 else re.escape(p) for n, p in enumerate(parts)))


_TO_NATIVE = tuple((_pattern(theirs), native) for theirs, native in NAMES)
_TO_DEEPSEEK = tuple((_pattern(native), theirs) for theirs, native in NAMES)


def _renamed(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    """By the first rule that matches; a name that no rule knows stays and is reported as unexpected."""
    for pattern, template in rules:
        if match := pattern.fullmatch(name):
            return template.format(**match.groupdict())
    return name


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DeepSeek's names to transformers'. Unknown names pass unchanged, so that the strict comparison names them."""
    native: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if UNUSED.fullmatch(name):
            continue
        if (match := QKV.fullmatch(name)) and _stacked(tensor):
            for letter, rows in zip("qkv", tensor.chunk(3), strict=True):
                native[_projection(match[1], letter, match[2])] = rows.clone()
        else:
            native[_renamed(name, _TO_NATIVE)] = tensor.squeeze(0) if name.endswith(".pos_embed") else tensor
    return native


def _stacked(tensor: Tensor) -> bool:
    """True if three projections of one size may be stacked in it; a damaged one keeps its name and is reported."""
    return tensor.dim() > 0 and len(tensor) > 0 and len(tensor) % 3 == 0


def to_deepseek(native: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names to DeepSeek's, without the tensors that nothing reads. A tied head is written out."""
    head = native.get(LM_HEAD, native.get(TEXT_EMBEDDINGS))
    named = dict(native) if head is None else {**native, LM_HEAD: head}
    state: dict[str, Tensor] = {}
    for name, tensor in named.items():
        if match := PROJECTION.fullmatch(name):
            layer, letter, kind = match.groups()
            rows = [named.get(_projection(layer, each, kind)) for each in "qkv"]
            if letter == "q" and None not in rows:
                state[f"{_SIGLIP}.blocks.{layer}.attn.qkv.{kind}"] = torch.cat([row for row in rows if row is not None])
        else:
            theirs = _renamed(name, _TO_DEEPSEEK)
            state[theirs] = rearrange(tensor, "p d -> 1 p d") if theirs.endswith(".pos_embed") else tensor
    return state


def _projection(layer: str, letter: str, kind: str) -> str:
    return f"{_NATIVE_SIGLIP}.encoder.layers.{layer}.self_attn.{letter}_proj.{kind}"
