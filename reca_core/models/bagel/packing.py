"""Packing: samples of interleaved text, ViT and VAE items become one row of tokens with positions, masks and targets.

Rules (BAGEL, arXiv 2505.14683, section 3.2, and the recorded packs):

    text   [bos ids eos]        causal                 one rotary position per token
    vit    [soi patches eoi]    full inside            one rotary position for the whole block
    vae    [soi tokens eoi]     clean: full inside     one rotary position for the block, used up afterwards
                                to predict: "noise"    its rotary position is not used up; nobody else sees the block

Every block sees all of its sample that comes before it, except noise blocks. Samples never see each other. A dropped
picture still uses up its rotary position, a dropped text does not. soi and eoi are text tokens, in a VAE block too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reca_core.models.bagel.patches import patchify, position_ids

Mode = Literal["causal", "full", "noise"]


@dataclass(frozen=True)
class Specials:
    """Token ids around texts and pictures."""

    bos: int
    eos: int
    soi: int
    eoi: int


@dataclass(frozen=True)
class Item:
    """One part of a sample. ``ids`` for text; ``pixels`` [3, H, W] in [-1, 1] for pictures.

    A picture that is encoded already has no pixels but says its size: ``embedded``, the rows of a ViT item, or
    ``grid``, the tokens per column and row of a VAE item.
    ``predict``: this part is what the loss is about. ``dropped``: left out, for classifier-free guidance.
    ``time_logit``: of the noise in a VAE item to predict; the time is its sigmoid.
    """

    kind: Literal["text", "vit", "vae"]
    ids: tuple[int, ...] = ()
    pixels: Tensor | None = None
    predict: bool = False
    dropped: bool = False
    time_logit: float = 0.0
    embedded: int = 0
    grid: tuple[int, int] = (0, 0)


@dataclass
class Grids:
    """Sizes that turn pixels into tokens."""

    vit_patch: int
    vit_per_side: int
    vae_stride: int
    """Pixels per VAE token side: downsampling times latent patch."""
    latent_per_side: int

    def vit_tokens(
        self, pixels: Float[Tensor, "3 height width"]
    ) -> tuple[Float[Tensor, "patches features"], Int[Tensor, " patches"]]:
        """Patches of a picture and their position ids."""
        side = self.vit_patch
        grid = (pixels.shape[1] // side, pixels.shape[2] // side)
        return patchify(pixels, side), position_ids(*grid, self.vit_per_side)


@dataclass
class Pack:
    """A packed batch; S tokens in all. Index lists say which of the S places a token stream fills."""

    text_ids: list[int] = field(default_factory=list)
    text_index: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    vit_patches: list[Tensor] = field(default_factory=list)
    vit_index: list[int] = field(default_factory=list)
    vit_position_ids: list[Tensor] = field(default_factory=list)
    vit_lengths: list[int] = field(default_factory=list)
    vae_pixels: list[Tensor] = field(default_factory=list)
    vae_index: list[int] = field(default_factory=list)
    vae_position_ids: list[Tensor] = field(default_factory=list)
    vae_grids: list[tuple[int, int]] = field(default_factory=list)
    time_logits: list[float] = field(default_factory=list)
    """Per VAE token; minus infinity where the picture is clean."""
    noise_index: list[int] = field(default_factory=list)
    """Places whose velocity is predicted."""
    label_ids: list[int] = field(default_factory=list)
    label_index: list[int] = field(default_factory=list)
    label_weights: list[float] = field(default_factory=list)
    """1 / sqrt(answer length), for the reweighted cross-entropy."""
    split_lengths: list[int] = field(default_factory=list)
    modes: list[Mode] = field(default_factory=list)
    splits_per_sample: list[int] = field(default_factory=list)
    sample_lengths: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """S."""
        return len(self.positions)

    def masks(self) -> list[Bool[Tensor, "length length"]]:
        """Who sees whom, per sample."""
        found, start = [], 0
        for count in self.splits_per_sample:
            stop = start + count
            found.append(block_mask(self.split_lengths[start:stop], self.modes[start:stop]))
            start = stop
        return found


def block_mask(lengths: Sequence[int], modes: Sequence[Mode]) -> Bool[Tensor, "length length"]:
    """The attention rule of one sample, row sees column."""
    total = sum(lengths)
    sees = torch.ones(total, total, dtype=torch.bool).tril()
    start = 0
    for length, mode in zip(lengths, modes, strict=True):
        block = slice(start, start + length)
        if mode != "causal":
            sees[block, block] = True
        if mode == "noise":
            sees[start + length :, block] = False
        start += length
    return sees


class Packer:
    """Appends samples to a Pack."""

    def __init__(self, specials: Specials, grids: Grids) -> None:
        self.specials = specials
        self.grids = grids
        self.pack = Pack()

    def add(self, items: Sequence[Item]) -> None:
        """One sample; its rotary positions start at 0."""
        before, splits, rotary = self.pack.length, len(self.pack.modes), 0
        for item in items:
            rotary = self._text(item, rotary) if item.kind == "text" else self._picture(item, rotary)
        self.pack.splits_per_sample.append(len(self.pack.modes) - splits)
        self.pack.sample_lengths.append(self.pack.length - before)

    def _text(self, item: Item, rotary: int) -> int:
        if item.dropped:
            return rotary
        pack, first = self.pack, self.pack.length
        tokens = [self.specials.bos, *item.ids, self.specials.eos]
        if item.predict:
            labels = tokens[1:]
            pack.label_ids += labels
            pack.label_index += range(first, first + len(labels))
            pack.label_weights += [len(labels) ** -0.5] * len(labels)
        self._words(tokens, range(rotary, rotary + len(tokens)))
        self._close(first, "causal")
        return rotary + len(tokens)

    def _picture(self, item: Item, rotary: int) -> int:
        if item.dropped:
            return rotary + 1
        first = self.pack.length
        self._words([self.specials.soi], [rotary])
        if item.kind == "vit":
            self._vit(item, rotary)
        else:
            self._vae(item, rotary)
        self._words([self.specials.eoi], [rotary])
        self._close(first, "noise" if item.predict else "full")
        return rotary if item.predict else rotary + 1

    def _vit(self, item: Item, rotary: int) -> None:
        if item.pixels is None:
            self._fill(self.pack.vit_index, item.embedded, rotary)
            return
        patches, ids = self.grids.vit_tokens(item.pixels)
        self._fill(self.pack.vit_index, len(patches), rotary)
        self.pack.vit_patches.append(patches)
        self.pack.vit_position_ids.append(ids)
        self.pack.vit_lengths.append(len(patches))

    def _vae(self, item: Item, rotary: int) -> None:
        stride, pack, grid = self.grids.vae_stride, self.pack, item.grid
        if item.pixels is not None:
            grid = (item.pixels.shape[1] // stride, item.pixels.shape[2] // stride)
            pack.vae_pixels.append(item.pixels)
        count = grid[0] * grid[1]
        if item.predict:
            pack.noise_index += range(pack.length, pack.length + count)
        self._fill(pack.vae_index, count, rotary)
        pack.vae_grids.append(grid)
        pack.vae_position_ids.append(position_ids(*grid, self.grids.latent_per_side))
        pack.time_logits += [item.time_logit if item.predict else float("-inf")] * count

    def _words(self, tokens: Sequence[int], rotary: Sequence[int]) -> None:
        first = self.pack.length
        self.pack.text_ids += tokens
        self.pack.text_index += range(first, first + len(tokens))
        self.pack.positions += rotary

    def _fill(self, index: list[int], count: int, rotary: int) -> None:
        first = self.pack.length
        index += range(first, first + count)
        self.pack.positions += [rotary] * count

    def _close(self, first: int, mode: Mode) -> None:
        self.pack.split_lengths.append(self.pack.length - first)
        self.pack.modes.append(mode)
