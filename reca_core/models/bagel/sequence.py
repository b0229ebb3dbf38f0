"""From texts and pictures to packed sequences and their losses: what BAGEL is told, and what it must produce.

    RecA    [soi ViT eoi] [bos template eos] [soi noised VAE eoi]      template bare, without chat tags (reference 1.4)
    draw    [bos caption eos] [soi noised VAE eoi]
    answer  [soi ViT eoi] [bos question eos] [bos answer eos]

Rows of a batch have different lengths. Where the protocol wants one tensor, rows are padded; what is computed is
packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from reca_core.contracts.errors import CheckpointRefused
from reca_core.draws import KeyedDraws
from reca_core.models.bagel.network import BagelNetwork, Noised, flow_loss, shifted_time
from reca_core.models.bagel.packing import Item, Pack, Packer, Specials
from reca_core.models.unified import Condition, Target
from reca_core.objectives import next_token
from reca_core.objectives.loss_sum import LossSum

SPECIAL_NAMES = {"bos": "<|im_start|>", "eos": "<|im_end|>", "soi": "<|vision_start|>", "eoi": "<|vision_end|>"}


@dataclass(frozen=True)
class LatentTarget(Target):
    """``latents`` [B, N, 2C]: mean and deviation of every VAE token, zero past a picture's own; ``grids`` its sizes.

    Upstream samples the autoencoder in training too, so the target is a distribution until its draws are known.
    """

    grids: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, pictures: Sequence[Float[Tensor, "h w channels2"]]) -> LatentTarget:
        """Single pictures' grids of tokens as a batch."""
        grids = tuple((picture.shape[0], picture.shape[1]) for picture in pictures)
        return cls(latents=padded([rearrange(picture, "h w c -> (h w) c") for picture in pictures]), grids=grids)

    def pictures(self) -> list[Float[Tensor, "h w channels2"]]:
        """The single pictures' grids, without padding."""
        assert self.latents is not None  # every way to make one fills it
        rows = zip(self.latents, self.grids, strict=True)
        return [rearrange(row[: height * width], "(h w) c -> h w c", h=height) for row, (height, width) in rows]


@dataclass(frozen=True)
class PackedCondition(Condition):
    """The prefix of every sample, embedded; ``items`` say what it is made of, which decides who sees whom."""

    items: tuple[tuple[Item, ...], ...] = ()

    def rows(self) -> list[Float[Tensor, "length width"]]:
        """The prefixes without their padding."""
        return [row[: int(real.sum())] for row, real in zip(self.embeddings, self.attention, strict=True)]


