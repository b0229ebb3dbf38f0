"""Latent-diffusion autoencoders with diffusers' ``AutoencoderKL``: key names of the original layout, both ways.

Harmon's KL-16 and BAGEL's FLUX autoencoder are published in the layout of the first latent diffusion code
(``encoder.down.0.block.0.conv1`` ...). diffusers computes the same function under other names (measured: encode and
decode agree to 1e-5); what differs is the order of the decoder's levels, names, and attention weights kept as 1x1
convolutions there and as matrices here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.published import SizesUnknown

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


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of diffusers' ``AutoencoderKL`` for an original state dict, read off its names and shapes.

    Raises CheckpointRefused naming a tensor without which the sizes cannot be told.
    """
    levels = level_count(state)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        channels = tuple(shapes[f"encoder.down.{level}.block.0.conv2.weight"][0] for level in range(levels))
        latent, pictures = shapes["decoder.conv_in.weight"][1], shapes["encoder.conv_in.weight"][1]
    except KeyError as error:
        raise SizesUnknown([error.args[0]], field="autoencoder") from error
    attention = [any(name.startswith(f"encoder.down.{level}.attn.") for name in shapes) for level in range(levels)]
    blocks = {name.split(".")[4] for name in shapes if name.startswith("encoder.down.0.block.")}
    return {
        "in_channels": pictures,
        "out_channels": pictures,
        "down_block_types": tuple("AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention),
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": channels,
        "layers_per_block": len(blocks),
        "latent_channels": latent,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def level_count(state: Mapping[str, Tensor]) -> int:
    """Number of resolutions of an original state dict. Raises CheckpointRefused if it is of no autoencoder."""
    found = [int(match[1]) for name in state if (match := re.match(r"^decoder\.up\.(\d+)\.", name))]
    if not found:
        raise CheckpointRefused("has no decoder levels: not an autoencoder in the original layout", field="autoencoder")
    return 1 + max(found)


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
