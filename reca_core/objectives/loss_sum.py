"""A loss as a sum and a count, so that accumulation, uneven masks and uneven ranks stay exact.

Averaging per micro-batch and then over micro-batches weights tokens unequally; upstream training code does that
(reference: reca_recipe section 4.1). Here a loss is divided once, by the count over the whole optimizer step.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LossSum:
    """``total`` is differentiable, ``count`` is how many elements it sums over. Both are scalars."""

    total: Float[Tensor, ""]
    count: Float[Tensor, ""]

    def __add__(self, other: LossSum) -> LossSum:
        return LossSum(self.total + other.total, self.count + other.count)

    def mean(self) -> Float[Tensor, ""]:
        """``total / count``, with count at least 1: an empty selection is a loss of zero, not NaN."""
        return self.total / self.count.clamp(min=1.0)

    def detached(self) -> LossSum:
        """The same numbers outside the graph, for logging."""
        return LossSum(self.total.detach(), self.count.detach())
