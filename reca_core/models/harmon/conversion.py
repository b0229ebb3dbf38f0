"""Harmon between the authors' files and ours: what ``reca convert`` needs to know (reca_core/models/published.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reca_core.models import directory as common
from reca_core.models.harmon import checkpoint, upstream
from reca_core.models.harmon.adapter import STAGES
from reca_core.models.harmon.configuration import HarmonConfiguration
from reca_core.models.harmon.network import HarmonNetwork
from reca_core.models.pickles import Weights
from reca_core.models.published import Published, WeightsFile
from reca_core.models.state import without_memory


def is_published(place: Path) -> bool:
    """True for kl16.ckpt with a model beside it, and for a recorded set."""
    return upstream.is_upstream(place)


def published(place: Path, which: Weights | None, chosen: Path | None) -> Published:
    """Read the authors' layout."""
    return upstream.find(place, which, chosen)


def configuration(directory: Path) -> HarmonConfiguration:
    """Of a directory in our layout."""
    return HarmonConfiguration.from_json(common.read_settings(directory), str(directory / common.CONFIG))


def network(configuration: HarmonConfiguration) -> nn.Module:
    """With parameters of shape alone."""
    with without_memory():
        return HarmonNetwork(configuration.sizes)


def from_upstream(state: Mapping[str, Tensor], configuration: HarmonConfiguration) -> dict[str, Tensor]:
    """Full upstream names to ours."""
    return checkpoint.from_upstream(state, _levels(configuration))


def to_upstream(state: Mapping[str, Tensor], configuration: HarmonConfiguration) -> dict[str, Tensor]:
    """Our names to full upstream names."""
    return checkpoint.to_upstream(state, _levels(configuration))


def settle(configuration: HarmonConfiguration, state: Mapping[str, Tensor]) -> None:
    """A text head that differs from the word embeddings is not tied to them, whatever config says."""
    language = configuration.sizes.language
    language.tie_word_embeddings = checkpoint.tied(bool(language.tie_word_embeddings), state)


def derivable(configuration: HarmonConfiguration) -> frozenset[str]:
    """A head tied to the word embeddings."""
    return frozenset([checkpoint.TEXT_HEAD] if configuration.sizes.language.tie_word_embeddings else [])


def harmless(name: str) -> bool:
    """Every tensor of the authors' files is read."""
    return False


def trainable(names: Iterable[str], configuration: HarmonConfiguration) -> frozenset[str]:
    """What post-training changes."""
    return frozenset(name for name in names if not name.startswith(STAGES["post"]))


def companions(found: Published) -> dict[str, bytes]:
    """Tokenizer and templates."""
    return common.read_companions(found.words) if found.words else {}


def write_settings(directory: Path, configuration: HarmonConfiguration) -> None:
    """config.json and generation_config.json."""
    common.write_settings(directory, configuration.as_json())


def settings(configuration: HarmonConfiguration) -> dict[str, Any]:
    """All of ours."""
    return configuration.as_json()


def default_files(configuration: HarmonConfiguration) -> tuple[WeightsFile, ...]:
    """As the authors publish them."""
    return (
        WeightsFile("harmon.pth"),
        WeightsFile(upstream.AUTOENCODER, checkpoint.AUTOENCODER, upstream.INSIDE),
    )


def upstream_settings(configuration: HarmonConfiguration, companions: Mapping[str, bytes]) -> dict[str, bytes]:
    """The language model's own config and tokenizer."""
    language: dict[str, Any] = configuration.as_json()["llm"] | {"model_type": upstream.LANGUAGE_TYPE}
    return dict(companions) | {common.CONFIG: json.dumps(language, indent=2).encode()}


def _levels(configuration: HarmonConfiguration) -> int:
    return len(configuration.sizes.autoencoder["block_out_channels"])
