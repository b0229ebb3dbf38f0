"""The protocol every model family follows: a training step that reads as the paper (arXiv 2509.07295, section 3).

    images -> understand -> condition (embeddings + instruction) -> the family's own generation loss on the same images

Families compose the free functions of ``reca_core.objectives``; there is no base class to override half of.
Shape legend: B batch, U understanding tokens, D embedding width, N target tokens, H/W pixels.
An adapter is an ``nn.Module``; what distributed training wraps is ``training.step.TrainingStep`` around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from reca_core.contracts.requests import SamplingSettings
from reca_core.draws import KeyedDraws
from reca_core.objectives.loss_sum import LossSum

Value = TypeVar("Value")


@dataclass(frozen=True)
class Images:
    """The same pictures as the understanding encoder and the image tokenizer want them, each by its own transform."""

    understanding: Float[Tensor, "batch 3 height_und width_und"]
    target: Float[Tensor, "batch 3 height_gen width_gen"]

    def to(self, device: Any) -> Self:
        """Both tensors on ``device``. From pinned memory the copy runs beside what the device computes."""
        understanding = self.understanding.to(device, non_blocking=True)
        return replace(self, understanding=understanding, target=self.target.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """Both tensors in memory that a CUDA device reads by itself."""
        return replace(self, understanding=self.understanding.pin_memory(), target=self.target.pin_memory())

    def picture(self, index: int) -> Images:
        """One of them, as a batch of one."""
        return Images(self.understanding[index : index + 1], self.target[index : index + 1])

    @classmethod
    def joined(cls, parts: Sequence[Images]) -> Images:
        """Batches one after another. A family whose pictures differ in size overrides both (bagel/pictures.py)."""
        return Images(torch.cat([part.understanding for part in parts]), torch.cat([part.target for part in parts]))


@dataclass(frozen=True)
class Target:
    """What the generator must produce. Token families fill ``ids`` [B, N]; latent families ``latents`` [B, N, C]."""

    ids: Int[Tensor, "batch tokens"] | None = None
    latents: Float[Tensor, "batch tokens channels"] | None = None


@dataclass(frozen=True)
class Condition:
    """What the generator is told: the embedded prefix of the sequence.

    ``embeddings`` [B, L, D]; ``attention`` [B, L] is 1 on real positions, 0 on padding.
    """

    embeddings: Float[Tensor, "batch length width"]
    attention: Int[Tensor, "batch length"]


@dataclass(frozen=True)
class Dialogue:
    """One question and its answer; ``picture`` is the row of the batch's Images it is about, or None for text only."""

    question: str
    answer: str
    picture: int | None = None


@dataclass(frozen=True)
class DrawRequest:
    """One picture to draw from text."""

    text: str
    seed: int


@dataclass(frozen=True)
class RedrawRequest:
    """One picture to reconstruct from its own understanding embeddings."""

    picture: Image.Image
    seed: int
    template: str


@dataclass(frozen=True)
class EditRequest:
    """One picture to change as told."""

    picture: Image.Image
    instruction: str
    seed: int


@dataclass(frozen=True)
class FrozenPart(Generic[Value]):
    """What is computed from a picture without any draw, up to the first weight that learns; hence once, if need be.

    ``finish(encode(images))`` is what ``understand`` or ``encode_target`` returns, to the bit.
    """

    weights: tuple[str, ...]
    """Prefixes of the names of all parameters and buffers of ``network`` that ``encode`` computes with."""
    settings: str
    """What else decides its values: the picture transform and the sizes, in words that change when they do."""
    encode: Callable[[Images], list[Tensor]]
    """One tensor per picture, of any shape and type, without gradient where the weights have none."""
    finish: Callable[[Sequence[Tensor]], Value]
    """The rest of the way, for the pictures of a batch."""


@dataclass(frozen=True)
class FrozenParts:
    """The two sides of a picture. Which of them is frozen depends on the stage (``training.features``)."""

    understanding: FrozenPart[Tensor]
    target: FrozenPart[Target]


