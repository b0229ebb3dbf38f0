"""The sequences that Show-o is fed: token order, labels, and who may attend to whom.

Five layouts (Show-o, arXiv 2408.12528, section 3.2; RecA's two by arXiv 2509.07295 and the recorded sequences):

    drawing           pad.. t2i bos text eos | soi image eoi
    asking_clip       mmu system soi | picture embeddings | eoi text
    asking_vq         mmu soi picture-ids eoi bos text eos pad..
    redrawing_clip    mmu soi | picture embeddings | eoi bos text eos pad.. | soi image eoi
    redrawing_vq      pad.. mmu soi small-picture-ids eoi bos text eos | soi image eoi

Shapes: B batch, L length, N image tokens, M ``max_text``, P picture embeddings, G ids of the down-scaled picture.
Position ids count padding. ``may_attend[b, 0, q, k]`` is True where position q sees position k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import repeat
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
    def from_sizes(cls, text_vocabulary: int, vocabulary: int, bos: int) -> SpecialIds:
        """Ids as the published vocabulary lays them out: text, special tokens, image codes, mask."""
        first = text_vocabulary
        return cls(
            pad=first,
            soi=first + 1,
            eoi=first + 2,
            t2i=first + 5,
            mmu=first + 6,
            bos=bos,
            eos=bos,
            mask=vocabulary - 1,
            image=first + SPECIAL_TOKENS,
        )


@dataclass(frozen=True)
class TokenSequence:
    """One batch of sequences. ``ids`` is IGNORED where picture embeddings are put; ``image`` is where the N ids are."""

    ids: Int[Tensor, "batch length"]
    labels: Int[Tensor, "batch length"]
    may_attend: Bool[Tensor, "batch 1 length length"]
    image: slice


def causal(batch: int, length: int) -> Bool[Tensor, "batch 1 length length"]:
    """Every position sees itself and what is before it."""
    return repeat(torch.ones(length, length, dtype=torch.bool).tril(), "q k -> b 1 q k", b=batch).clone()


def drawing(
    texts: Sequence[Sequence[int]], inputs: Tensor, labels: Tensor, special: SpecialIds, max_text: int
) -> TokenSequence:
    """Text to image; ``inputs`` and ``labels`` [B, N]. A text longer than M - 2 ids is cut."""
    start = max_text + 1
    prefixes = [[special.t2i, special.bos, *text[: max_text - 2], special.eos] for text in texts]
    padding = [start - len(prefix) for prefix in prefixes]
    image_ids = _between(inputs, special.soi, special.eoi)
    ids = torch.cat([_padded_left(prefixes, start, special.pad), image_ids], dim=1)
    target = torch.cat([_padded_left(prefixes, start, IGNORED), _between(labels, special.soi, special.eoi)], dim=1)
    allowed = causal(*ids.shape)
    allowed[:, :, start:] = True
    allowed &= ~_padding_seen_by_others(ids.shape[1], padding)
    return TokenSequence(ids, target, allowed, slice(start + 1, start + 1 + inputs.shape[1]))


def asking_clip(
    system: Int[Tensor, "batch words"],
    text: Int[Tensor, "batch words2"],
    answers: Tensor,
    patches: int,
    special: SpecialIds,
) -> TokenSequence:
    """Question about a picture given as embeddings; ``answers`` are the labels of ``text``."""
    batch = len(text)
    before = torch.cat([_column(batch, special.mmu), system, _column(batch, special.soi)], dim=1)
    ids = torch.cat([before, _column(batch, IGNORED, patches), _column(batch, special.eoi), text], dim=1)
    labels = torch.full_like(ids, IGNORED)
    labels[:, -text.shape[1] :] = answers
    allowed = causal(*ids.shape)
    picture = slice(before.shape[1], before.shape[1] + patches)
    allowed[..., picture] = True
    return TokenSequence(ids, labels, allowed, picture)


def asking_vq(
    pictures: Int[Tensor, "batch tokens"], texts: Sequence[Sequence[int]], special: SpecialIds, max_text: int
) -> TokenSequence:
    """Question about a picture given as its own image ids (offset included)."""
    batch, tokens = pictures.shape
    rows = [[special.bos, *text[: max_text - 2], special.eos] for text in texts]
    picture = torch.cat([_column(batch, special.mmu), _between(pictures, special.soi, special.eoi)], dim=1)
    ids = torch.cat([picture, _padded_right(rows, max_text, special.pad)], dim=1)
    labels = torch.cat([torch.full_like(picture, IGNORED), _padded_right(rows, max_text, IGNORED)], dim=1)
    allowed = causal(*ids.shape)
    allowed[..., : picture.shape[1]] = True
    return TokenSequence(ids, labels, allowed, slice(2, 2 + tokens))


def redrawing_clip(
    patches: int,
    texts: Sequence[Sequence[int]],
    inputs: Int[Tensor, "batch tokens"],
    labels: Int[Tensor, "batch tokens"],
    special: SpecialIds,
    max_text: int,
) -> TokenSequence:
    """RecA, picture given as embeddings: three special tokens and the text share the M places before the image."""
    batch, tokens = inputs.shape
    rows = [[special.eoi, special.bos, *text[: max_text - 4], special.eos] for text in texts]
    room = max_text - 2
    before = torch.cat([_column(batch, special.mmu), _column(batch, special.soi)], dim=1)
    picture = _column(batch, IGNORED, patches)
    ids = [before, picture, _padded_right(rows, room, special.pad), _between(inputs, special.soi, special.eoi)]
    target = [before, picture, _padded_right(rows, room, IGNORED), _between(labels, special.soi, special.eoi)]
    all_ids = torch.cat(ids, dim=1)
    image = slice(all_ids.shape[1] - 1 - tokens, all_ids.shape[1] - 1)
    allowed = causal(*all_ids.shape)
    allowed[..., 2 : 2 + patches] = True
    allowed[:, :, image, image] = True
    allowed &= (all_ids != special.pad)[:, None, None, :]
    return TokenSequence(all_ids, torch.cat(target, dim=1), allowed, image)


def redrawing_vq(
    given: Int[Tensor, "batch small"],
    texts: Sequence[Sequence[int]],
    inputs: Int[Tensor, "batch tokens"],
    labels: Int[Tensor, "batch tokens"],
    special: SpecialIds,
    max_text: int,
) -> TokenSequence:
    """RecA, picture given as the image ids (offset included) of its down-scaled self."""
    batch, tokens = inputs.shape
    rows = [[special.bos, *text[: max_text - 2], special.eos] for text in texts]
    picture = torch.cat([_column(batch, special.mmu), _between(given, special.soi, special.eoi)], dim=1)
    prefixes = [[*picture[index].tolist(), *row] for index, row in enumerate(rows)]
    start = max_text + picture.shape[1]
    padding = [start - len(prefix) for prefix in prefixes]
    ids = torch.cat([_padded_left(prefixes, start, special.pad), _between(inputs, special.soi, special.eoi)], dim=1)
    image = slice(start + 1, start + 1 + tokens)
    target = torch.full_like(ids, IGNORED)
    target[:, image] = labels
    allowed = causal(*ids.shape)
    allowed[:, :, start:] = True
    for row, pads in enumerate(padding):
        segment = slice(pads + 1, pads + picture.shape[1])
        allowed[row, 0, segment, pads : pads + picture.shape[1]] = True
    allowed &= ~_padding_seen_by_others(ids.shape[1], padding)
    return TokenSequence(ids, target, allowed, image)


def _padding_seen_by_others(length: int, padding: Sequence[int]) -> Bool[Tensor, "batch 1 length length"]:
    is_pad = torch.arange(length) < torch.tensor(padding)[:, None]
    return (~is_pad[:, :, None] & is_pad[:, None, :])[:, None]


def _column(batch: int, value: int, width: int = 1) -> Int[Tensor, "batch width"]:
    return torch.full((batch, width), value, dtype=torch.long)


def _between(ids: Tensor, first: int, last: int) -> Int[Tensor, "batch length"]:
    return torch.cat([_column(len(ids), first), ids, _column(len(ids), last)], dim=1)


def _padded_left(rows: Sequence[Sequence[int]], length: int, value: int) -> Int[Tensor, "batch length"]:
    return torch.tensor([[value] * (length - len(row)) + list(row) for row in rows])


def _padded_right(rows: Sequence[Sequence[int]], length: int, value: int) -> Int[Tensor, "batch length"]:
    return torch.tensor([list(row) + [value] * (length - len(row)) for row in rows])
