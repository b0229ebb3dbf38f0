"""Harmon's network: KL-16 latents -> MAR encoder -> Qwen2 -> MAR decoder -> per-token diffusion head.

The same encoder serves seeing and drawing: with every token visible it is the understanding path, with the unmasked
ones it is the drawing path (arXiv 2503.21979, section 3). Written from the description and recorded numbers only.

Shapes: B batch, N = m*n tokens, b buffer rows, V visible, D language width, C latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from reca_core.models.harmon.mar import Mar, MarConfiguration, Shown
from reca_core.objectives.gaussian_diffusion import DenoisingTerms, DiffusionTables, add_noise, denoising_terms
from reca_core.objectives.loss_sum import LossSum

LATENT_SCALE = 0.2325
"""Of the published KL-16 latents."""


@dataclass(frozen=True)
class HarmonSizes:
    """Everything a network is built from. ``autoencoder``: arguments of diffusers' ``AutoencoderKL``."""

    language: Qwen2Config
    mar: MarConfiguration
    autoencoder: dict[str, Any]
    latent_scale: float = LATENT_SCALE
    latent_patch: int = 1


@dataclass(frozen=True)
class Drawing:
    """Everything on the way from a condition to what the head is told, [B, N, Dd] in ``told``."""

    inputs: Float[Tensor, "batch length width"]
    attention: Int[Tensor, "batch length"]
    positions: Int[Tensor, "batch length"]
    states: Float[Tensor, "batch length width"]
    encoded: Float[Tensor, "batch buffer_and_visible mar_width"]
    told: Float[Tensor, "batch tokens decoder_width"]


