"""Show-o between the authors' files and ours: what ``reca convert`` needs to know (reca_core/models/published.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reca_core.models import directory as common
from reca_core.models.pickles import Weights
from reca_core.models.published import Published, WeightsFile
from reca_core.models.showo import checkpoint, upstream
from reca_core.models.showo.adapter import STAGES, unread_layers
from reca_core.models.showo.configuration import ShowoConfiguration
from reca_core.models.showo.network import ShowoNetwork
from reca_core.models.state import without_memory

SINGLE_FILE = "pytorch_model.bin"


def is_published(place: Path) -> bool:
    """True for the authors' config.json, and for a recorded set."""
    return (place / common.CONFIG).is_file() and upstream.is_upstream(place)


def published(place: Path, which: Weights | None, chosen: Path | None) -> Published:
    """Read the authors' layout."""
    return upstream.find(place, which, chosen)


def configuration(directory: Path) -> ShowoConfiguration:
    """Of a directory in our layout."""
    return ShowoConfiguration.from_json(common.read_settings(directory), str(directory / common.CONFIG))


def network(configuration: ShowoConfiguration) -> nn.Module:
    """With parameters of shape alone."""
    with without_memory():
        return ShowoNetwork(configuration.sizes)


def from_upstream(state: Mapping[str, Tensor], configuration: ShowoConfiguration) -> dict[str, Tensor]:
    """Full upstream names to ours."""
    return checkpoint.from_upstream(state)


def to_upstream(state: Mapping[str, Tensor], configuration: ShowoConfiguration) -> dict[str, Tensor]:
    """Our names to full upstream names."""
    return checkpoint.to_upstream(state)


def settle(configuration: ShowoConfiguration, state: Mapping[str, Tensor]) -> None:
    """The text head is never tied."""


def derivable(configuration: ShowoConfiguration) -> frozenset[str]:
    """The tables of sign patterns."""
    return frozenset(checkpoint.PATTERNS)


def harmless(name: str) -> bool:
    """The tables of sign patterns, and what of CLIP is not Show-o's."""
    return checkpoint.our_name(name) in checkpoint.PATTERNS or upstream.is_unread(name)


def trainable(names: Iterable[str], configuration: ShowoConfiguration) -> frozenset[str]:
    """What post-training changes."""
    left_alone = (*STAGES["post"], *unread_layers(configuration))
    return frozenset(name for name in names if not name.startswith(left_alone))


def companions(found: Published) -> dict[str, bytes]:
    """Tokenizer and templates."""
    templates = {name: path.read_bytes() for name, path in found.small.items() if name == common.TEMPLATES}
    return (common.read_companions(found.words) if found.words else {}) | templates


def write_settings(directory: Path, configuration: ShowoConfiguration) -> None:
    """config.json and generation_config.json."""
    common.write_settings(directory, configuration.as_json())


def settings(configuration: ShowoConfiguration) -> dict[str, Any]:
    """All of ours."""
    return configuration.as_json()


def default_files(configuration: ShowoConfiguration) -> tuple[WeightsFile, ...]:
    """As the authors publish them, the other downloads in folders of their own."""
    files = [WeightsFile(SINGLE_FILE), WeightsFile(f"{upstream.TOKENIZER}/{SINGLE_FILE}", checkpoint.TOKENIZER)]
    if configuration.sizes.clip is not None:
        files.append(WeightsFile(f"{upstream.TOWER}/{SINGLE_FILE}", checkpoint.CLIP))
    return tuple(files)


def upstream_settings(configuration: ShowoConfiguration, companions: Mapping[str, bytes]) -> dict[str, bytes]:
    """The configurations of Show-o, of its language model and of its tower; the tokenizer lies with the second."""
    ours = configuration.as_json()
    language = ours["language"] | {"model_type": "phi", "vocab_size": configuration.text_vocabulary}
    showo = {
        "_class_name": upstream.CLASS,
        "w_clip_vit": ours["clip"] is not None,
        "vocab_size": ours["language"]["vocab_size"],
        "llm_vocab_size": configuration.text_vocabulary,
        "llm_model_path": f"microsoft/{upstream.LANGUAGE}",
        "codebook_size": 2**configuration.sizes.tokenizer.bits,
        "num_vq_tokens": configuration.tokens,
        "mask_token_id": ours["language"]["vocab_size"] - 1,
    }
    values: dict[str, Any] = {common.CONFIG: showo, f"{upstream.LANGUAGE}/{common.CONFIG}": language}
    if ours["clip"] is not None:
        values[f"{upstream.TOWER}/{common.CONFIG}"] = {"model_type": "clip", "vision_config": ours["clip"]}
    words = {
        name if name == common.TEMPLATES else f"{upstream.LANGUAGE}/{name}": content
        for name, content in companions.items()
    }
    return words | {name: json.dumps(value, indent=2).encode() for name, value in values.items()}
