"""What a training watches so that it cannot fail quietly. Each guard answers a failure seen in published code.

- bottleneck: RecA collapses when the condition is the target's own tokens at the target's own resolution (arXiv
  2509.07295; upstream measured cross-entropy near 0 after some 3,000 steps and a lower score): refused before training.
- frozen weights: hashed before and after; one project trained its frozen half through optimizer state.
- changed weights: one project published its base weights as trained ones; every trained tensor must differ at the end.
- not-a-number: the step is not taken, the last good checkpoint stays, the samples are named.
- collapse in post-training: reconstruction below 0.3 of its first value has meant copying, image-to-text more than 15%
  above its first value forgetting (reference "reca_recipe", section 4.1); half-way there is a warning. Both are signs,
  not proofs, so whether they stop a run is the user's choice (``TrainingPlan.on_collapse``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.models.unified import UnifiedModel
from reca_core.training.distributed import whole
from reca_core.training.step import IMAGE_TO_TEXT, RECONSTRUCTION

WINDOW_STEPS = 20
"""Losses are compared as means over so many steps; the first window is what they are compared with."""
COPYING_WARNS, COPYING_STOPS = 0.5, 0.3
"""Reconstruction loss relative to the first window."""
FORGETTING_WARNS, FORGETTING_STOPS = 1.075, 1.15
"""Image-to-text loss relative to the first window."""
FORGETTING_FLOOR = 0.05
"""Nats per token by which it must have risen as well: 15% of a loss near zero is noise."""


class Collapsed(StageFailed):
    """The model copies its input or forgets how to answer; the last checkpoint is from before the threshold."""


class NotFinite(StageFailed):
    """A loss or a gradient is not a number; the step was not taken."""


@runtime_checkable
class NamesItsSpaces(Protocol):
    """A family that says in which space each side of RecA lives, for the bottleneck check."""

    understanding_space: str
    """Such as "SigLIP features": what ``understand`` returns."""
    target_space: str
    """Such as "VQ codes": what ``encode_target`` returns. The same words mean the same tokens."""


@torch.no_grad()
def check_bottleneck(adapter: UnifiedModel, picture: Image.Image) -> None:
    """Compare the condition of one picture with its target.

    Raises BadInput if they are the same tokens at the same resolution, or if the family does not name its spaces.
    """
    if not isinstance(adapter, NamesItsSpaces):
        raise BadInput(
            f"the family {adapter.family} does not name its understanding and target spaces",
            field="model.family",
            remedy="give its adapter understanding_space and target_space (reca_core/training/guards.py)",
        )
    images = adapter.prepare([picture])
    condition_tokens = adapter.understand(images).shape[1]
    target = adapter.encode_target(images)
    values = target.ids if target.ids is not None else target.latents
    assert values is not None  # a Target has one or the other
    same = adapter.understanding_space == adapter.target_space
    if same and condition_tokens >= values.shape[1]:
        raise BadInput(
            f"the condition is the target itself: {condition_tokens} tokens of {adapter.target_space} for "
            f"{values.shape[1]} of them; the model would learn to copy",
            field="model",
            remedy="let it look at a smaller picture, or with another encoder",
        )


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes, gathered where it is sharded; of bfloat16 as float32, which may hold the same."""
    value = whole(tensor)
    flat = (value.float() if value.dtype == torch.bfloat16 else value).contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def digests(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """SHA-256 per name."""
    return {name: digest(tensor) for name, tensor in tensors}


def frozen_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters without gradient, and buffers: what a training must leave bit-equal."""
    parameters = [(name, value) for name, value in network.named_parameters() if not value.requires_grad]
    return [*parameters, *network.named_buffers()]


def check_frozen(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Raises StageFailed naming the frozen tensors that changed."""
    changed = sorted(name for name in before if before[name] != after.get(name))
    if changed:
        raise StageFailed(f"{len(changed)} frozen tensors changed: {', '.join(changed[:5])}", field="trainable_names")


def check_changed(before: Mapping[str, str], after: Mapping[str, str], idle: Sequence[str]) -> None:
    """Raises StageFailed if a trained tensor equals the base, or an idle one (no gradient ever) does not."""
    unmoved = sorted(name for name in before if before[name] == after[name] and name not in set(idle))
    moved = sorted(name for name in idle if before[name] != after[name])
    if unmoved or moved:
        raise StageFailed(
            f"trained but equal to the base: {unmoved[:5]}; without gradient but different: {moved[:5]}",
            field="final",
            remedy="the learning rate is too small to change a float32 weight, or the adapter's trainable_names are "
            "wrong",
        )


@dataclass
class CollapseMonitor:
    """Watches the course of two losses. Fed every step in order; after a resume, with the logged ones first."""

    stops: bool
    """Raise at the second threshold instead of only warning."""
    warnings: list[str] = field(default_factory=list)
    _seen: dict[str, list[float]] = field(default_factory=dict)

    def observe(self, step: int, losses: Mapping[str, float]) -> str | None:
        """A new warning, if there is one. Raises Collapsed where it should stop."""
        for name, worse in ((RECONSTRUCTION, self._copying), (IMAGE_TO_TEXT, self._forgetting)):
            if name not in losses:
                continue
            first, recent = self._windows(name, losses[name])
            level = worse(first, recent) if first is not None and recent is not None else 0
            if level:
                return self._speak(step, name, first or 0.0, recent or 0.0, level)
        return None

    def _windows(self, name: str, value: float) -> tuple[float | None, float | None]:
        """Means of the first window and of the latest one, once both are full and apart."""
        seen = self._seen.setdefault(name, [])
        seen.append(value)
        if len(seen) < 2 * WINDOW_STEPS:
            return None, None
        if len(seen) > 2 * WINDOW_STEPS:
            del seen[WINDOW_STEPS]
        return sum(seen[:WINDOW_STEPS]) / WINDOW_STEPS, sum(seen[-WINDOW_STEPS:]) / WINDOW_STEPS

    @staticmethod
    def _copying(first: float, recent: float) -> int:
        return (recent < COPYING_WARNS * first) + (recent < COPYING_STOPS * first)

    @staticmethod
    def _forgetting(first: float, recent: float) -> int:
        if recent < first + FORGETTING_FLOOR:
            return 0
        return (recent > FORGETTING_WARNS * first) + (recent > FORGETTING_STOPS * first)

    def _speak(self, step: int, name: str, first: float, recent: float, level: int) -> str | None:
        what = "copying its input" if name == RECONSTRUCTION else "forgetting how to answer questions"
        degree = "may be" if level > 1 else "is half-way to what has meant"
        fact = f"step {step}: {name} loss {first:.4g} -> {recent:.4g}: the model {degree} {what}"
        if level > 1 and self.stops:
            raise Collapsed(
                fact,
                field="losses",
                remedy="change the loss weights or the learning rate, or go on with training.on_collapse=warn",
            )
        kind = f"{name}/{level}"
        if any(kind in warning for warning in self.warnings):
            return None
        self.warnings.append(f"{fact} ({kind})")
        return self.warnings[-1]


def finite(numbers: Float[Tensor, " numbers"] | Sequence[float]) -> bool:
    """True if every number is finite."""
    return bool(torch.isfinite(torch.as_tensor(numbers)).all())
