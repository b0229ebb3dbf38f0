"""Show-o as its authors publish it: four downloads that belong together (reference "model_goldens", section 3).

    <Show-o>/config.json, pytorch_model.bin        the language model and the projector
    magvitv2/pytorch_model.bin                     the image tokenizer
    clip-vit-large-patch14-336/...                 OpenAI's tower, for ``w_clip_vit`` models
    phi-1_5/config.json, tokenizer files           the language model that it was made from

The last three are looked for inside Show-o's directory and beside it, under the last part of the names that its
configuration gives. Pickles are read with ``weights_only=True``, memory-mapped. Checkpoints of RecA's published
training (``checkpoint-N/unwrapped_model``) have the same layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig, PhiConfig

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models import directory as common
from reca_core.models.showo import chat, checkpoint
from reca_core.models.showo.configuration import DrawingPlan, ShowoConfiguration
from reca_core.models.showo.magvit import MagvitConfiguration
from reca_core.models.showo.network import ShowoSizes
from reca_core.models.state import read_state

CLASS = "Showo"
LANGUAGE, TOKENIZER, TOWER = "phi-1_5", "magvitv2", "clip-vit-large-patch14-336"
PICTURES = "vision_model."
"""Of the tower's file only this half is Show-o's; it may also hold CLIP's text half."""
NOT_WEIGHTS = "vision_model.embeddings.position_ids"


@dataclass(frozen=True)
class Found:
    """``language``: the directory of the language model's tokenizer."""

    configuration: ShowoConfiguration
    state: dict[str, Tensor]
    language: Path


def is_upstream(directory: Path) -> bool:
    """True where config.json is that of the authors' own class, which has no ``model_type``."""
    return common.read_json(directory / common.CONFIG).get("_class_name") == CLASS


def read(directory: Path) -> Found:
    """Configuration and weights under our names.

    Raises PrerequisiteMissing naming a download that is not there, CheckpointRefused for sizes that cannot be told.
    """
    settings = common.read_json(directory / common.CONFIG)
    where, with_clip = str(directory / common.CONFIG), bool(_setting(settings, "w_clip_vit", directory))
    language = _part(directory, Path(settings.get("llm_model_path") or LANGUAGE).name)
    parts = {
        checkpoint.WEIGHTS: read_state(directory),
        checkpoint.TOKENIZER: read_state(_part(directory, TOKENIZER)),
    }
    tower = _part(directory, TOWER) if with_clip else None
    if tower is not None:
        parts[checkpoint.CLIP] = _picture_half(read_state(tower))
    magvit = magvit_sizes(parts[checkpoint.TOKENIZER])
    sizes = ShowoSizes(
        _language_sizes(language, int(_setting(settings, "vocab_size", directory))),
        magvit,
        _tower_sizes(tower) if tower is not None else None,
    )
    tokens = int(_setting(settings, "num_vq_tokens", directory))
    configuration = ShowoConfiguration(
        sizes,
        side=math.isqrt(tokens) * magvit.downsampling,
        text_vocabulary=int(_setting(settings, "llm_vocab_size", directory)),
        system_prompt=chat.SYSTEM_PROMPT if with_clip else "",
        drawing=DrawingPlan(min(DrawingPlan().rounds, tokens)),
    )
    configuration.check(where)
    return Found(configuration, checkpoint.from_upstream(parts), language)


def _setting(settings: Mapping[str, Any], name: str, directory: Path) -> Any:
    if name not in settings:
        raise CheckpointRefused(f"does not say {name}", field=str(directory / common.CONFIG))
    return settings[name]


def _part(directory: Path, name: str) -> Path:
    places = (directory / name, directory.resolve().parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise PrerequisiteMissing(
        f"{name} is not there",
        field=str(directory),
        choices=tuple(str(place) for place in places),
        remedy="download what this Show-o was made from to one of these places",
    )


def _language_sizes(directory: Path, vocabulary: int) -> PhiConfig:
    """Of the language model with Show-o's vocabulary and its norm on queries and keys, which its config leaves out."""
    settings = common.read_json(directory / common.CONFIG)
    if settings.get("model_type") != "phi":
        raise CheckpointRefused(
            f"is of model_type {settings.get('model_type')!r}, Show-o's language model is phi",
            field=str(directory / common.CONFIG),
        )
    return PhiConfig(**{**settings, "vocab_size": vocabulary, "qk_layernorm": True})


def _tower_sizes(directory: Path) -> CLIPVisionConfig:
    settings = common.read_json(directory / common.CONFIG)
    return CLIPVisionConfig(**settings.get("vision_config", settings))


def _picture_half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(PICTURES) and name != NOT_WEIGHTS}


def magvit_sizes(state: Mapping[str, Tensor]) -> MagvitConfiguration:
    """Read off names and shapes: the file does not say them. Raises CheckpointRefused naming an absent tensor."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        channels = shapes["encoder.conv_in.weight"][0]
        encoder, decoder = (_levels(shapes, prefix, channels) for prefix in ("encoder.down", "decoder.up"))
        return MagvitConfiguration(channels, *encoder, *decoder, bits=shapes["encoder.quant_conv.weight"][0])
    except KeyError as error:
        raise CheckpointRefused(f"missing: {error.args[0]}", field=TOKENIZER) from error


def _levels(
    shapes: Mapping[str, tuple[int, ...]], prefix: str, channels: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Width multiplier and number of residual blocks of every level."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.block\.(\d+)\.")
    found = {(int(match[1]), int(match[2])) for name in shapes if (match := pattern.match(name))}
    levels = range(1 + max((level for level, _ in found), default=-1))
    widths = tuple(shapes[f"{prefix}.{level}.block.0.conv2.weight"][0] // channels for level in levels)
    return widths, tuple(sum(1 for at, _ in found if at == level) for level in levels)
