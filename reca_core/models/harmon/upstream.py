"""Harmon as its authors publish it: ``harmon_*.pth`` and ``kl16.ckpt`` beside the files of the Qwen2.5 it came from.

File names: reference "model_goldens", section 3. Neither file says its sizes, so they are read off the shapes; head
counts cannot be, so they follow from the width as in MAR's published models (arXiv 2406.11838, section 5.1).
Pickles are read with ``weights_only=True``, memory-mapped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen2Config

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models import ldm_autoencoder
from reca_core.models.harmon.checkpoint import from_upstream
from reca_core.models.harmon.configuration import HarmonConfiguration
from reca_core.models.harmon.mar import MarConfiguration
from reca_core.models.harmon.network import HarmonSizes
from reca_core.models.state import read_tensors

WEIGHTS, AUTOENCODER, INSIDE = "*.pth", "kl16.ckpt", "model"
LANGUAGE_TYPE = "qwen2"
SIDE = 512
HEADS = {768: 12, 1024: 16, 1280: 16}
"""Width of MAR-B, MAR-L and MAR-H -> attention heads."""


def is_upstream(directory: Path) -> bool:
    """True where the published autoencoder file lies."""
    return (directory / AUTOENCODER).is_file()


def read(directory: Path, language: Mapping[str, Any]) -> tuple[HarmonConfiguration, dict[str, Tensor]]:
    """Configuration and weights under our names. ``language``: config.json of the Qwen2.5 it was made from.

    Raises CheckpointRefused for sizes that cannot be told, PrerequisiteMissing for absent files.
    """
    if language.get("model_type") != LANGUAGE_TYPE:
        raise CheckpointRefused(
            f"is of model_type {language.get('model_type')!r}, Harmon's language model is {LANGUAGE_TYPE}",
            field=str(directory / "config.json"),
            remedy="put the files of Qwen2.5-0.5B-Instruct or Qwen2.5-1.5B-Instruct beside Harmon's",
        )
    weights = read_tensors(_weights_file(directory))
    autoencoder = read_tensors(directory / AUTOENCODER, inside=INSIDE)
    arguments = ldm_autoencoder.arguments_of(autoencoder)
    mar = mar_sizes(weights)
    patch = math.isqrt(mar.latent_channels // int(arguments["latent_channels"]))
    sizes = HarmonSizes(Qwen2Config(**language), mar, arguments, latent_patch=patch)
    configuration = HarmonConfiguration(sizes, SIDE)
    configuration.check(str(directory))
    return configuration, from_upstream(weights, autoencoder, ldm_autoencoder.level_count(autoencoder))


def _weights_file(directory: Path) -> Path:
    found = sorted(directory.glob(WEIGHTS))
    if not found:
        raise PrerequisiteMissing(f"no {WEIGHTS} beside {AUTOENCODER}", field=str(directory), remedy="add harmon_*.pth")
    if len(found) > 1:
        raise CheckpointRefused(
            "several models beside one autoencoder",
            field=str(directory),
            choices=tuple(path.name for path in found),
            remedy="keep the one that is meant",
        )
    return found[0]


def mar_sizes(weights: Mapping[str, Tensor]) -> MarConfiguration:
    """Sizes of the masked-autoregressive half. Raises CheckpointRefused naming a tensor that is not there."""
    shapes = {name.removeprefix("mar."): tuple(w.shape) for name, w in weights.items() if name.startswith("mar.")}
    try:
        width, channels = shapes["z_proj.weight"]
        tokens, decoder_width = shapes["diffusion_pos_embed_learned"][1:]
        return MarConfiguration(
            latent_channels=channels,
            width=width,
            encoder_depth=_depth(shapes, "encoder_blocks"),
            decoder_depth=_depth(shapes, "decoder_blocks"),
            decoder_width=decoder_width,
            encoder_heads=_heads(width),
            decoder_heads=_heads(decoder_width),
            native_side=math.isqrt(tokens),
            buffer=shapes["encoder_pos_embed_learned"][1] - tokens,
            mlp_ratio=shapes["encoder_blocks.0.mlp.fc1.weight"][0] / width,
            head_depth=_depth(shapes, "diffloss.net.res_blocks"),
            head_width=shapes["diffloss.net.input_proj.weight"][0],
            classes=shapes["class_emb.weight"][0],
        )
    except KeyError as error:
        raise CheckpointRefused(f"missing: mar.{error.args[0]}", field=WEIGHTS) from error


def _depth(shapes: Mapping[str, object], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return len({found[1] for name in shapes if (found := pattern.match(name))})


def _heads(width: int) -> int:
    if width not in HEADS:
        raise CheckpointRefused(f"no published MAR is {width} wide", field=WEIGHTS, choices=tuple(map(str, HEADS)))
    return HEADS[width]
