"""MAGVITv2 image tokenizer of Show-o: convolutional autoencoder with a lookup-free (sign) quantiser.

Ours because no library has it: res-block counts differ per level and between encoder and decoder, attention sits in the
middle block only, and the code of a cell is the sign pattern of its C channels read as a binary number
(MAGVIT-v2, arXiv 2310.05737, section 3; Show-o, arXiv 2408.12528). Module names are those of the published checkpoint
(``encoder. decoder. quantize.``), so its tensors load without a key map.

Shapes: B batch, H/W pixels, h/w cells, C bits per code, N = h*w tokens in row-major order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from reca_core.models.pictures import pixel_error
from reca_core.objectives.loss_sum import LossSum

GROUPS = 32
NORM_EPSILON = 1e-6
COMMITMENT_WEIGHT, ENTROPY_WEIGHT = 0.125, 0.1
"""Of the quantiser's two terms in the published objective; the first is 0.1 (1 + beta) with beta 0.25."""
STEEPNESS = 4.0
"""Log-odds of a bit per unit of its channel: the distance to -1 squared minus that to +1 squared."""
SURE = 1e-6
"""A bit's average this close to 0 or 1 counts as this far: entropy is 0 at the ends, but its slope infinite."""


@dataclass(frozen=True)
class MagvitConfiguration:
    """Sizes of the tokenizer; the defaults are the published ones (f16, 13 bits)."""

    channels: int = 128
    encoder_multipliers: tuple[int, ...] = (1, 2, 2, 4, 4)
    encoder_blocks: tuple[int, ...] = (4, 3, 4, 3, 4)
    decoder_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder_blocks: tuple[int, ...] = (4, 4, 3, 4, 3)
    bits: int = 13

    @property
    def downsampling(self) -> int:
        """Pixels per cell side."""
        return 2 ** (len(self.encoder_multipliers) - 1)


class ResidualBlock(nn.Module):
    """norm-swish-conv twice, with a 1x1 shortcut where the width changes."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width_in, eps=NORM_EPSILON)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, width_out, eps=NORM_EPSILON)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        if width_in != width_out:
            self.nin_shortcut = nn.Conv2d(width_in, width_out, 1)
        self.changes_width = width_in != width_out

    def forward(self, x: Float[Tensor, "batch width_in h w"]) -> Float[Tensor, "batch width_out h w"]:
        """[B, width_in, h, w] -> [B, width_out, h, w]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return hidden + (self.nin_shortcut(x) if self.changes_width else x)


class SelfAttention(nn.Module):
    """Single-head attention over all cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=NORM_EPSILON)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        """Residual attention, same shape."""
        normed = self.norm(x)
        query, key, value = (rearrange(f(normed), "b c h w -> b 1 (h w) c") for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=x.shape[-2]))


class Middle(nn.Module):
    """The only place with attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width)
        self.attn_1 = SelfAttention(width)
        self.block_2 = ResidualBlock(width, width)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        """Same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Halves the grid; the zero padding is on the right and bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h2 w2"]:
        """[B, c, h, w] -> [B, c, h/2, w/2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles the grid by repeating cells, then smooths."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h2 w2"]:
        """[B, c, h, w] -> [B, c, 2h, 2w]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one resolution and the step to the next."""

    def __init__(self, width_in: int, width_out: int, blocks: int, resample: str) -> None:
        super().__init__()
        widths = [width_in] + [width_out] * (blocks - 1)
        self.block = nn.ModuleList(ResidualBlock(width, width_out) for width in widths)
        if resample == "down":
            self.downsample = Downsample(width_out)
        if resample == "up":
            self.upsample = Upsample(width_out)
        self.resample = resample

    def forward(self, x: Float[Tensor, "batch width_in h w"]) -> Float[Tensor, "batch width_out h2 w2"]:
        """Blocks, then the resampling if there is one."""
        for block in self.block:
            x = block(x)
        if self.resample == "down":
            return self.downsample(x)
        return self.upsample(x) if self.resample == "up" else x


class Encoder(nn.Module):
    """Pixels to C channels per cell; the 1x1 ``quant_conv`` lives inside, as in the published checkpoint."""

    def __init__(self, sizes: MagvitConfiguration) -> None:
        super().__init__()
        widths = [sizes.channels * m for m in sizes.encoder_multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, sizes.channels, 3, padding=1)
        self.down = nn.ModuleList(
            Level(before, width, blocks, "" if index == last else "down")
            for index, (before, width, blocks) in enumerate(
                zip([sizes.channels, *widths[:-1]], widths, sizes.encoder_blocks, strict=True)
            )
        )
        self.mid = Middle(widths[-1])
        self.norm_out = nn.GroupNorm(GROUPS, widths[-1], eps=NORM_EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], sizes.bits, 3, padding=1)
        self.quant_conv = nn.Conv2d(sizes.bits, sizes.bits, 1)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch bits h w"]:
        """[B, 3, H, W] in [-1, 1] -> [B, C, h, w]."""
        hidden = self.conv_in(pixels)
        for level in self.down:
            hidden = level(hidden)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(hidden)))))


