"""Key names: Show-o's published files and ours, both ways.

Upstream ships three files (reference "model_goldens", section 3): the language model with the projector
(``showo.* mm_projector.*``), the MAGVITv2 tokenizer, and OpenAI's CLIP tower. Ours is one network.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

WEIGHTS, TOKENIZER, CLIP = "weights", "vq", "clip"
"""The three upstream parts."""

_RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    WEIGHTS: (("showo.", "language_model."), ("mm_projector.", "projector.")),
    TOKENIZER: (("", "tokenizer."),),
    CLIP: (("vision_model.", "clip."),),
}


def our_name(part: str, name: str) -> str:
    """Our key of an upstream key; a key that no rule knows stays as it is and is reported as unexpected."""
    for theirs, ours in _RENAMES[part]:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def upstream_name(name: str) -> tuple[str, str]:
    """(part, upstream key) of one of our keys. Raises KeyError for a key that no part holds."""
    for part, rules in _RENAMES.items():
        for theirs, ours in rules:
            if name.startswith(ours):
                return part, theirs + name.removeprefix(ours)
    raise KeyError(name)


def from_upstream(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Part name -> upstream state dict, as one state dict with our names."""
    return {our_name(part, name): tensor for part, state in parts.items() for name, tensor in state.items()}


def to_upstream(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Our state dict as upstream's parts."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        part, theirs = upstream_name(name)
        parts.setdefault(part, {})[theirs] = tensor
    return parts