class HarmonNetwork(nn.Module):
    """All parameters of a Harmon, autoencoder included."""

    vae: Any  # diffusers' classes carry no types

    def __init__(self, sizes: HarmonSizes) -> None:
        super().__init__()
        width, mar_width = sizes.language.hidden_size, sizes.mar.width
        self.sizes = sizes
        self.llm = Qwen2ForCausalLM(sizes.language)
        self.mar = Mar(sizes.mar)
        self.proj_in = nn.Sequential(nn.Linear(mar_width, width), nn.SiLU(), nn.Linear(width, width))
        self.proj_out = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, mar_width))
        self.vae = AutoencoderKL(**sizes.autoencoder)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    # ---- the autoencoder ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_pixels(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch m n channels"]:
        """Latents: the mode of the posterior, scaled; a token is a patch in the order (channel, row, column).

        In float32 whatever the training's precision: they are targets.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            mode = self.vae.encode(pixels).latent_dist.mode() * self.sizes.latent_scale
        side = self.sizes.latent_patch
        return rearrange(mode, "b c (m p) (n q) -> b m n (c p q)", p=side, q=side)

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "batch m n channels"]) -> Float[Tensor, "batch 3 height width"]:
        """Pixels, about [-1, 1], not clamped."""
        side = self.sizes.latent_patch
        grid = rearrange(latents, "b m n (c p q) -> b c (m p) (n q)", p=side, q=side)
        with torch.autocast(latents.device.type, enabled=False):
            pixels: Tensor = self.vae.decode(grid.float() / self.sizes.latent_scale).sample
        return pixels

    def redrawn(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Encoded and decoded, with gradient: what the autoencoder itself learns from."""
        with torch.autocast(pixels.device.type, enabled=False):
            redrawn: Tensor = self.vae.decode(self.vae.encode(pixels.float()).latent_dist.mode()).sample
        return redrawn

    # ---- seeing ------------------------------------------------------------------------------------------------

    def to_language(self, encoded: Float[Tensor, "batch rows mar_width"]) -> Float[Tensor, "batch rows width"]:
        """Encoder rows as the language model sees them: buffer rows go to the end."""
        embedded: Tensor = self.proj_in(_buffer_last(encoded, self.sizes.mar.buffer))
        return embedded

    def understand(self, latents: Float[Tensor, "batch m n channels"]) -> Float[Tensor, "batch rows width"]:
        """h_v [B, N+b, D]: the whole picture through the encoder."""
        rows = rearrange(latents, "b m n c -> b (m n) c")
        everything = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        return self.to_language(self.mar.encode(rows, everything, _grid(latents)))

    # ---- drawing -----------------------------------------------------------------------------------------------

    def draw_states(
        self,
        condition: Float[Tensor, "batch prefix width"],
        attention: Int[Tensor, "batch prefix"],
        latents: Float[Tensor, "batch m n channels"],
        masked: Bool[Tensor, "batch tokens"],
    ) -> Drawing:
        """Condition and visible tokens through the language model, then the decoder: what each token should become.

        Pictures may have different numbers of masked tokens: padding is attended to by nobody and takes no position.
        """
        grid, rows = _grid(latents), rearrange(latents, "b m n c -> b (m n) c")
        encoded = self.mar.encode(rows, ~masked, grid)
        shown = self.to_language(encoded)
        real = _buffer_last(Shown.of(~masked, self.sizes.mar.buffer).real, self.sizes.mar.buffer)
        inputs = torch.cat([condition, shown], dim=1)
        mask = torch.cat([attention, real.to(attention.dtype)], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        states = self.llm.model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        refined = encoded + self.from_language(states[:, -shown.shape[1] :])
        return Drawing(inputs, mask, positions, states, refined, self.mar.decode(refined, ~masked, grid))

    def from_language(self, states: Float[Tensor, "batch rows width"]) -> Float[Tensor, "batch rows mar_width"]:
        """Language states as encoder rows: buffer rows go back to the front."""
        return self.proj_out(_buffer_first(states, self.sizes.mar.buffer))

    def embed(self, ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """Word embeddings."""
        embedded: Tensor = self.llm.get_input_embeddings()(ids)
        return embedded


def scaled_gradient(x: Tensor, scale: float) -> Tensor:
    """The same values; the gradient is multiplied by ``scale`` on the way back."""
    return x.detach() + scale * (x - x.detach())


@dataclass(frozen=True)
class DiffusionRows:
    """The head's rows: every token ``repeats`` times, as blocks (row = repeat * B * N + picture * N + token)."""

    terms: DenoisingTerms
    output: Float[Tensor, "rows channels2"]
    weights: Float[Tensor, " rows"]

    def loss(self) -> LossSum:
        """Sum over the masked rows; the count is the masked rows."""
        return LossSum((self.terms.total * self.weights).sum(), self.weights.sum())


def diffusion_rows(
    network: HarmonNetwork,
    tables: DiffusionTables,
    told: Float[Tensor, "batch tokens decoder_width"],
    latents: Float[Tensor, "batch m n channels"],
    masked: Bool[Tensor, "batch tokens"],
    steps: Int[Tensor, " rows"],
    noise: Float[Tensor, "rows channels"],
) -> DiffusionRows:
    """Denoise every token at its drawn step, conditioned on what the decoder told about it."""
    repeats = len(steps) // masked.numel()
    clean = repeat(latents, "b m n c -> (r b m n) c", r=repeats)
    condition = repeat(told, "b l d -> (r b l) d", r=repeats)
    noisy = add_noise(tables, clean, steps, noise)
    output = network.mar.diffloss.net(noisy, steps, condition).float()
    weights = repeat(masked.to(clean.dtype), "b l -> (r b l)", r=repeats)
    return DiffusionRows(denoising_terms(tables, output, clean, noisy, noise, steps), output, weights)


def _grid(latents: Float[Tensor, "batch m n channels"]) -> tuple[int, int]:
    return latents.shape[1], latents.shape[2]


def _buffer_last(rows: Tensor, buffer: int) -> Tensor:
    return torch.cat([rows[:, buffer:], rows[:, :buffer]], dim=1)


def _buffer_first(rows: Tensor, buffer: int) -> Tensor:
    visible = rows.shape[1] - buffer
    return torch.cat([rows[:, visible:], rows[:, :visible]], dim=1)