class Decoder(nn.Module):
    """C signs per cell to pixels; ``up[i]`` belongs to resolution i, so they run from the last to the first."""

    def __init__(self, sizes: MagvitConfiguration) -> None:
        super().__init__()
        widths = [sizes.channels * m for m in sizes.decoder_multipliers]
        deeper = [*widths[1:], widths[-1]]
        self.post_quant_conv = nn.Conv2d(sizes.bits, sizes.bits, 1)
        self.conv_in = nn.Conv2d(sizes.bits, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Level(before, width, blocks, "up" if index else "")
            for index, (before, width, blocks) in enumerate(zip(deeper, widths, sizes.decoder_blocks, strict=True))
        )
        self.norm_out = nn.GroupNorm(GROUPS, widths[0], eps=NORM_EPSILON)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, signs: Float[Tensor, "batch bits h w"]) -> Float[Tensor, "batch 3 height width"]:
        """[B, C, h, w] of +-1 -> [B, 3, H, W], about [-1, 1], not clamped."""
        hidden = self.mid(self.conv_in(self.post_quant_conv(signs)))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(F.silu(self.norm_out(hidden)))


class SignCodebook(nn.Module):
    """The buffers of the published quantiser: every sign pattern, and the weight of each channel in the code."""

    embedding: Tensor
    power_vals: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        powers = 2 ** torch.arange(bits - 1, -1, -1)
        patterns = (torch.arange(2**bits)[:, None] & powers) > 0
        self.register_buffer("embedding", patterns.float() * 2 - 1)
        self.register_buffer("power_vals", powers)


class Magvit(nn.Module):
    """The tokenizer. Frozen and float32 wherever it makes targets."""

    def __init__(self, sizes: MagvitConfiguration) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(sizes)
        self.decoder = Decoder(sizes)
        self.quantize = SignCodebook(sizes.bits)

    def signs(self, encoded: Float[Tensor, "batch bits h w"]) -> Float[Tensor, "batch bits h w"]:
        """+1 where positive, -1 elsewhere: zero counts as -1."""
        return torch.where(encoded > 0, 1.0, -1.0).to(encoded.dtype)

    def encode(self, pixels: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch tokens"]:
        """Codes [B, N] in 0 .. 2**C - 1, channel 0 the most significant bit."""
        bits = rearrange(self.encoder(pixels) > 0, "b c h w -> b (h w) c")
        return (bits * self.quantize.power_vals).sum(-1)

    def decode(self, codes: Int[Tensor, "batch tokens"], height_cells: int) -> Float[Tensor, "batch 3 height width"]:
        """Pixels [B, 3, H, W] from codes; ``height_cells`` is h of the grid."""
        signs = self.quantize.embedding[codes]
        return self.decoder(rearrange(signs, "b (h w) c -> b c h w", h=height_cells))


def commitment(encoded: Float[Tensor, "batch bits h w"]) -> LossSum:
    """Squared distance of every channel to its sign, weighted, one count per channel and cell."""
    signs = torch.where(encoded > 0, 1.0, -1.0)
    distance = (signs - encoded).square()
    return LossSum(COMMITMENT_WEIGHT * distance.sum(), torch.tensor(float(distance.numel()), device=encoded.device))


def bit_entropy(encoded: Float[Tensor, "batch bits h w"]) -> Float[Tensor, ""]:
    """Entropy of a bit minus the entropy of its average over all cells, weighted: bits sure of themselves, all in use.

    In nats, mean over cells and channels (MAGVIT-v2, section 3.1). Not a sum over pictures: the average is over all.
    """
    log_odds = STEEPNESS * rearrange(encoded, "b c h w -> (b h w) c")
    share = log_odds.sigmoid()
    own = F.binary_cross_entropy_with_logits(log_odds, share)
    used = share.mean(0).clamp(SURE, 1 - SURE)
    return ENTROPY_WEIGHT * (own - (torch.special.entr(used) + torch.special.entr(1 - used)).mean())


def autoencoder_terms(magvit: Magvit, pixels: Float[Tensor, "batch 3 height width"]) -> dict[str, LossSum]:
    """Objective of the tokenizer itself: pixels through the signs, whose gradient passes straight to the encoder.

    ``pixel`` is mean absolute plus mean squared error, ``commitment`` and ``entropy`` are the quantiser's. Always
    float32. The entropy of a bit's average is that over the pictures of one pass, so it depends on how a step is split.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        encoded = magvit.encoder(pixels.float())
        redrawn = magvit.decoder(encoded + (magvit.signs(encoded) - encoded).detach())
        pictures = torch.tensor(float(len(pixels)), device=pixels.device)
        return {
            "pixel": pixel_error(redrawn, pixels),
            "commitment": commitment(encoded),
            "entropy": LossSum(bit_entropy(encoded) * pictures, pictures),
        }
