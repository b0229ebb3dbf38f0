"""Janus' image tokenizer: pixels to codes and back, and the objective of a tiny one's decoder.

Both sides compare l2-normalised vectors (DeepSeek's VQ-16, ``codebook_l2_norm``). transformers' ``JanusVQVAE.encode``
does not normalise, so its codes are other codes than the ones the published models were trained on; as RecA's targets
come from here, encoding is ours. Always float32: a bfloat16 encoder flips about 3% of the codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformers.models.janus.modeling_janus import JanusVQVAE

from reca_core.objectives.loss_sum import LossSum

WHOLE_SHARE = 4
"""One picture in so many is also decoded as it is."""


def pre_quantised(vq: JanusVQVAE, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch code h w"]:
    """What the encoder says before normalisation and codebook."""
    latents: Tensor = vq.quant_conv(vq.encoder(pixels))
    return latents


def nearest_codes(vq: JanusVQVAE, directions: Float[Tensor, "batch code h w"]) -> Int[Tensor, "batch tokens"]:
    """Row-major indices of the codebook entries with the largest cosine to l2-normalised ``directions``."""
    codebook = F.normalize(vq.quantize.embedding.weight, dim=-1)
    return (rearrange(directions, "b c h w -> b (h w) c") @ codebook.T).argmax(-1)


def quantised(
    vq: JanusVQVAE, codes: Int[Tensor, "batch tokens"], height: int
) -> Float[Tensor, "batch code height width"]:
    """Normalised codebook entries on their grid."""
    entries = F.normalize(F.embedding(codes, vq.quantize.embedding.weight), dim=-1)
    return rearrange(entries, "b (h w) c -> b c h w", h=height)


@torch.no_grad()
def encode_pixels(vq: JanusVQVAE, pixels: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch tokens"]:
    """Codes of pictures in [-1, 1], row-major; in float32 also under autocast."""
    with torch.autocast(pixels.device.type, enabled=False):
        return nearest_codes(vq, F.normalize(pre_quantised(vq, pixels.float()), dim=1))


@torch.no_grad()
def decode_codes(vq: JanusVQVAE, codes: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch 3 height width"]:
    """Pictures of codes, nominally in [-1, 1] but not clamped. The grid is square."""
    with torch.autocast(codes.device.type, enabled=False):
        grid = quantised(vq, codes, grid_side(codes))
        pixels: Tensor = vq.decoder(vq.post_quant_conv(grid))
        return pixels


def grid_side(codes: Int[Tensor, "batch tokens"]) -> int:
    """Side of the square grid of codes."""
    return int(codes.shape[1] ** 0.5)


def decoder_terms(vq: JanusVQVAE, pixels: Float[Tensor, "batch 3 height width"]) -> dict[str, LossSum]:
    """``pixel``: mean absolute plus mean squared error of decoded codes, one count per value; always float32.

    Encoder and codebook get no gradient: pulled by a decoder's error, this network's encoder soon puts the whole
    picture into every code, which a small language model cannot learn to write (tiny_start.py, docs/tiny.md).
    The decoder sees few pictures as they are and all with patches exchanged between them, so that a code means the same
    whatever stands around it: a language model also writes combinations that no picture has.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        codes = encode_pixels(vq, pixels)
        side, whole = grid_side(codes), len(pixels) // WHOLE_SHARE
        grid = quantised(vq, codes, side).detach()
        shown = torch.cat([grid[:whole], patches_exchanged(grid, side)])
        wanted = torch.cat([pixels[:whole], patches_exchanged(pixels, side)])
        error = vq.decoder(vq.post_quant_conv(shown)) - wanted
    return {"pixel": _sum(error.abs() + error.square())}


def patches_exchanged(grids: Float[Tensor, "batch c height width"], side: int) -> Float[Tensor, "batch c height width"]:
    """Patch j of every picture comes from j pictures further on, from the same place; ``side`` patches a side.

    Which pictures meet in a batch is random already, so the exchange needs no draw. One picture alone stays as it is.
    """
    patches = rearrange(grids, "b c (h p) (w q) -> (h w) b c p q", h=side, w=side)
    moved = torch.stack([patch.roll(-place, 0) for place, patch in enumerate(patches)])
    return rearrange(moved, "(h w) b c p q -> b c (h p) (w q)", h=side, w=side)


def _sum(values: Tensor) -> LossSum:
    return LossSum(values.sum(), torch.tensor(float(values.numel()), device=values.device))
