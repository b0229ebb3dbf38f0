"""BAGEL as its authors publish it: llm_config.json, vit_config.json, ae.safetensors and one file of weights.

What their loader does to these files is done here too (reference "model_goldens", sections 3 and 4): the ViT has one
layer fewer than its configuration says and no rotary positions; the fixed position tables may be absent, and the one of
the latents is 64 a side.

The moving average of a short training is nearly the base model; the published export shipped it by accident (reference
"reca_recipe", section 3.1, B1). Where a directory holds several weights, the average is taken only if asked for, and
none is chosen for someone who did not say. The published base has no other file than ``ema.safetensors``.
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
from reca_core.models.bagel.checkpoint import AUTOENCODER as PREFIX
from reca_core.models.bagel.checkpoint import from_upstream
from reca_core.models.bagel.configuration import BagelConfiguration, Bounds, PicturePlan
from reca_core.models.bagel.network import BagelSizes
from reca_core.models.pickles import Weights
from reca_core.models.published import (
    INDEX,
    SETTINGS,
    Published,
    WeightsFile,
    is_recorded,
    read_file,
    recorded,
    small_files,
)
from reca_core.models.shapes import Shapes

LANGUAGE, VISION, AUTOENCODER = "llm_config.json", "vit_config.json", "ae.safetensors"
AVERAGE = "ema.safetensors"
PARTS = ((WeightsFile("vae.safetensors", PREFIX), WeightsFile(AUTOENCODER, PREFIX)),)
"""Where the autoencoder of a recorded set lies."""
WEIGHTS = ("model.safetensors", "model_bf16.safetensors", f"model.safetensors{INDEX}", AVERAGE)
LATENT_TABLE, LATENT_PER_SIDE = "latent_pos_embed.pos_embed", 64
PUBLISHED_WIDTH = 3584
"""Of the language model; its table of latents has exactly so many a side."""
LATENT_SCALE, LATENT_SHIFT = 0.3611, 0.1159
"""Of the FLUX autoencoder."""


def is_upstream(directory: Path) -> bool:
    """True where the published configuration of the language model lies, or a recorded set."""
    return (directory / LANGUAGE).is_file() or is_recorded(directory)


def read(directory: Path) -> tuple[BagelConfiguration, dict[str, Tensor]]:
    """Configuration and weights under our names. Raises as ``find`` does."""
    found = find(directory)
    levels = len(found.configuration.sizes.autoencoder["block_out_channels"])
    return found.configuration, from_upstream(found.state, levels)


def find(directory: Path, which: Weights | None = None, chosen: Path | None = None) -> Published:
    """The checkpoint under full upstream names: the model's as they are, the autoencoder's after ``vae.``.

    Raises CheckpointRefused for weights that are ambiguous or of unknown sizes, PrerequisiteMissing for absent files.
    """
    if is_recorded(directory):
        return recorded(directory, recorded_configuration, PARTS, which, chosen)
    small = small_files(directory)
    weights = chosen or _weights_file(directory, which)
    if not (directory / AUTOENCODER).is_file():
        raise PrerequisiteMissing(f"{AUTOENCODER} is not there", field=str(directory), remedy="add the autoencoder")
    files = (WeightsFile(weights.name), WeightsFile(AUTOENCODER, PREFIX))
    state = read_file(weights, files[0]) | read_file(directory / AUTOENCODER, files[1])
    notes = (f"{AVERAGE} is taken: there is no other file of weights",) if weights.name == AVERAGE else ()
    if SETTINGS in small:
        configuration = BagelConfiguration.from_json(common.read_json(directory / SETTINGS), str(directory / SETTINGS))
    else:
        language, vision = (common.read_json(directory / name) for name in (LANGUAGE, VISION))
        configuration = BagelConfiguration(sizes_of(language, vision, state))
        configuration.check(str(directory))
    return Published(configuration, files, state, small, directory, notes)


def _weights_file(directory: Path, which: Weights | None) -> Path:
    found = [directory / name for name in WEIGHTS if (directory / name).is_file()]
    if which is not None:
        found = [path for path in found if (path.name == AVERAGE) == (which == "ema")]
    if not found:
        asked = "" if which is None else f" that are the {'moving average' if which == 'ema' else 'model itself'}"
        raise PrerequisiteMissing(f"the directory holds no weights{asked}", field=str(directory), choices=WEIGHTS)
    if len(found) > 1:
        raise CheckpointRefused(
            "holds several weights; ema is a moving average, after a short training nearly the base model",
            field=str(directory),
            choices=tuple(path.name for path in found),
            remedy="keep the file that is meant",
        )
    return found[0]


def sizes_of(language: Mapping[str, Any], vision: Mapping[str, Any], state: Mapping[str, Tensor]) -> BagelSizes:
    """Sizes from both configurations and the shapes. Raises SizesUnknown naming a tensor that is not there."""
    autoencoder = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    arguments = ldm_autoencoder.arguments_of(autoencoder, ldm_autoencoder.FLUX)
    arguments |= {"scaling_factor": LATENT_SCALE, "shift_factor": LATENT_SHIFT}
    unsaid = [n for n in ("num_hidden_layers", "image_size", "patch_size") if not isinstance(vision.get(n), int)]
    if unsaid:
        raise CheckpointRefused(f"says nothing about {', '.join(unsaid)}", field=VISION)
    if not isinstance(language.get("hidden_size"), int):
        raise CheckpointRefused("says nothing about hidden_size", field=LANGUAGE)
    channels = arguments["latent_channels"]
    learned = dict(vision) | {"num_hidden_layers": vision["num_hidden_layers"] - 1}
    tower = SiglipVisionConfig(**{name: value for name, value in learned.items() if name != "rope"})
    width = language["hidden_size"]
    shapes = Shapes(state, "weights")
    ends = (shapes.rows("llm2vae.bias", 1), shapes.rows("llm2vae.weight", width), shapes.rows("vae2llm.weight", width))
    patch, table = math.isqrt(shapes.most("llm2vae.bias", ends) // channels), shapes.rows(LATENT_TABLE, width)
    if not patch:
        raise CheckpointRefused(
            f"fewer numbers at a place than the {channels} channels of a latent", field="llm2vae.bias"
        )
    return BagelSizes(
        language=Qwen2Config(**language),
        vision=tower,
        autoencoder=arguments,
        latent_channels=channels,
        vae_downsampling=2 ** (len(arguments["block_out_channels"]) - 1),
        latent_patch=patch,
        latent_per_side=math.isqrt(table) if table and width != PUBLISHED_WIDTH else LATENT_PER_SIDE,
        vit_per_side=vision["image_size"] // vision["patch_size"],
    )


def recorded_configuration(sizes: Mapping[str, Any]) -> BagelConfiguration:
    """Of a recorded set, whose config.json says every size."""
    vae = sizes["vae"]
    levels = len(vae["ch_mult"])
    found = BagelSizes(
        language=Qwen2Config(**sizes["llm"]),
        vision=SiglipVisionConfig(**sizes["vit"]),
        autoencoder={
            "in_channels": vae["in_channels"],
            "out_channels": vae["out_ch"],
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "block_out_channels": tuple(vae["ch"] * multiplier for multiplier in vae["ch_mult"]),
            "layers_per_block": vae["num_res_blocks"],
            "latent_channels": vae["z_channels"],
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "scaling_factor": vae["scale_factor"],
            "shift_factor": vae["shift_factor"],
        },
        latent_channels=vae["z_channels"],
        vae_downsampling=vae["downsample"],
        latent_patch=sizes["latent_patch_size"],
        latent_per_side=sizes["max_latent_size"],
        vit_per_side=sizes["vit_max_num_patch_per_side"],
    )
    return BagelConfiguration(found, pictures_within(found), learning_shift=sizes["timestep_shift"])


def pictures_within(sizes: BagelSizes) -> PicturePlan:
    """The largest pictures that the position tables of a small model reach."""
    grids = sizes.grids()
    target, seen = grids.vae_stride * grids.latent_per_side, grids.vit_patch * grids.vit_per_side
    understanding = Bounds(min(grids.vit_patch, seen), seen)
    return PicturePlan(Bounds(min(grids.vae_stride, target), target), understanding, understanding, target)