@dataclass(frozen=True)
class LoadReport:
    """Which parameter names of a checkpoint did not fit. Anything the family did not declare harmless is an error."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched_shape: tuple[str, ...]

    def clean(self) -> bool:
        """True if every tensor found its place."""
        return not (self.missing or self.unexpected or self.mismatched_shape)


@runtime_checkable
class UnifiedModel(Protocol):
    """A family's adapter."""

    family: str
    network: nn.Module
    """The network with all its parameters; what is saved and hashed."""
    templates: tuple[str, ...]
    """RecA's instructions in words that this checkpoint knows; at least one."""
    image_tokenizer: str
    """Path of the part of ``network`` that turns pictures into targets and back: in float32, whatever the precision."""

    @classmethod
    def smallest(cls, seed: int = 0) -> UnifiedModel:
        """The smallest model that has every part, with random weights of this seed: what the contract tests use."""
        ...

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> UnifiedModel:
        """Read a checkpoint directory, strictly. Raises CheckpointRefused naming the keys that do not fit."""
        ...

    def save(self, directory: Path) -> None:
        """Write the checkpoint directory that ``load`` reads: bit-equal after a round trip."""
        ...

    def trainable_names(self, stage: str) -> frozenset[str]:
        """Names of ``network``'s parameters that the stage ("tokenizer", "decoder", "base", "post") may change."""
        ...

    def prepare(self, pictures: Sequence[Image.Image], whole: bool = False) -> Images:
        """Decoded RGB pictures through the family's two transforms, on the CPU.

        ``whole`` keeps all of the picture, for questions about it; without it both sides see what is to be redrawn.
        """
        ...

    def understand(self, images: Images) -> Float[Tensor, "batch und_tokens width"]:
        """UnderstandingTokens [B, U, D]: what the language model sees when it looks at the picture."""
        ...

    def condition(
        self,
        understanding: Float[Tensor, "batch und_tokens width"],
        templates: Sequence[str],
        drop_text: Bool[Tensor, " batch"],
    ) -> Condition:
        """The sequence an image question has: embeddings plus instruction; dropped rows get the family's null text."""
        ...

    def encode_target(self, images: Images) -> Target:
        """Frozen image tokenizer in float32, no gradient."""
        ...

    def reconstruction_loss(self, condition: Condition, target: Target, draws: KeyedDraws) -> LossSum:
        """The family's text-to-image loss with the RecA condition in place of text, one count per target element."""
        ...

    def generate(self, requests: Sequence[DrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Text to image, in order. A picture depends on its own text and seed only, not on its batch."""
        ...

    def reconstruct(self, requests: Sequence[RedrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Image to image through the understanding encoder, in order."""
        ...

    def tokenizer_ceiling(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Encode and decode with the image tokenizer alone: the best any reconstruction could be."""
        ...

    def understanding_view(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """The pixels that the understanding encoder saw, as pictures."""
        ...


@runtime_checkable
class AnswersInText(Protocol):
    """A family that answers questions."""

    def image_to_text_loss(self, images: Images, dialogues: Sequence[Dialogue]) -> LossSum:
        """Cross-entropy of the answers, one count per answer token; gradients as the family declares."""
        ...

    def text_loss(self, dialogues: Sequence[Dialogue]) -> LossSum:
        """The same questions with a caption in the question instead of a picture."""
        ...

    def describe(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], settings: SamplingSettings
    ) -> list[str]:
        """Greedy answers, one per picture and question."""
        ...


@runtime_checkable
class DrawsFromText(Protocol):
    """A family that can be trained from captions: supervised fine-tuning and pretraining."""

    def text_to_image_loss(
        self, captions: Sequence[str], target: Target, drop_text: Bool[Tensor, " batch"], draws: KeyedDraws
    ) -> LossSum:
        """The generation loss conditioned on captions; dropped rows get the family's null prompt."""
        ...


@runtime_checkable
class ShowsOwnTokens(Protocol):
    """A family that can condition on the target itself: the control without a bottleneck (paper, section 4.4)."""

    def own_tokens(self, target: Target) -> Float[Tensor, "batch und_tokens width"]:
        """The target's tokens, embedded as the generator reads them, in the place of understanding tokens."""
        ...


@runtime_checkable
class ReusesFeatures(Protocol):
    """A family that says which of its outputs depend on the picture and on frozen weights alone."""

    def frozen_parts(self) -> FrozenParts:
        """What may be computed once per picture (``training.feature_cache``)."""
        ...


@runtime_checkable
class EditsImages(Protocol):
    """A family that changes pictures by instruction."""

    def edit(self, requests: Sequence[EditRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Changed pictures, in order; each depends on its own picture, instruction and seed only."""
        ...


@runtime_checkable
class TrainsTokenizer(Protocol):
    """A family whose image tokenizer this repository can make (tiny bases)."""

    def tokenizer_loss(self, images: Images) -> dict[str, LossSum]:
        """Named terms of the autoencoder's own objective; their weighted sum is minimised."""
        ...
