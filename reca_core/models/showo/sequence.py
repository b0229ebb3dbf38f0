"""The sequences that Show-o is fed: token order, and who may attend to whom.

Three kinds, each an opening and what follows it (Show-o, arXiv 2408.12528, section 3.2; RecA's by arXiv 2509.07295 and
the recorded sequences). The opening of the first two is followed by ``soi image eoi``:

    drawing           pad.. t2i bos text eos
    redrawing, CLIP   mmu soi | picture embeddings | eoi bos text eos pad..
    redrawing, VQ     pad.. mmu soi picture ids eoi bos text eos
    asking, CLIP      mmu system soi | picture embeddings | eoi text
    asking, VQ        mmu soi picture ids eoi bos text

Openings have a fixed length, so a picture cannot depend on which texts share its batch. Position ids count padding.
Ids are IGNORED wherever one row of a picture's embeddings goes. ``may_attend[b, 0, q, k]`` is True where position q
sees position k. Shapes: B batch, L length, N image tokens, M ``max_text``, P rows of a picture, O length of an opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Int
from torch import Tensor

from reca_core.objectives.next_token import IGNORED

SPECIAL_TOKENS = 10
"""pad, soi, eoi, sov, eov, t2i, mmu, t2v, v2v, lvg: added after the text vocabulary, in this order."""


@dataclass(frozen=True)
class SpecialIds:
    """Token ids that are not text. ``image`` is the id of image code 0; ``mask`` is the last id."""

    pad: int
    soi: int
    eoi: int
    t2i: int
    mmu: int
    bos: int
    eos: int
    mask: int
    image: int

    @classmethod
    def from_sizes(cls, text_vocabulary: int, vocabulary: int, bos: int, eos: int) -> SpecialIds:
        """Ids as the published vocabulary lays them out: text, special tokens, image codes, mask."""
        first = text_vocabulary
        return cls(
            pad=first,
            soi=first + 1,
            eoi=first + 2,
            t2i=first + 5,
            mmu=first + 6,
            bos=bos,
            eos=eos,
            mask=vocabulary - 1,
            image=first + SPECIAL_TOKENS,
        )


class RedrawingLayout(Protocol):
    """An opening that image tokens follow: where its ids are, and the mask of the whole sequence."""

    def openings(self, texts: Sequence[Sequence[int]]) -> Int[Tensor, "batch opening"]:
        """Ids [B, O], padded with ``pad``; a text that does not fit is cut."""
        ...

    def mask(self, attention: Int[Tensor, "batch opening"], tokens: int) -> Bool[Tensor, "batch 1 length length"]:
        """Mask over opening, soi, N image tokens and eoi; ``attention`` is 0 where the opening is padding."""
        ...


class PictureLayout(RedrawingLayout, Protocol):
    """How a picture stands in a sequence."""

    def questions(self, texts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Rows of ids up to the last one of each text, not padded."""
        ...

    def question_mask(self, batch: int, length: int) -> Bool[Tensor, "batch 1 length length"]:
        """Mask of such rows; they may be padded on the right to ``length``, where no one looks."""
        ...


@dataclass(frozen=True)
class DrawingLayout:
    """Text to image."""

    special: SpecialIds
    max_text: int

    def openings(self, texts: Sequence[Sequence[int]]) -> Int[Tensor, "batch opening"]:
        """[B, M + 1]; at most M - 2 ids of a text."""
        ids = self.special
        rows = [[ids.t2i, ids.bos, *text[: self.max_text - 2], ids.eos] for text in texts]
        return padded_left(rows, self.max_text + 1, ids.pad)

    def mask(self, attention: Int[Tensor, "batch opening"], tokens: int) -> Bool[Tensor, "batch 1 length length"]:
        """Text is causal, the image sees everything but padding."""
        allowed = _causal(len(attention), attention.shape[1] + tokens + 2)
        allowed[:, :, attention.shape[1] :] = True
        return allowed & ~_padding_seen_by_others(attention, allowed.shape[-1])


