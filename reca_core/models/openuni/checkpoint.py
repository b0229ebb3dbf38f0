"""Key names: OpenUni's published files and ours, both ways.

Upstream's vision-language model is InternVL3 in its original layout; ours is transformers'. The rest (``connector.*
projector.* meta_queries transformer.* vae.*``) keeps its names. Published files omit the frozen parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_VISION = (
    (r"^embeddings\.class_embedding$", "embeddings.cls_token"),
    (r"^embeddings\.position_embedding$", "embeddings.position_embeddings"),
    (r"^embeddings\.patch_embedding\.", "embeddings.patch_embeddings.projection."),
    (r"^encoder\.layers\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.projection_layer."),
    (r"^encoder\.layers\.(\d+)\.attn\.([qkv]_proj)\.", r"encoder.layer.\1.attention.\2."),
    (r"^encoder\.layers\.(\d+)\.ls([12])$", r"encoder.layer.\1.lambda_\2"),
    (r"^encoder\.layers\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^encoder\.layers\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^encoder\.layers\.(\d+)\.mlp\.", r"encoder.layer.\1.mlp."),
)
_PREFIXES = (
    ("lmm.language_model.model.", "lmm.model.language_model."),
    ("lmm.language_model.lm_head.", "lmm.lm_head."),
    ("lmm.mlp1.0.", "lmm.model.multi_modal_projector.layer_norm."),
    ("lmm.mlp1.1.", "lmm.model.multi_modal_projector.linear_1."),
    ("lmm.mlp1.3.", "lmm.model.multi_modal_projector.linear_2."),
)
_THEIR_VISION, _OUR_VISION = "lmm.vision_model.", "lmm.model.vision_tower."
_FUSED = re.compile(r"^(lmm\.vision_model\.encoder\.layers\.\d+\.attn\.)qkv\.(weight|bias)$")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def our_name(name: str) -> str:
    """Our key of an upstream key (fused projections split beforehand); an unknown key stays as it is."""
    if name.startswith(_THEIR_VISION):
        rest = name.removeprefix(_THEIR_VISION)
        for pattern, replacement in _VISION:
            rest = re.sub(pattern, replacement, rest)
        return _OUR_VISION + rest
    for theirs, ours in _PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def from_upstream(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An upstream state dict with our names; the fused q, k, v of the vision tower become three tensors."""
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        fused = _FUSED.match(name)
        if fused is None:
            ours[our_name(name)] = tensor
            continue
        for projection, part in zip(_PROJECTIONS, tensor.chunk(3), strict=True):
            ours[our_name(f"{fused[1]}{projection}.{fused[2]}")] = part
    return ours


def to_upstream(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, in the key set of ``like`` (an upstream state dict). Raises KeyError for a key too few."""
    theirs: dict[str, Tensor] = {}
    for name in like:
        fused = _FUSED.match(name)
        if fused is None:
            theirs[name] = state[our_name(name)]
        else:
            parts = [state[our_name(f"{fused[1]}{projection}.{fused[2]}")] for projection in _PROJECTIONS]
            theirs[name] = torch.cat(parts)
    return theirs
