"""The converted head computes what mmdetection's definitions say, value by value.

Written once more from mmdet/models/plugins/msdeformattn_pixel_decoder.py @ 3e26931 and
mmdet/models/dense_heads/mask2former_head.py @ c88cd82, for one picture and without any of transformers' code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.judges.detector_convert import build
from tests.evaluation.tiny_detector import TINY, random_state

torch.set_num_threads(1)
State = dict[str, Tensor]
PIXELS = "panoptic_head.pixel_decoder"
HEAD = "panoptic_head"
GROUPS = 32
POINTS = TINY.points


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def norm(x: Tensor, state: State, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def feedforward(x: Tensor, state: State, name: str) -> Tensor:
    return x + linear(linear(x, state, f"{name}.layers.0.0").relu(), state, f"{name}.layers.1")


def convolved(x: Tensor, state: State, name: str, padding: int = 0) -> Tensor:
    """x: [channels, height, width]; convolution and group norm."""
    seen = F.conv2d(x[None], state[f"{name}.conv.weight"], state.get(f"{name}.conv.bias"), padding=padding)
    return F.group_norm(seen, GROUPS, state[f"{name}.gn.weight"], state[f"{name}.gn.bias"])[0]


def places(height: int, width: int) -> Tensor:
    """Sine encoding [height * width, channels]: rows in the first half, columns in the second."""
    half = TINY.width // 2
    period = 10_000 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)

    def waves(count: int) -> Tensor:
        along = torch.arange(1, count + 1) / (count + 1e-6) * 2 * math.pi
        angles = along[:, None] / period
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)

    rows, columns = waves(height), waves(width)
    grid = [torch.cat([rows[r], columns[c]]) for r in range(height) for c in range(width)]
    return torch.stack(grid)


def deformable(x: Tensor, where: Tensor, sizes: list[tuple[int, int]], state: State, name: str) -> Tensor:
    """Every token of every level looks at a few points of every level. x, where: [tokens, channels]."""
    heads = TINY.attention_heads
    query = x + where
    value = linear(x, state, f"{name}.value_proj").unflatten(-1, (heads, -1))
    offsets = linear(query, state, f"{name}.sampling_offsets").unflatten(-1, (heads, len(sizes), POINTS, 2))
    weights = linear(query, state, f"{name}.attention_weights").unflatten(-1, (heads, -1)).softmax(-1)
    weights = weights.unflatten(-1, (len(sizes), POINTS))
    middles = [((c + 0.5) / w, (r + 0.5) / h) for h, w in sizes for r in range(h) for c in range(w)]
    centre = torch.tensor(middles)
    total = torch.zeros_like(value[:, :, :])
    for level, (start, (height, width)) in enumerate(zip(starts(sizes), sizes, strict=True)):
        plane = value[start : start + height * width].permute(1, 2, 0).unflatten(-1, (height, width))
        at = centre[:, None, None] + offsets[:, :, level] / torch.tensor([width, height])
        grid = (2 * at - 1).transpose(0, 1)  # heads, tokens, points, 2
        seen = F.grid_sample(plane, grid, align_corners=False)  # heads, channels, tokens, points
        total = total + torch.einsum("hctp,thp->thc", seen, weights[:, :, level])
    return linear(total.flatten(1), state, f"{name}.output_proj")


def starts(sizes: list[tuple[int, int]]) -> list[int]:
    counts = [height * width for height, width in sizes]
    return [sum(counts[:at]) for at in range(len(counts))]


def pixel_decoder(features: list[Tensor], state: State) -> tuple[Tensor, list[Tensor]]:
    """Mask features, and three levels from coarse to fine."""
    coarse_first = features[:0:-1]
    sizes = [(x.shape[1], x.shape[2]) for x in coarse_first]
    tokens = [convolved(x, state, f"{PIXELS}.input_convs.{i}").flatten(1).T for i, x in enumerate(coarse_first)]
    levels = state[f"{PIXELS}.level_encoding.weight"]
    x, where = torch.cat(tokens), torch.cat([places(*size) + levels[i] for i, size in enumerate(sizes)])
    for layer in range(TINY.encoder_layers):
        name = f"{PIXELS}.encoder.layers.{layer}"
        x = norm(x + deformable(x, where, sizes, state, f"{name}.attentions.0"), state, f"{name}.norms.0")
        x = norm(feedforward(x, state, f"{name}.ffns.0"), state, f"{name}.norms.1")
    parts = x.split([height * width for height, width in sizes])
    outputs = [part.T.unflatten(1, size) for part, size in zip(parts, sizes, strict=True)]
    lateral = convolved(features[0], state, f"{PIXELS}.lateral_convs.0")
    larger = F.interpolate(outputs[-1][None], lateral.shape[1:], mode="bilinear", align_corners=False)[0]
    fine = convolved(lateral + larger, state, f"{PIXELS}.output_convs.0", padding=1).relu()
    weight, bias = (state[f"{PIXELS}.mask_feature.{part}"] for part in ("weight", "bias"))
    return F.conv2d(fine[None], weight, bias)[0], outputs


def attention(query: Tensor, key: Tensor, value: Tensor, state: State, name: str, hidden: Tensor | None) -> Tensor:
    heads = TINY.attention_heads
    weights, biases = (state[f"{name}.in_proj_{part}"].chunk(3) for part in ("weight", "bias"))
    q, k, v = (
        F.linear(x, w, b).unflatten(-1, (heads, -1)).transpose(0, 1)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    if hidden is not None:
        scores = scores.masked_fill(hidden[None], -torch.inf)
    return linear((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), state, f"{name}.out_proj")


def predicted(x: Tensor, masks: Tensor, size: tuple[int, int], state: State) -> tuple[Tensor, Tensor, Tensor]:
    """Class logits, mask logits, and where the next layer must not look."""
    x = norm(x, state, f"{HEAD}.transformer_decoder.post_norm")
    embedded = linear(x, state, f"{HEAD}.mask_embed.0").relu()
    embedded = linear(linear(embedded, state, f"{HEAD}.mask_embed.2").relu(), state, f"{HEAD}.mask_embed.4")
    logits = torch.einsum("qc,chw->qhw", embedded, masks)
    small = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    hidden = small.sigmoid().flatten(1) < 0.5
    return linear(x, state, f"{HEAD}.cls_embed"), logits, hidden & ~hidden.all(1, keepdim=True)


def head(features: list[Tensor], state: State) -> tuple[Tensor, Tensor]:
    masks, levels = pixel_decoder(features, state)
    tokens = [x.flatten(1).T + state[f"{HEAD}.level_embed.weight"][i] for i, x in enumerate(levels)]
    where = [places(x.shape[1], x.shape[2]) for x in levels]
    sizes = [(x.shape[1], x.shape[2]) for x in levels]
    queries, names = state[f"{HEAD}.query_feat.weight"], state[f"{HEAD}.query_embed.weight"]
    classes, logits, hidden = predicted(queries, masks, sizes[0], state)
    for layer in range(TINY.decoder_layers):
        level, name = layer % len(levels), f"{HEAD}.transformer_decoder.layers.{layer}"
        keys = tokens[level] + where[level]
        seen = attention(queries + names, keys, tokens[level], state, f"{name}.attentions.0.attn", hidden)
        queries = norm(queries + seen, state, f"{name}.norms.0")
        own = attention(queries + names, queries + names, queries, state, f"{name}.attentions.1.attn", None)
        queries = norm(queries + own, state, f"{name}.norms.1")
        queries = norm(feedforward(queries, state, f"{name}.ffns.0"), state, f"{name}.norms.2")
        classes, logits, hidden = predicted(queries, masks, sizes[(layer + 1) % len(sizes)], state)
    return classes, logits


def test_classes_and_masks_are_those_of_mmdetections_head() -> None:
    state = random_state(seed=4)
    model: Any = build(state, TINY).eval()
    picture = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        features = [x[0] for x in model.model.pixel_level_module.encoder(picture).feature_maps]
        classes, logits = head(features, state)
        found = model(pixel_values=picture)
    assert torch.allclose(found.class_queries_logits[0], classes, atol=1e-4)
    assert torch.allclose(found.masks_queries_logits[0], logits, atol=1e-3)
    assert classes.std() > 0.1
    assert logits.std() > 0.1
