"""Latent-diffusion autoencoders with diffusers' ``AutoencoderKL``: key names of the original layout, both ways.

Harmon's KL-16 and BAGEL's FLUX autoencoder are published in the layout of the first latent diffusion code
(``encoder.down.0.block.0.conv1`` ...). diffusers computes the same function under other names (measured: encode and
decode agree to 1e-5); what differs is the order of the decoder's levels, names, and attention weights kept as 1x1
convolutions there and as matrices here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.shapes import Shapes

_RENAMES = (
    (r"^(encoder|decoder)\.mid\.block_1\.", r"\1.mid_block.resnets.0."),
    (r"^(encoder|decoder)\.mid\.block_2\.", r"\1.mid_block.resnets.1."),
    (r"^(encoder|decoder)\.mid\.attn_1\.", r"\1.mid_block.attentions.0."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"^encoder\.down\.(\d+)\.attn\.(\d+)\.", r"encoder.down_blocks.\1.attentions.\2."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
)
_BACK = (
    (r"^(encoder|decoder)\.mid_block\.resnets\.0\.", r"\1.mid.block_1."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.1\.", r"\1.mid.block_2."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.", r"\1.mid.attn_1."),
    (r"^(encoder|decoder)\.conv_norm_out\.", r"\1.norm_out."),
    (r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r"encoder.down.\1.block.\2."),
    (r"^encoder\.down_blocks\.(\d+)\.attentions\.(\d+)\.", r"encoder.down.\1.attn.\2."),
    (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)
_ATTENTION = (("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"))
_ORIGINAL_ATTENTION = {diffusers: original for original, diffusers in _ATTENTION}
MATRIX, CONVOLUTION = 2, 4
"""Dimensions of an attention weight here and there."""
KERNEL = 9
"""Numbers of a 3x3 convolution between two channels."""


@dataclass(frozen=True)
class Kind:
    """A published autoencoder, known by the number of its ``channels``; and what every smaller one of its kind shares.

    Args:
        channels: width after the first convolution; ``multipliers`` of it are the widths of the levels.
        blocks: residual blocks of an encoder level; a decoder level has one more.
        latent: channels of a latent.
        attention: whether the encoder's last level has attention; no other level has, and the middle always.
        quantised: whether 1x1 convolutions stand before and after the latents.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    latent: int
    attention: bool
    quantised: bool


KL_16 = Kind(128, (1, 1, 2, 2, 4), blocks=2, latent=16, attention=True, quantised=True)
FLUX = Kind(128, (1, 2, 4, 4), blocks=2, latent=16, attention=False, quantised=False)
"""Harmon's and BAGEL's (reference "model_goldens", section 3)."""
PICTURE_CHANNELS = 3


def arguments_of(state: Mapping[str, Tensor], kind: Kind) -> dict[str, Any]:
    """Arguments of diffusers' ``AutoencoderKL`` for an original state dict.

    Of the published width all sizes are known, so that a level or block that the file lacks is missed; of another they
    are read off its names and vectors, of the encoder and the decoder alike.
    Raises SizesUnknown naming a tensor without which they cannot be told, CheckpointRefused if it is of no autoencoder.
    """
    shapes = Shapes(state, "autoencoder")
    levels = shapes.count(r"(?:encoder\.down|decoder\.up)\.(\d+)\.")
    if not levels:
        raise CheckpointRefused("has no levels: not an autoencoder in the original layout", field="autoencoder")
    base = shapes.length("encoder.conv_in.bias", r"encoder\.down\.0\.block\.0\.norm1\.(weight|bias)")
    if base == kind.channels:
        widths = tuple(base * multiplier for multiplier in kind.multipliers)
        blocks, latent = kind.blocks, kind.latent
    else:
        widths = tuple(_width(shapes, level) for level in range(levels))
        inner, outer = (shapes.count(rf"{coder}\.\d+\.block\.(\d+)\.") for coder in ("encoder.down", "decoder.up"))
        blocks, latent = max(inner, outer - 1), _latent(shapes)
    last = "AttnDownEncoderBlock2D" if kind.attention else "DownEncoderBlock2D"
    return {
        "in_channels": PICTURE_CHANNELS,
        "out_channels": PICTURE_CHANNELS,
        "down_block_types": ("DownEncoderBlock2D",) * (len(widths) - 1) + (last,),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "latent_channels": latent,
        "use_quant_conv": kind.quantised,
        "use_post_quant_conv": kind.quantised,
    }


