"""From mmdetection's Mask2Former file, which GenEval's published numbers rest on, to transformers' class.

The list of keys and shapes is written from mmdetection 2.x's module definitions (open-mmlab/mmdetection):
mmdet/models/backbones/swin.py @ 2a643e4, mmdet/models/plugins/msdeformattn_pixel_decoder.py @ 3e26931,
mmdet/models/dense_heads/mask2former_head.py @ c88cd82, and their settings in configs/mask2former/:
mask2former_r50_lsj_8x2_50e_coco.py @ 71bfee9, mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.py @ 31ac721, with 80
classes as the instance model has. Attention blocks are mmcv 1.x's. Not yet run on the original file: until
``check_original`` (``reca doctor --detector FILE``) has seen its hash and the known photographs, results say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.judges.detector_label import PUBLISHED_NAME
from evaluation.judges.weights import load_pickle
from reca_core.contracts.errors import CheckpointRefused

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

CHANNELS = 3
PATCH = 4
MLP_RATIO = 4
MERGED = 4
"""Neighbouring patches that become one between stages."""
MERGE_ORDER = (0, 2, 1, 3)
"""Where transformers' k-th neighbour (column by column) lies among mmdetection's (row by row)."""
COORDINATES = 2
QKV = ("q", "k", "v")
SHOWN_KEYS = 5
WEIGHT_BIAS = ("weight", "bias")


@dataclass(frozen=True)
class Layout:
    """Sizes of the network; the defaults are the published ones."""

    embed: int = 96
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    width: int = 256
    attention_heads: int = 8
    levels: int = 3
    points: int = 4
    encoder_layers: int = 6
    encoder_feedforward: int = 1024
    decoder_layers: int = 9
    decoder_feedforward: int = 2048
    queries: int = 100
    classes: int = 80

    @property
    def channels(self) -> list[int]:
        """Of the stages."""
        return [self.embed * 2**stage for stage in range(len(self.depths))]


PUBLISHED = Layout()
Shapes = dict[str, tuple[int, ...]]


def shapes(layout: Layout = PUBLISHED) -> Shapes:
    """Every key of the file's ``state_dict`` with its shape."""
    found: Shapes = {}
    for part in (_backbone(layout), _pixel_decoder(layout), _head(layout)):
        found |= dict(part)
    return found


