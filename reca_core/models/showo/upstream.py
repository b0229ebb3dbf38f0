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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig, PhiConfig

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models import directory as common
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
from reca_core.models.shapes import Shapes
from reca_core.models.showo import chat, checkpoint
from reca_core.models.showo.configuration import DrawingPlan, ShowoConfiguration
from reca_core.models.showo.magvit import MagvitConfiguration
from reca_core.models.showo.network import ShowoSizes
from reca_core.models.state import SINGLE_FILES

CLASS = "Showo"
LANGUAGE, TOKENIZER, TOWER = "phi-1_5", "magvitv2", "clip-vit-large-patch14-336"
PARTS = tuple(
    (WeightsFile(f"{stem}.safetensors", prefix), *(WeightsFile(f"{folder}/{name}", prefix) for name in SINGLE_FILES))
    for stem, folder, prefix in (("vq", TOKENIZER, checkpoint.TOKENIZER), ("clip", TOWER, checkpoint.CLIP))
)
"""Where the tokenizer and the tower of a recorded set lie."""
PICTURES = f"{checkpoint.CLIP}vision_model."
"""Of the tower's file only this half is Show-o's; it may also hold CLIP's text half."""
NOT_WEIGHTS = f"{PICTURES}embeddings.position_ids"


def is_upstream(directory: Path) -> bool:
    """True where config.json is that of the authors' own class, which has no ``model_type``, and for recorded sets."""
    return common.read_json(directory / common.CONFIG).get("_class_name") == CLASS or is_recorded(directory)


def is_unread(name: str) -> bool:
    """True for a full upstream name that Show-o never reads: CLIP's text half and its position numbers."""
    return name.startswith(checkpoint.CLIP) and (not name.startswith(PICTURES) or name == NOT_WEIGHTS)


def find(directory: Path, which: Weights | None = None, chosen: Path | None = None) -> Published:
    """The checkpoint under full upstream names: the tokenizer's after ``vq.``, the tower's after ``clip.``.

    Raises PrerequisiteMissing naming a download that is not there, CheckpointRefused for sizes that cannot be told.
    """
    if is_recorded(directory):
        return recorded(directory, recorded_configuration, PARTS, which, chosen)
    settings = common.read_json(directory / common.CONFIG)
    with_clip = bool(_setting(settings, "w_clip_vit", directory))
    language = _part(directory, Path(settings.get("llm_model_path") or LANGUAGE).name)
    places = {"": chosen or weights_in_directory(directory)}
    places[checkpoint.TOKENIZER] = weights_in_directory(_part(directory, TOKENIZER))
    if with_clip:
        places[checkpoint.CLIP] = weights_in_directory(_part(directory, TOWER))
    files = tuple(WeightsFile(_inside(path, directory), prefix) for prefix, path in places.items())
    state: dict[str, Tensor] = {}
    for file, path in zip(files, places.values(), strict=True):
        state |= read_file(path, file, which or "model")
    small = small_files(directory)
    for place in (language, *(path.parent for prefix, path in places.items() if prefix)):
        small |= small_files(place, place.name)
    tower = places[checkpoint.CLIP].parent if with_clip else None
    return Published(_configuration(settings, directory, language, tower, state), files, state, small, language)


def _inside(path: Path, directory: Path) -> str:
    """Where a file lies in a directory that holds all parts: beside the others, in a folder of its own name."""
    return path.name if path.parent == directory else f"{path.parent.name}/{path.name}"


def _configuration(
    settings: Mapping[str, Any], directory: Path, language: Path, tower: Path | None, state: Mapping[str, Tensor]
) -> ShowoConfiguration:
    if (directory / SETTINGS).is_file():
        return ShowoConfiguration.from_json(common.read_json(directory / SETTINGS), str(directory / SETTINGS))
    prefix = checkpoint.TOKENIZER
    magvit = magvit_sizes({n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)})
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
        system_prompt=chat.SYSTEM_PROMPT if tower is not None else "",
        drawing=DrawingPlan(rounds=min(DrawingPlan().rounds, tokens)),
    )
    configuration.check(str(directory / common.CONFIG))
    return configuration


def recorded_configuration(sizes: Mapping[str, Any]) -> ShowoConfiguration:
    """Of a recorded set, whose config.json says every size."""
    vq, showo, clip = sizes["vq"], sizes["showo"], sizes.get("clip")
    magvit = MagvitConfiguration(
        channels=vq["ch"],
        encoder_multipliers=tuple(vq["enc_ch_mult"]),
        encoder_blocks=tuple(vq["enc_num_res_blocks"]),
        decoder_multipliers=tuple(vq["dec_ch_mult"]),
        decoder_blocks=tuple(vq["dec_num_res_blocks"]),
        bits=vq["z_channels"],
    )
    language = PhiConfig(**sizes["phi"] | {"vocab_size": showo["vocab_size"], "qk_layernorm": True})
    return ShowoConfiguration(
        ShowoSizes(language, magvit, CLIPVisionConfig(**clip) if clip else None),
        side=math.isqrt(showo["num_vq_tokens"]) * magvit.downsampling,
        text_vocabulary=showo["llm_vocab_size"],
        max_text=sizes["max_seq_length"],
        drawing=DrawingPlan(rounds=min(sizes["sample"]["timesteps"], showo["num_vq_tokens"])),
    )


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


def magvit_sizes(state: Mapping[str, Tensor]) -> MagvitConfiguration:
    """The published sizes for the published width; of another, read off names and vectors: the file says neither.

    Raises SizesUnknown naming an absent tensor.
    """
    shapes = Shapes(state, TOKENIZER)
    channels = shapes.length("encoder.conv_in.bias", r"encoder\.down\.0\.block\.0\.norm1\.(weight|bias)")
    if channels == MagvitConfiguration.channels:
        return MagvitConfiguration()
    levels = shapes.count(r"(?:encoder\.down|decoder\.up)\.(\d+)\.block\.")  # as many in one as in the other
    encoder, decoder = (_levels(shapes, prefix, levels, channels) for prefix in ("encoder.down", "decoder.up"))
    bits = r"(encoder\.(quant_conv|conv_out)|decoder\.post_quant_conv)\.bias"
    return MagvitConfiguration(channels, *encoder, *decoder, bits=shapes.length("encoder.quant_conv.bias", bits))


def _levels(shapes: Shapes, prefix: str, levels: int, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Width multiplier and number of residual blocks of every level."""

    def width(level: int) -> int:
        inside = rf"{prefix}\.{level}\.block\.\d+\.(conv[12]\.bias|norm2\.(weight|bias))"
        return shapes.length(f"{prefix}.{level}.block.0.conv2.bias", inside)

    widths = tuple(width(level) // channels for level in range(levels))
    return widths, tuple(shapes.count(rf"{prefix}\.{level}\.block\.(\d+)\.") for level in range(levels))