def _width(shapes: Shapes, level: int) -> int:
    """Of one level, which is as wide in the encoder as in the decoder."""
    inside = rf"(encoder\.down|decoder\.up)\.{level}\.block\.\d+\.(conv[12]\.bias|norm2\.(weight|bias))"
    return shapes.length(f"encoder.down.{level}.block.0.conv2.bias", inside)


def _latent(shapes: Shapes) -> int:
    """Channels of a latent; the encoder says mean and variance, so twice as many."""
    twice, once = "encoder.conv_out.bias", "post_quant_conv.bias"
    votes = [shapes.rows(twice, 2), shapes.rows("quant_conv.bias", 2), shapes.rows(once, 1)]
    kernel = shapes.numbers.get("decoder.conv_in.bias", 0) * KERNEL
    return shapes.most(twice, [*votes, shapes.rows("decoder.conv_in.weight", kernel) if kernel else None])


def diffusers_name(name: str, levels: int) -> str:
    """diffusers' key of an original key. ``levels``: number of resolutions; decoder levels are counted backwards."""
    level = re.match(r"^decoder\.up\.(\d+)\.(block\.(\d+)|upsample)\.", name)
    if level:
        block = f"decoder.up_blocks.{levels - 1 - int(level[1])}."
        part = f"resnets.{level[3]}." if level[3] is not None else "upsamplers.0."
        name = block + part + name[level.end() :]
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    attention = re.match(r"^(.*\.attentions\.\d+\.)(norm|q|k|v|proj_out)\.(weight|bias)$", name)
    return f"{attention[1]}{dict(_ATTENTION)[attention[2]]}.{attention[3]}" if attention else name


def from_original(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """An original state dict under diffusers' names, attention weights as matrices."""
    return {diffusers_name(name, levels): _as_matrix(name, tensor) for name, tensor in state.items()}


def original_name(name: str, levels: int) -> str:
    """The original key of a diffusers key: the inverse of ``diffusers_name``."""
    attention = re.match(r"^(.*\.attentions\.\d+\.)(group_norm|to_q|to_k|to_v|to_out\.0)\.(weight|bias)$", name)
    if attention:
        name = f"{attention[1]}{_ORIGINAL_ATTENTION[attention[2]]}.{attention[3]}"
    level = re.match(r"^decoder\.up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)\.", name)
    if level:
        part = f"block.{level[3]}." if level[3] is not None else "upsample."
        name = f"decoder.up.{levels - 1 - int(level[1])}.{part}{name[level.end() :]}"
    for pattern, replacement in _BACK:
        name = re.sub(pattern, replacement, name)
    return name


def to_original(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The inverse of ``from_original``: attention weights become 1x1 convolutions again."""
    renamed = {original_name(name, levels): tensor for name, tensor in state.items()}
    return {name: _as_convolution(name, tensor) for name, tensor in renamed.items()}


def _is_attention(name: str) -> bool:
    return re.search(r"\.attn(_1|\.\d+)\.", name) is not None


def _as_convolution(name: str, tensor: Tensor) -> Tensor:
    return tensor[..., None, None] if _is_attention(name) and tensor.dim() == MATRIX else tensor


def _as_matrix(name: str, tensor: Tensor) -> Tensor:
    return tensor[..., 0, 0] if _is_attention(name) and tensor.dim() == CONVOLUTION else tensor
