"""The masked-autoregressive half of Harmon: an encoder of visible tokens, a decoder of all of them, a diffusion head.

Written from the published description (Harmon, arXiv 2503.21979; MAR, arXiv 2406.11838) and recorded numbers only.
Shapes: B batch, N image tokens on an m x n grid, V visible ones, b buffer rows in front, Dm width, C latent channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

TIME_CHANNELS = 256
NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class MarConfiguration:
    """Sizes; ``native_side`` is the side of the grid that the position tables were trained on."""

    latent_channels: int
    width: int
    encoder_depth: int
    decoder_depth: int
    decoder_width: int
    encoder_heads: int
    decoder_heads: int
    native_side: int
    buffer: int = 64
    mlp_ratio: float = 4.0
    norm_epsilon: float = 1e-6
    head_depth: int = 12
    head_width: int = 1536
    classes: int = 1000
    """Rows of a class table that the checkpoint carries and nothing reads."""


class SelfAttention(nn.Module):
    """Full attention with fused projections."""

    def __init__(self, width: int, heads: int) -> None:
        """Raises ValueError where the heads do not share the width equally."""
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads cannot share a width of {width} equally")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch length width"], mask: Bool[Tensor, "batch 1 1 length"] | None = None
    ) -> Float[Tensor, "batch length width"]:
        """Same shape. ``mask`` is False at padding, which nobody sees."""
        q, k, v = rearrange(self.qkv(x), "b l (three h d) -> three b h l d", three=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(rearrange(mixed, "b h l d -> b l (h d)"))


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, ratio: float, epsilon: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = FeedForward(width, int(width * ratio))

    def forward(
        self, x: Float[Tensor, "batch length width"], mask: Bool[Tensor, "batch 1 1 length"] | None = None
    ) -> Float[Tensor, "batch length width"]:
        """Same shape."""
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive layer norm's affine part."""
    return x * (1 + scale) + shift


class ResidualStep(nn.Module):
    """One gated block of the diffusion head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Float[Tensor, "rows width"], y: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """``y`` says what the row is about and how noisy it is."""
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, dim=-1)
        return x + gate * self.mlp(modulated(self.in_ln(x), shift, scale))


class FinalStep(nn.Module):
    """To noise estimate and variance fraction."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=NORM_EPSILON, elementwise_affine=False)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Float[Tensor, "rows width"], y: Float[Tensor, "rows width"]) -> Float[Tensor, "rows outputs"]:
        """[R, width] -> [R, 2C]."""
        shift, scale = self.adaLN_modulation(y).chunk(2, dim=-1)
        return self.linear(modulated(self.norm_final(x), shift, scale))


