"""Janus' image tokenizer: pixels to codes and back, and the objective that makes a tiny one.

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

COMMITMENT_WEIGHT = 0.25
"""Of the term that draws the encoder to its codes (van den Oord et al., arXiv 1711.00937, equation 3)."""


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


def autoencoder_terms(vq: JanusVQVAE, pixels: Float[Tensor, "batch 3 height width"]) -> dict[str, LossSum]:
    """The VQ-VAE objective on the unit sphere; minimise the plain sum of the means.

    ``pixel``: mean absolute plus mean squared error of the decoded picture, one count per value. ``codebook`` draws
    codes to the encoder, ``commitment`` (weight included) the encoder to its codes. The decoder's gradient passes the
    quantiser straight through (arXiv 1711.00937, section 3.2). In float32 also under autocast.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        directions = F.normalize(pre_quantised(vq, pixels), dim=1)
        codes = quantised(vq, nearest_codes(vq, directions.detach()), directions.shape[2])
        straight_through = directions + (codes - directions).detach()
        error = vq.decoder(vq.post_quant_conv(straight_through)) - pixels
    return {
        "pixel": _sum(error.abs() + error.square()),
        "codebook": _sum((codes - directions.detach()).square()),
        "commitment": _sum(COMMITMENT_WEIGHT * (directions - codes.detach()).square()),
    }


def _sum(values: Tensor) -> LossSum:
    return LossSum(values.sum(), torch.tensor(float(values.numel()), device=values.device))
