"""Janus between DeepSeek's layout and ours, which is transformers': what ``reca convert`` needs to know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import JanusConfig, JanusForConditionalGeneration

from reca_core.models import directory as common
from reca_core.models.janus import checkpoint, upstream
from reca_core.models.janus import directory as layout
from reca_core.models.janus.adapter import STAGES
from reca_core.models.janus.chat import ChatFormat
from reca_core.models.janus.pictures import PictureTransform
from reca_core.models.pickles import Weights
from reca_core.models.published import Published, WeightsFile
from reca_core.models.state import without_memory

SINGLE_FILE = "pytorch_model.bin"
ARCHITECTURE = "JanusForConditionalGeneration"


def is_published(place: Path) -> bool:
    """True for DeepSeek's config.json, and for a recorded set."""
    return upstream.is_upstream(place)


def published(place: Path, which: Weights | None, chosen: Path | None) -> Published:
    """Read DeepSeek's layout."""
    return upstream.find(place, which, chosen)


def configuration(directory: Path) -> JanusConfig:
    """Of a directory in transformers' layout."""
    common.read_json(directory / common.CONFIG)
    config: JanusConfig = JanusConfig.from_pretrained(directory)
    return config


def network(configuration: JanusConfig) -> nn.Module:
    """With parameters of shape alone."""
    with without_memory():
        return JanusForConditionalGeneration(configuration)


def from_upstream(state: Mapping[str, Tensor], configuration: JanusConfig) -> dict[str, Tensor]:
    """DeepSeek's names to transformers'."""
    return checkpoint.to_native(state)


def to_upstream(state: Mapping[str, Tensor], configuration: JanusConfig) -> dict[str, Tensor]:
    """transformers' names to DeepSeek's."""
    return checkpoint.to_deepseek(state)


def settle(configuration: JanusConfig, state: Mapping[str, Tensor]) -> None:
    """A text head that differs from the word embeddings is not tied to them, whatever config says."""
    configuration.tie_word_embeddings = checkpoint.tied(configuration, state)


def derivable(configuration: JanusConfig) -> frozenset[str]:
    """A head tied to the word embeddings."""
    return frozenset([checkpoint.LM_HEAD] if configuration.tie_word_embeddings else [])


def harmless(name: str) -> bool:
    """Pooling that no path uses, and usage counts of codes."""
    return checkpoint.UNUSED.fullmatch(name) is not None


def trainable(names: Iterable[str], configuration: JanusConfig) -> frozenset[str]:
    """What post-training changes."""
    return frozenset(name for name in names if not name.startswith(STAGES["post"]))


def companions(found: Published) -> dict[str, bytes]:
    """Tokenizer, templates, and DeepSeek's turns and picture settings in transformers' words."""
    if found.words is None or not (found.words / common.TOKENIZER_FILES[0]).is_file():
        return {}
    sizes = checkpoint.Sizes.of(found.configuration)
    transform = PictureTransform.read(found.words, sizes.understanding_side, sizes.target_side)
    return layout.companions_of_deepseek(found.words, transform)


def write_settings(directory: Path, configuration: JanusConfig) -> None:
    """config.json and generation_config.json, with the ids of the tokenizer that lies there."""
    with without_memory():
        model = JanusForConditionalGeneration(configuration)
    if (directory / common.TOKENIZER_FILES[0]).is_file():
        tokens = checkpoint.Sizes.of(configuration).understanding_tokens
        layout.record_token_ids(model, ChatFormat(layout.read_tokenizer(directory), tokens, "").ids)
    model.config.architectures = [ARCHITECTURE]
    model.config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)


def settings(configuration: JanusConfig) -> dict[str, Any]:
    """transformers' configuration."""
    values: dict[str, Any] = json.loads(configuration.to_json_string(use_diff=False))
    return values


def default_files(configuration: JanusConfig) -> tuple[WeightsFile, ...]:
    """As DeepSeek publishes it."""
    return (WeightsFile(SINGLE_FILE),)


def upstream_settings(configuration: JanusConfig, companions: Mapping[str, bytes]) -> dict[str, bytes]:
    """DeepSeek's config.json, beside the tokenizer and picture settings as they are."""
    written = json.dumps(checkpoint.config_to_deepseek(configuration), indent=2).encode()
    return dict(companions) | {common.CONFIG: written}
