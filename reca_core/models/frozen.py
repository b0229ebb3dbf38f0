"""What a family needs to declare its frozen parts (``ReusesFeatures``): rows of one size, and settings in words.

A kept feature must not outlive what made it. Weights are compared by hash (training/feature_choice.py); everything else
that decides a value stands in ``FrozenPart.settings``, which ``described`` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from reca_core.models.unified import FrozenPart, Images, Value

PROVENANCE = frozenset({"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"})
"""Entries of a library's configuration that say where it came from and decide no value: weights are float32 here."""


def batched(
    weights: tuple[str, ...],
    settings: str,
    encode: Callable[[Images], Tensor],
    finish: Callable[[Tensor], Value],
) -> FrozenPart[Value]:
    """A part whose pictures all give tensors of one shape, so that a batch of them is one tensor [B, ...]."""

    def stacked(rows: Sequence[Tensor]) -> Value:
        return finish(torch.stack(list(rows)))

    return FrozenPart(weights, settings, lambda images: list(encode(images)), stacked)


def described(*things: object) -> str:
    """Configurations, sizes and transforms in words: equal words mean equal values on equal weights and pictures."""
    return "; ".join(_words(thing) for thing in things)


def _words(thing: object) -> str:
    if isinstance(thing, PretrainedConfig):
        return json.dumps(_deciding(thing.to_dict()), sort_keys=True, default=str)
    return json.dumps(thing, sort_keys=True, default=str) if isinstance(thing, dict) else repr(thing)


def _deciding(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _deciding(part) for name, part in value.items() if name not in PROVENANCE}
    return [_deciding(part) for part in value] if isinstance(value, (list, tuple)) else value
