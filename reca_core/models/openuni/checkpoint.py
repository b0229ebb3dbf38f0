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
    (r"^encoder\.layers\.(\d+)\.attn\.([qkv]_proj|[qk]_norm)\.", r"encoder.layer.\1.attention.\2."),
    (r"^encoder\.layers\.(\d+)\.ls([12])$", r"encoder.layer.\1.lambda_\2"),
    (r"^encoder\.layers\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^encoder\.layers\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^encoder\.layers\.(\d+)\.mlp\.", r"encoder.layer.\1.mlp."),
)
_VISION_BACK = (
    (r"^embeddings\.cls_token$", "embeddings.class_embedding"),
    (r"^embeddings\.position_embeddings$", "embeddings.position_embedding"),
    (r"^embeddings\.patch_embeddings\.projection\.", "embeddings.patch_embedding."),
    (r"^encoder\.layer\.(\d+)\.attention\.projection_layer\.", r"encoder.layers.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.([qkv]_proj|[qk]_norm)\.", r"encoder.layers.\1.attn.\2."),
    (r"^encoder\.layer\.(\d+)\.lambda_([12])$", r"encoder.layers.\1.ls\2"),
    (r"^encoder\.layer\.(\d+)\.layernorm_before\.", r"encoder.layers.\1.norm1."),
    (r"^encoder\.layer\.(\d+)\.layernorm_after\.", r"encoder.layers.\1.norm2."),
    (r"^encoder\.layer\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
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
_SPLIT = re.compile(r"^(lmm\.vision_model\.encoder\.layers\.\d+\.attn\.)[qkv]_proj\.(weight|bias)$")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
TEXT_HEAD, WORDS = "lmm.lm_head.weight", "lmm.model.language_model.embed_tokens.weight"


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
    """An upstream state dict with our names; the fused q, k, v of the vision tower become three tensors.

    A fused tensor that is no stack of three keeps a name that ours have not, and is reported.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        fused = _FUSED.match(name)
        if fused is None or tensor.dim() == 0 or not len(tensor) or len(tensor) % len(_PROJECTIONS):
            ours[our_name(name)] = tensor
            continue
        for projection, part in zip(_PROJECTIONS, tensor.chunk(3), strict=True):
            ours[our_name(f"{fused[1]}{projection}.{fused[2]}")] = part
    return ours


def upstream_name(name: str) -> str:
    """Upstream's key of one of ours (projections still split); a key that no rule knows stays as it is."""
    if name.startswith(_OUR_VISION):
        rest = name.removeprefix(_OUR_VISION)
        for pattern, replacement in _VISION_BACK:
            rest = re.sub(pattern, replacement, rest)
        return _THEIR_VISION + rest
    for theirs, ours in _PREFIXES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def to_upstream(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``from_upstream``; a head tied to the word embeddings is written out."""
    head = state.get(TEXT_HEAD, state.get(WORDS))
    named = dict(state) if head is None else {**state, TEXT_HEAD: head}
    renamed = {upstream_name(name): tensor for name, tensor in named.items()}
    theirs: dict[str, Tensor] = {}
    for name, tensor in renamed.items():
        split = _SPLIT.match(name)
        parts = [renamed.get(f"{split[1]}{each}.{split[2]}") for each in _PROJECTIONS] if split else []
        held = [part for part in parts if part is not None]
        if split is None:
            theirs[name] = tensor
        elif len(held) == len(_PROJECTIONS):
            fused = f"{split[1]}qkv.{split[2]}"
            if fused not in theirs:
                theirs[fused] = torch.cat(held)
        else:
            theirs[name] = tensor
    return theirs


def tied(stated: bool, state: Mapping[str, Tensor], head: str = TEXT_HEAD, words: str = WORDS) -> bool:
    """As config says, unless the file holds a text head that differs from the word embeddings."""
    own, shared = state.get(head), state.get(words)
    return stated and (own is None or (shared is not None and torch.equal(own, shared)))
