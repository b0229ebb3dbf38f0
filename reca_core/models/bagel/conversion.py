"""BAGEL between the authors' files and ours: what ``reca convert`` needs to know (reca_core/models/published.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reca_core.models import directory as common
from reca_core.models.bagel import checkpoint, upstream
from reca_core.models.bagel.adapter import EXPERT, GENERATION
from reca_core.models.bagel.configuration import BagelConfiguration
from reca_core.models.bagel.network import BagelNetwork
from reca_core.models.pickles import Weights
from reca_core.models.published import Published, WeightsFile
from reca_core.models.state import without_memory


def is_published(place: Path) -> bool:
    """True for llm_config.json with weights beside it, and for a recorded set."""
    return upstream.is_upstream(place)


def published(place: Path, which: Weights | None, chosen: Path | None) -> Published:
    """Read the authors' layout."""
    return upstream.find(place, which, chosen)


def configuration(directory: Path) -> BagelConfiguration:
    """Of a directory in our layout."""
    return BagelConfiguration.from_json(common.read_settings(directory), str(directory / common.CONFIG))


def network(configuration: BagelConfiguration) -> nn.Module:
    """With parameters of shape alone."""
    with without_memory():
        return BagelNetwork(configuration.sizes)


def from_upstream(state: Mapping[str, Tensor], configuration: BagelConfiguration) -> dict[str, Tensor]:
    """Full upstream names to ours."""
    return checkpoint.from_upstream(state, _levels(configuration))


def to_upstream(state: Mapping[str, Tensor], configuration: BagelConfiguration) -> dict[str, Tensor]:
    """Our names to full upstream names."""
    return checkpoint.to_upstream(state, _levels(configuration))


def settle(configuration: BagelConfiguration, state: Mapping[str, Tensor]) -> None:
    """The text head is never tied."""


def derivable(configuration: BagelConfiguration) -> frozenset[str]:
    """The fixed position tables."""
    return frozenset(checkpoint.FIXED)


def harmless(name: str) -> bool:
    """The fixed position tables are computed, whatever a file says."""
    return name in checkpoint.FIXED


def trainable(names: Iterable[str], configuration: BagelConfiguration) -> frozenset[str]:
    """What post-training changes."""
    return frozenset(name for name in names if EXPERT in name or name.startswith(GENERATION))


def companions(found: Published) -> dict[str, bytes]:
    """Tokenizer and templates."""
    return common.read_companions(found.words) if found.words else {}


def write_settings(directory: Path, configuration: BagelConfiguration) -> None:
    """config.json and generation_config.json."""
    common.write_settings(directory, configuration.as_json())


def settings(configuration: BagelConfiguration) -> dict[str, Any]:
    """All of ours."""
    return configuration.as_json()


def default_files(configuration: BagelConfiguration) -> tuple[WeightsFile, ...]:
    """As the authors publish them; weights that are not a moving average are not called one."""
    return (WeightsFile(upstream.WEIGHTS[0]), WeightsFile(upstream.AUTOENCODER, checkpoint.AUTOENCODER))


def upstream_settings(configuration: BagelConfiguration, companions: Mapping[str, bytes]) -> dict[str, bytes]:
    """Both configurations as the authors' loader wants them: it leaves the last layer of the ViT away."""
    ours = configuration.as_json()
    vision = ours["vision"] | {"num_hidden_layers": ours["vision"]["num_hidden_layers"] + 1, "rope": True}
    language = ours["llm"] | {"qk_norm": True, "freeze_und": False}
    files = {upstream.LANGUAGE: language, upstream.VISION: vision, common.CONFIG: {"model_type": "bagel"}}
    return dict(companions) | {name: json.dumps(values, indent=2).encode() for name, values in files.items()}


def _levels(configuration: BagelConfiguration) -> int:
    return len(configuration.sizes.autoencoder["block_out_channels"])