def _linear(name: str, out: int, into: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.{part}", (width,)) for part in WEIGHT_BIAS)


def _feedforward(name: str, width: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _linear(f"{name}.layers.0.0", inner, width)
    yield from _linear(f"{name}.layers.1", width, inner)


def _backbone(layout: Layout) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "backbone.patch_embed.projection.weight", (layout.embed, CHANNELS, PATCH, PATCH)
    yield "backbone.patch_embed.projection.bias", (layout.embed,)
    yield from _norm("backbone.patch_embed.norm", layout.embed)
    for stage, (depth, heads, width) in enumerate(zip(layout.depths, layout.heads, layout.channels, strict=True)):
        for block in range(depth):
            yield from _block(f"backbone.stages.{stage}.blocks.{block}", width, heads, layout.window)
        if stage < len(layout.depths) - 1:
            merge = f"backbone.stages.{stage}.downsample"
            yield from _norm(f"{merge}.norm", MERGED * width)
            yield f"{merge}.reduction.weight", (2 * width, MERGED * width)
        yield from _norm(f"backbone.norm{stage}", width)


def _block(name: str, width: int, heads: int, window: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm(f"{name}.norm1", width)
    yield f"{name}.attn.w_msa.relative_position_bias_table", ((2 * window - 1) ** 2, heads)
    yield f"{name}.attn.w_msa.relative_position_index", (window**2, window**2)
    yield from _linear(f"{name}.attn.w_msa.qkv", len(QKV) * width, width)
    yield from _linear(f"{name}.attn.w_msa.proj", width, width)
    yield from _norm(f"{name}.norm2", width)
    yield from _feedforward(f"{name}.ffn", width, MLP_RATIO * width)


def _pixel_decoder(layout: Layout) -> Iterator[tuple[str, tuple[int, ...]]]:
    root, width = "panoptic_head.pixel_decoder", layout.width
    coarse_first = layout.channels[::-1]
    for level in range(layout.levels):
        yield f"{root}.input_convs.{level}.conv.weight", (width, coarse_first[level], 1, 1)
        yield f"{root}.input_convs.{level}.conv.bias", (width,)
        yield from _norm(f"{root}.input_convs.{level}.gn", width)
    sampled = layout.attention_heads * layout.levels * layout.points
    for layer in range(layout.encoder_layers):
        name = f"{root}.encoder.layers.{layer}"
        yield from _linear(f"{name}.attentions.0.sampling_offsets", sampled * COORDINATES, width)
        yield from _linear(f"{name}.attentions.0.attention_weights", sampled, width)
        yield from _linear(f"{name}.attentions.0.value_proj", width, width)
        yield from _linear(f"{name}.attentions.0.output_proj", width, width)
        yield from _feedforward(f"{name}.ffns.0", width, layout.encoder_feedforward)
        yield from _norm(f"{name}.norms.0", width)
        yield from _norm(f"{name}.norms.1", width)
    yield f"{root}.level_encoding.weight", (layout.levels, width)
    yield f"{root}.lateral_convs.0.conv.weight", (width, layout.channels[0], 1, 1)
    yield from _norm(f"{root}.lateral_convs.0.gn", width)
    yield f"{root}.output_convs.0.conv.weight", (width, width, 3, 3)
    yield from _norm(f"{root}.output_convs.0.gn", width)
    yield f"{root}.mask_feature.weight", (width, width, 1, 1)
    yield f"{root}.mask_feature.bias", (width,)


def _head(layout: Layout) -> Iterator[tuple[str, tuple[int, ...]]]:
    root, width = "panoptic_head", layout.width
    for layer in range(layout.decoder_layers):
        name = f"{root}.transformer_decoder.layers.{layer}"
        for attention in range(2):
            inner = f"{name}.attentions.{attention}.attn"
            yield f"{inner}.in_proj_weight", (len(QKV) * width, width)
            yield f"{inner}.in_proj_bias", (len(QKV) * width,)
            yield from _linear(f"{inner}.out_proj", width, width)
        yield from _feedforward(f"{name}.ffns.0", width, layout.decoder_feedforward)
        for norm in range(3):
            yield from _norm(f"{name}.norms.{norm}", width)
    yield from _norm(f"{root}.transformer_decoder.post_norm", width)
    yield f"{root}.query_embed.weight", (layout.queries, width)
    yield f"{root}.query_feat.weight", (layout.queries, width)
    yield f"{root}.level_embed.weight", (layout.levels, width)
    yield from _linear(f"{root}.cls_embed", layout.classes + 1, width)
    for layer in (0, 2, 4):
        yield from _linear(f"{root}.mask_embed.{layer}", width, width)


_SWIN = "model.pixel_level_module.encoder"
_PIXELS = "model.pixel_level_module.decoder"
_DECODER = "model.transformer_module.decoder"
_RENAMED: Sequence[tuple[str, str]] = (
    (r"backbone\.patch_embed\.projection\.", rf"{_SWIN}.swin.embeddings.patch_embeddings.projection."),
    (r"backbone\.patch_embed\.norm\.", rf"{_SWIN}.swin.embeddings.norm."),
    (r"backbone\.stages\.(\d+)\.", rf"{_SWIN}.swin.encoder.layers.\1."),
    (r"backbone\.norm0\.", rf"{_SWIN}.hidden_states_norms.stage1."),
    (r"backbone\.norm1\.", rf"{_SWIN}.hidden_states_norms.stage2."),
    (r"backbone\.norm2\.", rf"{_SWIN}.hidden_states_norms.stage3."),
    (r"backbone\.norm3\.", rf"{_SWIN}.hidden_states_norms.stage4."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"\.attn\.w_msa\.proj\.", ".attention.o_proj."),
    (r"\.attn\.w_msa\.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"),
    (r"panoptic_head\.pixel_decoder\.", f"{_PIXELS}."),
    (r"\.input_convs\.(\d+)\.conv\.", r".input_projections.\1.0."),
    (r"\.input_convs\.(\d+)\.gn\.", r".input_projections.\1.1."),
    (r"\.lateral_convs\.0\.conv\.", ".adapter_1.0."),
    (r"\.lateral_convs\.0\.gn\.", ".adapter_1.1."),
    (r"\.output_convs\.0\.conv\.", ".layer_1.0."),
    (r"\.output_convs\.0\.gn\.", ".layer_1.1."),
    (r"\.mask_feature\.", ".mask_projection."),
    (r"\.level_encoding\.weight", ".level_embed"),
    (rf"({re.escape(_PIXELS)}\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (rf"({re.escape(_PIXELS)}\.encoder\.layers\.\d+)\.norms\.0\.", r"\1.self_attn_layer_norm."),
    (rf"({re.escape(_PIXELS)}\.encoder\.layers\.\d+)\.norms\.1\.", r"\1.final_layer_norm."),
    (r"panoptic_head\.transformer_decoder\.post_norm\.", f"{_DECODER}.layernorm."),
    (r"panoptic_head\.transformer_decoder\.", f"{_DECODER}."),
    (r"\.attentions\.0\.attn\.", ".cross_attn."),
    (r"\.attentions\.1\.attn\.", ".self_attn."),
    (r"\.norms\.0\.", ".cross_attn_layer_norm."),
    (r"\.norms\.1\.", ".self_attn_layer_norm."),
    (r"\.norms\.2\.", ".final_layer_norm."),
    (r"\.ffns\.0\.layers\.0\.0\.", ".fc1."),
    (r"\.ffns\.0\.layers\.1\.", ".fc2."),
    (r"panoptic_head\.query_embed\.", "model.transformer_module.queries_embedder."),
    (r"panoptic_head\.query_feat\.", "model.transformer_module.queries_features."),
    (r"panoptic_head\.level_embed\.", "model.transformer_module.level_embed."),
    (r"panoptic_head\.cls_embed\.", "class_predictor."),
    (r"panoptic_head\.mask_embed\.0\.", f"{_DECODER}.mask_predictor.mask_embedder.0.0."),
    (r"panoptic_head\.mask_embed\.2\.", f"{_DECODER}.mask_predictor.mask_embedder.1.0."),
    (r"panoptic_head\.mask_embed\.4\.", f"{_DECODER}.mask_predictor.mask_embedder.2.0."),
)
"""Pattern and replacement, applied in this order; the first parts of a name come before the last ones."""
UNUSED_WEIGHTS = (f"{_SWIN}.swin.layernorm.weight", f"{_SWIN}.swin.layernorm.bias", "criterion.empty_weight")
"""What transformers' class holds and never uses when it predicts: a norm behind the last stage, and loss weights."""


def renamed(key: str) -> str:
    """transformers' name of a parameter."""
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


def check(state: Mapping[str, Any], layout: Layout = PUBLISHED) -> None:
    """Raises CheckpointRefused listing missing, unexpected, misshapen and non-finite entries."""
    import torch

    expected = shapes(layout)
    faults = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [
            f"{key} {tuple(getattr(state[key], 'shape', ()))} instead of {shape}"
            for key, shape in expected.items()
            if key in state and tuple(getattr(state[key], "shape", ())) != shape
        ],
        "not finite numbers": [
            key
            for key, value in state.items()
            if not isinstance(value, torch.Tensor) or not bool(torch.isfinite(value).all())
        ],
    }
    said = [f"{len(keys)} {what}: {', '.join(map(str, keys[:SHOWN_KEYS]))}" for what, keys in faults.items() if keys]
    if said:
        raise CheckpointRefused("; ".join(said), field="judge.weights", remedy=f"use {PUBLISHED_NAME}")


def convert(state: Mapping[str, Tensor], layout: Layout = PUBLISHED) -> dict[str, Tensor]:
    """The file's weights under transformers' names. Raises CheckpointRefused for any other list of keys or shapes."""
    check(state, layout)
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = renamed(key)
        if key.endswith("relative_position_index"):
            continue  # a constant that transformers computes
        if ".attn.w_msa.qkv." in key:
            found |= _split(name.replace(".attn.w_msa.qkv.", ".attention.{}_proj."), value)
        elif ".self_attn.in_proj_" in name:
            found |= _split(name.replace(".in_proj_", ".{}_proj."), value)
        elif ".downsample." in name:
            found[name] = _reordered(value)
        else:
            found[name] = value
    return found


def _split(name: str, value: Tensor) -> dict[str, Tensor]:
    return {name.format(part): piece for part, piece in zip(QKV, value.chunk(len(QKV)), strict=True)}


def _reordered(value: Tensor) -> Tensor:
    """Merged patches: mmdetection unfolds channel by channel, transformers concatenates neighbour by neighbour."""
    import torch

    by_channel = value.unflatten(-1, (-1, MERGED))
    return torch.stack([by_channel[..., at] for at in MERGE_ORDER], dim=-2).flatten(-2)


def configuration(layout: Layout = PUBLISHED) -> Mask2FormerConfig:
    """transformers' configuration of the same network."""
    from transformers import Mask2FormerConfig, SwinConfig

    stages = [f"stage{stage + 1}" for stage in range(len(layout.depths))]
    backbone = SwinConfig.from_dict(
        {
            "embed_dim": layout.embed,
            "depths": list(layout.depths),
            "num_heads": list(layout.heads),
            "window_size": layout.window,
            "out_features": stages,
        }
    )
    return Mask2FormerConfig(
        backbone_config=backbone,
        id2label={at: str(at) for at in range(layout.classes)},
        feature_size=layout.width,
        mask_feature_size=layout.width,
        hidden_dim=layout.width,
        num_attention_heads=layout.attention_heads,
        encoder_layers=layout.encoder_layers,
        encoder_feedforward_dim=layout.encoder_feedforward,
        decoder_layers=layout.decoder_layers + 1,
        dim_feedforward=layout.decoder_feedforward,
        num_queries=layout.queries,
    )


def build(state: Mapping[str, Tensor], layout: Layout = PUBLISHED) -> Mask2FormerForUniversalSegmentation:
    """The network with the file's weights, every one of them used. Raises CheckpointRefused otherwise."""
    from transformers import Mask2FormerForUniversalSegmentation

    model = Mask2FormerForUniversalSegmentation(configuration(layout))
    report = model.load_state_dict(convert(state, layout), strict=False)
    missing = [key for key in report.missing_keys if key not in UNUSED_WEIGHTS]
    if missing or report.unexpected_keys:
        fact = (
            f"transformers' class has other parameters: {missing[:SHOWN_KEYS]}, {report.unexpected_keys[:SHOWN_KEYS]}"
        )
        raise CheckpointRefused(fact, field="transformers", remedy="install the tested version of transformers")
    return model


def load_original(path: Path, layout: Layout = PUBLISHED) -> Mask2FormerForUniversalSegmentation:
    """The network from mmdetection's file, which is read as weights alone.

    Raises StageFailed for a file that wants to run code, CheckpointRefused for one of another model.
    """
    content = load_pickle(path, harmless())
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointRefused("holds no state_dict", field=str(path), remedy=f"use {PUBLISHED_NAME}")
    return build(state, layout)


def harmless() -> list[Any]:
    """What mmcv 1.x writes beside tensors: NumPy numbers and arrays in ``meta``, under their old and new names."""
    import numpy as np
    from numpy._core import multiarray

    kinds = [type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "uint8", "bool")]
    functions = [(multiarray.scalar, "scalar"), (multiarray._reconstruct, "_reconstruct")]
    old_and_new = [
        (function, f"numpy.{core}.multiarray.{name}") for function, name in functions for core in ("core", "_core")
    ]
    return [np.ndarray, np.dtype, *kinds, *old_and_new]