@dataclass(frozen=True)
class ClipLayout:
    """Pictures as P rows of CLIP embeddings that every position sees, also those before them."""

    special: SpecialIds
    max_text: int
    picture_rows: int
    system: Sequence[int] = ()

    def openings(self, texts: Sequence[Sequence[int]]) -> Int[Tensor, "batch opening"]:
        """[B, P + M]; five special tokens and the text share the M places, so at most M - 5 ids of a text."""
        ids = self.special
        rows = [[ids.eoi, ids.bos, *text[: self.max_text - 5], ids.eos] for text in texts]
        before = torch.tensor([[ids.mmu, ids.soi, *self._picture]]).repeat(len(rows), 1)
        return torch.cat([before, padded_right(rows, self.max_text - 2, ids.pad)], dim=1)

    def mask(self, attention: Int[Tensor, "batch opening"], tokens: int) -> Bool[Tensor, "batch 1 length length"]:
        """Causal; the picture is seen by all, image tokens see each other, padding is seen by none."""
        opening = attention.shape[1]
        allowed = _causal(len(attention), opening + tokens + 2)
        allowed[..., 2 : 2 + self.picture_rows] = True
        allowed[:, :, opening + 1 : -1, opening + 1 : -1] = True
        allowed[..., :opening] &= rearrange(attention.bool(), "b o -> b 1 1 o")
        return allowed

    def questions(self, texts: Sequence[Sequence[int]]) -> list[list[int]]:
        """``mmu system soi picture eoi text``."""
        ids = self.special
        return [[ids.mmu, *self.system, ids.soi, *self._picture, ids.eoi, *text] for text in texts]

    def question_mask(self, batch: int, length: int) -> Bool[Tensor, "batch 1 length length"]:
        """Causal; the picture is seen by all."""
        allowed, first = _causal(batch, length), 2 + len(self.system)
        allowed[..., first : first + self.picture_rows] = True
        return allowed

    @property
    def _picture(self) -> list[int]:
        return [IGNORED] * self.picture_rows


@dataclass(frozen=True)
class VqLayout:
    """Pictures as image ids of their own: ``picture_rows`` fewer or blurred ones for redrawing, all for questions."""

    special: SpecialIds
    max_text: int
    picture_rows: int
    question_rows: int

    def openings(self, texts: Sequence[Sequence[int]]) -> Int[Tensor, "batch opening"]:
        """[B, M + P + 3]; at most M - 2 ids of a text."""
        ids = self.special
        picture = [ids.mmu, ids.soi, *[IGNORED] * self.picture_rows, ids.eoi]
        rows = [[*picture, ids.bos, *text[: self.max_text - 2], ids.eos] for text in texts]
        return padded_left(rows, self.max_text + len(picture), ids.pad)

    def mask(self, attention: Int[Tensor, "batch opening"], tokens: int) -> Bool[Tensor, "batch 1 length length"]:
        """The picture sees itself whole, text is causal, the image sees everything; padding is seen by none."""
        opening = attention.shape[1]
        allowed = _causal(len(attention), opening + tokens + 2)
        allowed[:, :, opening:] = True
        for row, pads in enumerate((attention == 0).sum(1).tolist()):
            end = pads + self.picture_rows + 3
            allowed[row, 0, pads + 1 : end, pads:end] = True
        return allowed & ~_padding_seen_by_others(attention, allowed.shape[-1])

    def questions(self, texts: Sequence[Sequence[int]]) -> list[list[int]]:
        """``mmu soi picture eoi bos text``."""
        ids = self.special
        picture = [ids.mmu, ids.soi, *[IGNORED] * self.question_rows, ids.eoi]
        return [[*picture, ids.bos, *text] for text in texts]

    def question_mask(self, batch: int, length: int) -> Bool[Tensor, "batch 1 length length"]:
        """Causal; everything up to the picture's end is seen by all."""
        allowed = _causal(batch, length)
        allowed[..., : self.question_rows + 3] = True
        return allowed


def plain_mask(batch: int, length: int) -> Bool[Tensor, "batch 1 length length"]:
    """Of text alone: causal."""
    return _causal(batch, length)


def image_part(image_ids: Int[Tensor, "batch tokens"], special: SpecialIds) -> Int[Tensor, "batch tokens2"]:
    """What follows an opening: soi, N ids, eoi."""
    ends = (image_ids.new_full((len(image_ids), 1), end) for end in (special.soi, special.eoi))
    first, last = ends
    return torch.cat([first, image_ids, last], dim=1)


def padded_left(rows: Sequence[Sequence[int]], length: int, value: int) -> Int[Tensor, "batch length"]:
    """Rows with ``value`` before them."""
    return torch.tensor([[value] * (length - len(row)) + list(row) for row in rows])


def padded_right(rows: Sequence[Sequence[int]], length: int, value: int) -> Int[Tensor, "batch length"]:
    """Rows with ``value`` after them."""
    return torch.tensor([list(row) + [value] * (length - len(row)) for row in rows])


def _causal(batch: int, length: int) -> Bool[Tensor, "batch 1 length length"]:
    return repeat(torch.ones(length, length, dtype=torch.bool).tril(), "q k -> b 1 q k", b=batch).clone()


def _padding_seen_by_others(attention: Tensor, length: int) -> Bool[Tensor, "batch 1 length length"]:
    """Padding sees the padding before it, as the recorded masks have it; no one else does."""
    is_pad = torch.zeros(len(attention), length, dtype=torch.bool)
    is_pad[:, : attention.shape[1]] = attention == 0
    return (~is_pad[:, :, None] & is_pad[:, None, :])[:, None]
