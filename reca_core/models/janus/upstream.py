"""Janus as DeepSeek publishes it: ``model_type: multi_modality``, a pickle or its shards, tokenizer, picture settings.

Key names: checkpoint.py. Sizes: DeepSeek's config.json names the published vision tower; where ``reca.json`` lies
beside it (an export of ours), that says all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models import directory as common
from reca_core.models.janus.checkpoint import DEEPSEEK_TYPE, config_from_deepseek
from reca_core.models.pickles import Weights
from reca_core.models.published import (
    SETTINGS,
    Published,
    WeightsFile,
    is_recorded,
    read_file,
    recorded,
    small_files,
    weights_in_directory,
)


def is_upstream(directory: Path) -> bool:
    """True for DeepSeek's config.json, and for a recorded set."""
    if not (directory / common.CONFIG).is_file():
        return False
    return common.read_json(directory / common.CONFIG).get("model_type") == DEEPSEEK_TYPE or is_recorded(directory)


def find(directory: Path, which: Weights | None = None, chosen: Path | None = None) -> Published:
    """The checkpoint under DeepSeek's names. Raises CheckpointRefused for sizes that cannot be told."""
    if is_recorded(directory):
        return recorded(directory, recorded_configuration, (), which, chosen)
    path = chosen or weights_in_directory(directory)
    file = WeightsFile(path.name)
    state = read_file(path, file, which or "model")
    return Published(configuration_of(directory), (file,), state, small_files(directory), directory)


def configuration_of(directory: Path) -> JanusConfig:
    """From ``reca.json`` if an export of ours put one there, else from DeepSeek's config.json.

    Raises CheckpointRefused for entries that are absent or of another kind.
    """
    path = directory / (SETTINGS if (directory / SETTINGS).is_file() else common.CONFIG)
    settings = common.read_json(path)
    try:
        return JanusConfig(**settings) if path.name == SETTINGS else config_from_deepseek(settings)
    except (KeyError, TypeError, ValueError, AttributeError, StrictDataclassError) as error:
        raise CheckpointRefused(f"does not describe a Janus ({error!r})", field=str(path)) from error


def recorded_configuration(sizes: Mapping[str, Any]) -> JanusConfig:
    """Of a recorded set, whose config.json says every size."""
    vision, codes, text = sizes["vision"], sizes["vq"], sizes["llm"]
    return JanusConfig(
        text_config=LlamaConfig(**text),
        vision_config=JanusVisionConfig(
            hidden_size=vision["width"],
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["heads"],
            mlp_ratio=vision["mlp_ratio"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            projection_dim=text["hidden_size"],
            num_image_tokens=sizes["num_und_tokens"],
        ),
        vq_config=JanusVQVAEConfig(
            num_embeddings=codes["codebook_size"],
            embed_dim=codes["codebook_embed_dim"],
            base_channels=codes["ch"],
            channel_multiplier=codes["ch_mult"],
            num_res_blocks=codes["num_res_blocks"],
            latent_channels=codes["z_channels"],
            projection_dim=text["hidden_size"],
            image_token_embed_dim=sizes["image_token_embed"],
        ),
        tie_word_embeddings=text["tie_word_embeddings"],
    )