class TimeEmbedder(nn.Module):
    """Step number to a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, steps: Int[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """[cos | sin] features through the MLP."""
        waves = get_timestep_embedding(steps, TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        embedded: Tensor = self.mlp(waves.to(next(self.parameters()).dtype))
        return embedded


class DenoisingHead(nn.Module):
    """The small network that denoises one token at a time."""

    def __init__(self, channels: int, condition_width: int, width: int, depth: int) -> None:
        super().__init__()
        self.time_embed = TimeEmbedder(width)
        self.cond_embed = nn.Linear(condition_width, width)
        self.input_proj = nn.Linear(channels, width)
        self.res_blocks = nn.ModuleList(ResidualStep(width) for _ in range(depth))
        self.final_layer = FinalStep(width, 2 * channels)

    def forward(
        self,
        noisy: Float[Tensor, "rows channels"],
        steps: Int[Tensor, " rows"],
        condition: Float[Tensor, "rows condition_width"],
    ) -> Float[Tensor, "rows channels2"]:
        """Noise estimate and variance fraction, [R, 2C]."""
        y = self.time_embed(steps) + self.cond_embed(condition)
        x = self.input_proj(noisy)
        for block in self.res_blocks:
            x = block(x, y)
        return self.final_layer(x, y)


class DiffusionLoss(nn.Module):
    """A level of naming that the checkpoint has."""

    def __init__(self, net: DenoisingHead) -> None:
        super().__init__()
        self.net = net


@dataclass(frozen=True)
class Shown:
    """What the encoder is shown of [buffer | tokens], in order, gathered to the front of each row.

    ``index`` says which place each row came from, ``real`` is False at the padding of pictures that show fewer tokens
    than another of the batch.
    """

    index: Int[Tensor, "batch shown"]
    real: Bool[Tensor, "batch shown"]

    @classmethod
    def of(cls, visible: Bool[Tensor, "batch tokens"], buffer: int) -> Shown:
        """Buffer rows are always shown, tokens where they are ``visible``."""
        kept = _with_buffer(visible, buffer)
        counts = kept.sum(1)
        length = int(counts.max())
        index = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]
        return cls(index, torch.arange(length, device=visible.device) < counts[:, None])

    @property
    def mask(self) -> Bool[Tensor, "batch 1 1 shown"] | None:
        """For attention; None where every row is full."""
        return None if bool(self.real.all()) else self.real[:, None, None]


class Mar(nn.Module):
    """Encoder, decoder and head. Buffer rows come first in everything it returns."""

    _no_split_modules = ("Block", "ResidualStep")

    def __init__(self, sizes: MarConfiguration) -> None:
        super().__init__()
        self.sizes = sizes
        tokens = sizes.native_side**2
        self.z_proj = nn.Linear(sizes.latent_channels, sizes.width)
        self.z_proj_ln = nn.LayerNorm(sizes.width, eps=NORM_EPSILON)
        self.fake_latent = nn.Parameter(torch.zeros(1, sizes.width))
        self.class_emb = nn.Embedding(sizes.classes, sizes.width)
        self.encoder_pos_embed_learned = nn.Parameter(torch.zeros(1, sizes.buffer + tokens, sizes.width))
        self.encoder_blocks = _blocks(sizes, sizes.encoder_depth, sizes.width, sizes.encoder_heads)
        self.encoder_norm = nn.LayerNorm(sizes.width, eps=sizes.norm_epsilon)
        self.decoder_embed = nn.Linear(sizes.width, sizes.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, sizes.decoder_width))
        self.decoder_pos_embed_learned = nn.Parameter(torch.zeros(1, sizes.buffer + tokens, sizes.decoder_width))
        self.decoder_blocks = _blocks(sizes, sizes.decoder_depth, sizes.decoder_width, sizes.decoder_heads)
        self.decoder_norm = nn.LayerNorm(sizes.decoder_width, eps=sizes.norm_epsilon)
        self.diffusion_pos_embed_learned = nn.Parameter(torch.zeros(1, tokens, sizes.decoder_width))
        head = DenoisingHead(sizes.latent_channels, sizes.decoder_width, sizes.head_width, sizes.head_depth)
        self.diffloss = DiffusionLoss(head)

    def table(self, name: str, grid: tuple[int, int]) -> Float[Tensor, "1 rows width"]:
        """Position table ``name`` ("encoder", "decoder", "diffusion") for a grid; image rows are resized bilinearly."""
        learned: Tensor = getattr(self, f"{name}_pos_embed_learned")
        side = self.sizes.native_side
        buffer, image = learned.split([learned.shape[1] - side * side, side * side], dim=1)
        if grid == (side, side):
            return learned
        cells = rearrange(image, "1 (m n) d -> 1 d m n", m=side)
        resized = F.interpolate(cells, size=grid, mode="bilinear", align_corners=False)
        return torch.cat([buffer, rearrange(resized, "1 d m n -> 1 (m n) d")], dim=1)

    def encode(
        self,
        latents: Float[Tensor, "batch tokens channels"],
        visible: Bool[Tensor, "batch tokens"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch buffer_and_visible width"]:
        """[B, b+V, Dm], V the most that a picture shows; rows past a picture's own (``Shown.real``) mean nothing."""
        batch, buffer = len(latents), self.sizes.buffer
        x = torch.cat([repeat(self.fake_latent, "1 d -> b r d", b=batch, r=buffer), self.z_proj(latents)], dim=1)
        x = x + self.table("encoder", grid)
        shown = Shown.of(visible, buffer)
        x = x.gather(1, repeat(shown.index, "b l -> b l d", d=x.shape[-1]))
        x, mask = self.z_proj_ln(x), shown.mask
        for block in self.encoder_blocks:
            x = block(x, mask)
        return self.encoder_norm(x)

    def decode(
        self,
        encoded: Float[Tensor, "batch buffer_and_visible width"],
        visible: Bool[Tensor, "batch tokens"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch tokens decoder_width"]:
        """What the head is told about every token: [B, N, Dd]."""
        batch, buffer = len(encoded), self.sizes.buffer
        x = self.decoder_embed(encoded)[Shown.of(visible, buffer).real]
        kept = _with_buffer(visible, buffer)
        canvas = repeat(self.mask_token, "1 1 d -> b l d", b=batch, l=kept.shape[1]).to(x.dtype)
        x = canvas.masked_scatter(kept[..., None], x) + self.table("decoder", grid)
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)[:, buffer:] + self.table("diffusion", grid)


def _with_buffer(visible: Bool[Tensor, "batch tokens"], buffer: int) -> Bool[Tensor, "batch places"]:
    return torch.cat([visible.new_ones(len(visible), buffer), visible], dim=1)


def _blocks(sizes: MarConfiguration, depth: int, width: int, heads: int) -> nn.ModuleList:
    return nn.ModuleList(Block(width, heads, sizes.mlp_ratio, sizes.norm_epsilon) for _ in range(depth))


def masked_count(tokens: int, ratio: float) -> int:
    """Tokens to mask: rounded up."""
    return math.ceil(tokens * ratio)


def masked_by_counts(
    orders: Int[Tensor, "batch tokens"], counts: Int[Tensor, " batch"]
) -> Bool[Tensor, "batch tokens"]:
    """True for the first ``counts[row]`` tokens of each row's order."""
    return orders.argsort(dim=1) < counts[:, None]


def masked_by_order(orders: Int[Tensor, "batch tokens"], count: int) -> Bool[Tensor, "batch tokens"]:
    """True for the first ``count`` tokens of each row's order."""
    masked = torch.zeros_like(orders, dtype=torch.bool)
    return masked.scatter(1, orders[:, :count], torch.ones_like(orders, dtype=torch.bool))
