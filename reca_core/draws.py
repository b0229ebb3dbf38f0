"""Random draws keyed by (seed, name, position of the sample in the global stream).

Because a draw depends on nothing else, it is the same on any number of ranks, batch split, accumulation or after a
resume. Each sample has its own generator: `torch.Generator` seeded from SHA-256 of the key, always on the CPU so that
results do not depend on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SEED_BYTES = 8
SEED_MASK = (1 << 63) - 1


@dataclass(frozen=True)
class KeyedDraws:
    """Draws for the samples of one batch.

    Attributes:
        seed: the training's or sampling's seed.
        positions: global position of every sample of the batch in the stream, in batch order.
    """

    seed: int
    positions: Sequence[int]

    def generator(self, name: str, position: int) -> torch.Generator:
        """The generator of one named draw of one sample."""
        digest = hashlib.sha256(f"{self.seed}/{name}/{position}".encode()).digest()
        generator = torch.Generator(device="cpu")
        generator.manual_seed(int.from_bytes(digest[:SEED_BYTES], "big") & SEED_MASK)
        return generator

    def uniform(self, name: str, *shape: int) -> Float[Tensor, "batch ..."]:
        """Uniform in [0, 1), ``shape`` per sample."""
        return torch.stack([torch.rand(shape, generator=self.generator(name, p)) for p in self.positions])

    def normal(self, name: str, *shape: int) -> Float[Tensor, "batch ..."]:
        """Standard normal, ``shape`` per sample."""
        return torch.stack([torch.randn(shape, generator=self.generator(name, p)) for p in self.positions])

    def exponential(self, name: str, *shape: int) -> Float[Tensor, "batch ..."]:
        """Exponential(1): ``argmax(p / E)`` is one categorical draw from ``p``."""
        rows = [torch.empty(shape).exponential_(generator=self.generator(name, p)) for p in self.positions]
        return torch.stack(rows)
