"""Key names: Show-o's published files and ours, both ways.

Upstream ships three files (reference "model_goldens", section 3): the language model with the projector
(``showo.* mm_projector.*``), the MAGVITv2 tokenizer, and OpenAI's CLIP tower. Ours is one network.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

TOKENIZER, CLIP = "vq.", "clip."
"""What the full upstream names of the two separate files begin with here; a file itself does not have it."""
PATTERNS = ("tokenizer.quantize.embedding", "tokenizer.quantize.power_vals")
"""Tables of sign patterns in published files: the number of bits says all of them, so they are made, not read."""

_RENAMES: tuple[tuple[str, str], ...] = (
    ("showo.", "language_model."),
    ("mm_projector.", "projector."),
    (f"{CLIP}vision_model.", "clip."),
    (TOKENIZER, "tokenizer."),
)
"""(upstream, ours)."""


def our_name(name: str) -> str:
    """Our key of a full upstream key; a key that no rule knows stays as it is and is reported as unexpected."""
    for theirs, ours in _RENAMES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def upstream_name(name: str) -> str:
    """Full upstream key of one of our keys; a key that no rule knows stays as it is."""
    for theirs, ours in _RENAMES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def from_upstream(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A full upstream state dict with our names."""
    return {our_name(name): tensor for name, tensor in state.items()}


def to_upstream(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse."""
    return {upstream_name(name): tensor for name, tensor in state.items()}
