"""Random draws keyed by (seed, name, position of the sample in the global stream).

Because a draw depends on nothing else, it is the same on any number of ranks, batch split, accumulation or after a
resume. Each sample has its own generator: `torch.Generator` seeded from SHA-256 of the key, always on the CPU so that
results do not depend on the device. A generator costs about 8 microseconds.
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


def keyed_generator(seed: int, name: str, position: int) -> torch.Generator:
    """The generator of one named draw of one sample."""
    digest = hashlib.sha256(f"{seed}/{name}/{position}".encode()).digest()
    generator = torch.Generator(device="cpu")
    generator.manual_seed(int.from_bytes(digest[:SEED_BYTES], "big") & SEED_MASK)
    return generator


@dataclass(frozen=True)
class DrawStream:
    """Generators of the samples of one batch, for draws that come one after another, such as one per image token.

    Successive calls go on where the last one stopped: a sampler never holds all draws of a picture at once.
    """

    generators: Sequence[torch.Generator]

    def exponential(self, *shape: int) -> Float[Tensor, "batch ..."]:
        """Exponential(1): ``argmax(p / E)`` is one categorical draw from ``p``."""
        draws = torch.empty(len(self.generators), *shape)
        for row, generator in zip(draws, self.generators, strict=True):
            row.exponential_(generator=generator)
        return draws

    def normal(self, *shape: int) -> Float[Tensor, "batch ..."]:
        """Standard normal, ``shape`` per sample."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self.generators])


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
        return keyed_generator(self.seed, name, position)

    def stream(self, name: str) -> DrawStream:
        """One generator per sample of the batch, for draws that come one after another."""
        return DrawStream([self.generator(name, position) for position in self.positions])

    def uniform(self, name: str, *shape: int) -> Float[Tensor, "batch ..."]:
        """Uniform in [0, 1), ``shape`` per sample."""
        return torch.stack([torch.rand(shape, generator=self.generator(name, p)) for p in self.positions])

    def normal(self, name: str, *shape: int) -> Float[Tensor, "batch ..."]:
        """Standard normal, ``shape`` per sample."""
        return self.stream(name).normal(*shape)

    def exponential(self, name: str, *shape: int) -> Float[Tensor, "batch ..."]:
        """Exponential(1): ``argmax(p / E)`` is one categorical draw from ``p``."""
        return self.stream(name).exponential(*shape)


def picture_stream(texts_and_seeds: Sequence[tuple[str, int]], name: str) -> DrawStream:
    """Generators for drawing pictures: a picture's draws depend on its own seed and text only, not on its batch."""
    digests = [
        int.from_bytes(hashlib.sha256(text.encode()).digest()[:SEED_BYTES], "big") for text, _ in texts_and_seeds
    ]
    pairs = zip(digests, texts_and_seeds, strict=True)
    return DrawStream([keyed_generator(seed, name, digest) for digest, (_, seed) in pairs])