class Words:
    """Texts to items of ids and back. Raises CheckpointRefused where the tokenizer lacks a structural token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        vocabulary = tokenizer.get_vocab()
        absent = [name for name in SPECIAL_NAMES.values() if name not in vocabulary]
        if absent:
            raise CheckpointRefused(
                f"the tokenizer has no {', no '.join(absent)}",
                field="tokenizer",
                remedy="use the tokenizer files that were published with these weights",
            )
        self.tokenizer = tokenizer
        self.specials = Specials(**{role: vocabulary[name] for role, name in SPECIAL_NAMES.items()})

    def item(self, text: str, *, predict: bool = False, dropped: bool = False) -> Item:
        """``bos text eos``; a user's text cannot hold structural tokens."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        ids = self.tokenizer(text.strip(), add_special_tokens=False).input_ids
        return Item("text", ids=tuple(ids), predict=predict, dropped=dropped)

    def reply(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without structural tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


# ---- seeing ----------------------------------------------------------------------------------------------------


def see(network: BagelNetwork, pictures: Sequence[Float[Tensor, "3 h w"]]) -> Float[Tensor, "batch und_tokens width"]:
    """ViT tokens of every picture [B, U, D], rows of zeros past a picture's own tokens.

    No token is all zeros by itself: its fixed position embedding has cosines of both coordinates.
    """
    tokens = [network.sizes.grids().vit_tokens(picture) for picture in pictures]
    lengths = [len(patches) for patches, _ in tokens]
    patches, ids = (torch.cat(parts).to(network.device) for parts in zip(*tokens, strict=True))
    return padded(network.see(patches, ids, lengths).split(lengths))


def padded(rows: Sequence[Float[Tensor, "tokens width"]]) -> Float[Tensor, "batch longest width"]:
    """Rows of different lengths as one tensor, with zeros behind."""
    return pad_sequence(list(rows), batch_first=True)


def seen_rows(understanding: Float[Tensor, "batch und_tokens width"]) -> list[Float[Tensor, "tokens width"]]:
    """The pictures' tokens without the rows of zeros."""
    return [row[row.detach().any(-1)] for row in understanding]


# ---- conditions ------------------------------------------------------------------------------------------------


def prefix(
    network: BagelNetwork,
    words: Words,
    texts: Sequence[str],
    dropped: Bool[Tensor, " batch"],
    understanding: Float[Tensor, "batch und_tokens width"] | None = None,
) -> PackedCondition:
    """[picture] [text] of every sample; a dropped text is left out, the picture stays (reference 1.5)."""
    seen = seen_rows(understanding) if understanding is not None else [None] * len(texts)
    samples = tuple(
        (
            *([Item("vit", embedded=len(rows))] if rows is not None else []),
            words.item(text, dropped=drop),
        )
        for text, drop, rows in zip(texts, dropped.tolist(), seen, strict=True)
    )
    pack = packed(network, words.specials, samples)
    shown = torch.cat([rows for rows in seen if rows is not None]) if understanding is not None else None
    embedded = network.embed(pack, None, shown).split(pack.sample_lengths)
    real = [row.new_ones(len(row), dtype=torch.long) for row in embedded]
    return PackedCondition(
        pad_sequence(list(embedded), batch_first=True), pad_sequence(real, batch_first=True), samples
    )


def packed(network: BagelNetwork, specials: Specials, samples: Sequence[Sequence[Item]]) -> Pack:
    """All samples in one row of tokens."""
    packer = Packer(specials, network.sizes.grids())
    for items in samples:
        packer.add(items)
    return packer.pack


# ---- losses ----------------------------------------------------------------------------------------------------


def generation_loss(
    network: BagelNetwork,
    specials: Specials,
    condition: PackedCondition,
    target: LatentTarget,
    draws: KeyedDraws,
    *,
    shift: float,
    frozen_understanding: bool,
) -> LossSum:
    """Squared error of the velocity after a condition, one count per VAE token."""
    times = draws.normal("time").tolist()
    samples = [
        (*items, Item("vae", predict=True, grid=grid, time_logit=time))
        for items, grid, time in zip(condition.items, target.grids, times, strict=True)
    ]
    pack = packed(network, specials, samples)
    noised = _noised(pack, target, draws, shift)
    inputs = _with_noise_blocks(network, specials, condition, pack, noised)
    states = network.hidden(pack, inputs, frozen_understanding=frozen_understanding)
    return flow_loss(pack, noised, network.velocity(pack, states))


def _noised(pack: Pack, target: LatentTarget, draws: KeyedDraws, shift: float) -> Noised:
    """Every picture's tokens, sampled from the autoencoder and mixed with noise, by draws of its own."""
    assert target.latents is not None  # encode_target fills it
    device, clean, noise = target.latents.device, [], []
    for position, row, (height, width) in zip(draws.positions, target.latents, target.grids, strict=True):
        mean, deviation = row[: height * width].chunk(2, dim=-1)
        sampled = torch.randn(mean.shape, generator=draws.generator("latents", position))
        clean.append(mean + deviation * sampled.to(device))
        noise.append(torch.randn(mean.shape, generator=draws.generator("noise", position)).to(device))
    time = shifted_time(torch.tensor(pack.time_logits, device=device), shift)
    return Noised(torch.cat(clean), torch.cat(noise), time)


def _with_noise_blocks(
    network: BagelNetwork, specials: Specials, condition: PackedCondition, pack: Pack, noised: Noised
) -> Float[Tensor, "tokens width"]:
    """Prefix, soi, noised tokens, eoi of one sample after the other."""
    tokens = network.embed_noised(pack, noised).split([height * width for height, width in pack.vae_grids])
    marks = network.language_model.model.embed_tokens(torch.tensor([specials.soi, specials.eoi], device=network.device))
    parts: list[Tensor] = []
    for prefix_rows, rows in zip(condition.rows(), tokens, strict=True):
        parts += [prefix_rows, marks[:1], rows, marks[1:]]
    return torch.cat([part.to(marks.dtype) for part in parts])


def answer_loss(
    network: BagelNetwork,
    specials: Specials,
    samples: Sequence[Sequence[Item]],
    seen: Float[Tensor, "tokens width"] | None,
) -> LossSum:
    """Cross-entropy of the texts to predict, end included, one count per token."""
    pack = packed(network, specials, samples)
    states = network.hidden(pack, network.embed(pack, None, seen))
    return next_token.cross_entropy(network.logits(pack, states), torch.tensor(pack.label_ids, device=network.device))
