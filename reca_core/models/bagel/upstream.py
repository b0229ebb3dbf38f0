"""BAGEL as its authors publish it: llm_config.json, vit_config.json, ae.safetensors and one file of weights.

What their loader does to these files is done here too (reference "model_goldens", sections 3 and 4): the ViT has one
layer fewer than its configuration says and no rotary positions; the fixed position tables may be absent, and the one of
the latents is 64 a side.

The moving average of a short training is nearly the base model; the published export shipped it by accident (reference
"reca_recipe", section 3.1, B1). Where a directory holds several weights, none is chosen for the user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen2Config, SiglipVisionConfig

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models import directory as common
from reca_core.models import ldm_autoencoder
from reca_core.models.bagel.checkpoint import from_upstream
from reca_core.models.bagel.configuration import BagelConfiguration
from reca_core.models.bagel.network import BagelSizes
from reca_core.models.state import read_tensors

LANGUAGE, VISION, AUTOENCODER = "llm_config.json", "vit_config.json", "ae.safetensors"
WEIGHTS = ("model.safetensors", "model_bf16.safetensors", "ema.safetensors")
LATENT_TABLE, LATENT_PER_SIDE = "latent_pos_embed.pos_embed", 64
LATENT_SCALE, LATENT_SHIFT = 0.3611, 0.1159
"""Of the FLUX autoencoder."""


def is_upstream(directory: Path) -> bool:
    """True where the published configuration of the language model lies."""
    return (directory / LANGUAGE).is_file()


def read(directory: Path) -> tuple[BagelConfiguration, dict[str, Tensor]]:
    """Configuration and weights under our names.

    Raises CheckpointRefused for weights that are ambiguous or of unknown sizes, PrerequisiteMissing for absent files.
    """
    language, vision = (common.read_json(directory / name) for name in (LANGUAGE, VISION))
    weights = read_tensors(_weights_file(directory))
    if not (directory / AUTOENCODER).is_file():
        raise PrerequisiteMissing(f"{AUTOENCODER} is not there", field=str(directory), remedy="add the autoencoder")
    autoencoder = read_tensors(directory / AUTOENCODER)
    state = from_upstream(weights, autoencoder, ldm_autoencoder.level_count(autoencoder))
    configuration = BagelConfiguration(sizes_of(language, vision, weights, autoencoder))
    configuration.check(str(directory))
    return configuration, state


def _weights_file(directory: Path) -> Path:
    found = [directory / name for name in WEIGHTS if (directory / name).is_file()]
    if not found:
        raise PrerequisiteMissing("the directory holds no weights", field=str(directory), choices=WEIGHTS)
    if len(found) > 1:
        raise CheckpointRefused(
            "holds several weights; ema is a moving average, after a short training nearly the base model",
            field=str(directory),
            choices=tuple(path.name for path in found),
            remedy="keep the file that is meant",
        )
    return found[0]


def sizes_of(
    language: Mapping[str, Any],
    vision: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    autoencoder: Mapping[str, Tensor],
) -> BagelSizes:
    """Sizes from both configurations and the shapes. Raises CheckpointRefused naming a tensor that is not there."""
    arguments = ldm_autoencoder.arguments_of(autoencoder)
    arguments |= {"scaling_factor": LATENT_SCALE, "shift_factor": LATENT_SHIFT}
    if "vae2llm.weight" not in weights:
        raise CheckpointRefused("missing: vae2llm.weight", field="weights")
    unsaid = [name for name in ("num_hidden_layers", "image_size", "patch_size") if name not in vision]
    if unsaid:
        raise CheckpointRefused(f"says nothing about {', '.join(unsaid)}", field=VISION)
    channels = arguments["latent_channels"]
    learned = dict(vision) | {"num_hidden_layers": vision["num_hidden_layers"] - 1}
    tower = SiglipVisionConfig(**{name: value for name, value in learned.items() if name != "rope"})
    table = weights.get(LATENT_TABLE)
    return BagelSizes(
        language=Qwen2Config(**language),
        vision=tower,
        autoencoder=arguments,
        latent_channels=channels,
        vae_downsampling=2 ** (len(arguments["block_out_channels"]) - 1),
        latent_patch=math.isqrt(weights["vae2llm.weight"].shape[1] // channels),
        latent_per_side=LATENT_PER_SIDE if table is None else math.isqrt(len(table)),
        vit_per_side=vision["image_size"] // vision["patch_size"],
    )
