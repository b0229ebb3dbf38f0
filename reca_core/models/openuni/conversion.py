"""OpenUni between the authors' files and ours: what ``reca convert`` needs to know (reca_core/models/published.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reca_core.models import directory as common
from reca_core.models.openuni import checkpoint, upstream
from reca_core.models.openuni.adapter import STAGES
from reca_core.models.openuni.configuration import OpenUniConfiguration
from reca_core.models.openuni.network import OpenUniNetwork
from reca_core.models.pickles import Weights
from reca_core.models.published import Published, WeightsFile
from reca_core.models.state import without_memory

LANGUAGE, SANA = "InternVL3", "SANA"
SAFETENSORS, DIFFUSERS = "model.safetensors", "diffusion_pytorch_model.safetensors"


def is_published(place: Path) -> bool:
    """True for a ``.pth`` without a configuration of ours beside it, and for a recorded set."""
    return upstream.is_upstream(place)


def published(place: Path, which: Weights | None, chosen: Path | None) -> Published:
    """Read the authors' layout."""
    return upstream.find(place, which, chosen)


def configuration(directory: Path) -> OpenUniConfiguration:
    """Of a directory in our layout."""
    return OpenUniConfiguration.from_json(common.read_settings(directory), str(directory / common.CONFIG))


def network(configuration: OpenUniConfiguration) -> nn.Module:
    """With parameters of shape alone."""
    with without_memory():
        return OpenUniNetwork(configuration.sizes)


def from_upstream(state: Mapping[str, Tensor], configuration: OpenUniConfiguration) -> dict[str, Tensor]:
    """Full upstream names to ours."""
    return checkpoint.from_upstream(state)


def to_upstream(state: Mapping[str, Tensor], configuration: OpenUniConfiguration) -> dict[str, Tensor]:
    """Our names to full upstream names."""
    return checkpoint.to_upstream(state)


def settle(configuration: OpenUniConfiguration, state: Mapping[str, Tensor]) -> None:
    """A text head that differs from the word embeddings is not tied to them, whatever config says."""
    language = configuration.sizes.language
    language.tie_word_embeddings = checkpoint.tied(bool(language.tie_word_embeddings), state)


def derivable(configuration: OpenUniConfiguration) -> frozenset[str]:
    """A head tied to the word embeddings."""
    return frozenset([checkpoint.TEXT_HEAD] if configuration.sizes.language.tie_word_embeddings else [])


def harmless(name: str) -> bool:
    """Every tensor of the authors' files is read."""
    return False


def trainable(names: Iterable[str], configuration: OpenUniConfiguration) -> frozenset[str]:
    """What post-training changes."""
    return frozenset(name for name in names if not name.startswith(STAGES["post"]))


def companions(found: Published) -> dict[str, bytes]:
    """Tokenizer and templates; the tokenizer may have to be made from vocabulary and merges."""
    if found.words is None:
        return {}
    templates = found.small.get(common.TEMPLATES)
    chosen = common.read_templates(templates.parent) if templates else common.GENERAL_TEMPLATES
    return common.new_companions(upstream.read_tokenizer(found.words), chosen)


def write_settings(directory: Path, configuration: OpenUniConfiguration) -> None:
    """config.json and generation_config.json."""
    common.write_settings(directory, configuration.as_json())


def settings(configuration: OpenUniConfiguration) -> dict[str, Any]:
    """All of ours."""
    return configuration.as_json()


def default_files(configuration: OpenUniConfiguration) -> tuple[WeightsFile, ...]:
    """What was trained in one file, as the authors publish it; the frozen downloads in folders of their own."""
    return (
        WeightsFile("openuni.pth"),
        WeightsFile(f"{LANGUAGE}/{SAFETENSORS}", upstream.LANGUAGE),
        WeightsFile(f"{SANA}/vae/{DIFFUSERS}", upstream.AUTOENCODER),
    )


def upstream_settings(configuration: OpenUniConfiguration, companions: Mapping[str, bytes]) -> dict[str, bytes]:
    """The configurations of InternVL3 in its original form and of SANA's parts; the tokenizer lies with the first."""
    ours = configuration.as_json()
    schedule = {
        "_class_name": "DPMSolverMultistepScheduler",
        "shift": configuration.learning.shift,
        "flow_shift": configuration.drawing.flow_shift,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
    }
    values = {
        f"{LANGUAGE}/{common.CONFIG}": upstream.original_language(configuration.sizes.language),
        f"{SANA}/transformer/{common.CONFIG}": {"_class_name": "SanaTransformer2DModel", **ours["transformer"]},
        f"{SANA}/vae/{common.CONFIG}": {"_class_name": "AutoencoderDC", **ours["autoencoder"]},
        f"{SANA}/scheduler/scheduler_config.json": schedule,
    }
    words = {
        name if name == common.TEMPLATES else f"{LANGUAGE}/{name}": content for name, content in companions.items()
    }
    return words | {name: json.dumps(value, indent=2).encode() for name, value in values.items()}
