"""OpenUni's network: InternVL3 -> learned queries -> connector -> SANA, on DC-AE latents.

Every part is a library's (measured equal): transformers' InternVL and SigLIP encoder, diffusers' SANA transformer,
DC-AE and schedulers. Ours is what joins them, written from the published description (OpenUni, arXiv 2505.23661) and
recorded numbers only.

Shapes: B batch, L text length, Q queries, D language width, K caption channels, C latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, SanaTransformer2DModel
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLForConditionalGeneration, SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from reca_core.models.pictures import channels
from reca_core.objectives import flow_matching
from reca_core.objectives.loss_sum import LossSum

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class OpenUniSizes:
    """Everything a network is built from; ``transformer`` and ``autoencoder``: arguments of diffusers' classes."""

    language: InternVLConfig
    connector: SiglipVisionConfig
    queries: int
    transformer: dict[str, Any]
    autoencoder: dict[str, Any]
    seen_side: int | None = None
    """Pixels a side that the encoder is given; None: as it was trained. Its positions are resized to fit."""

    @property
    def picture_tokens(self) -> int:
        """Embeddings of one picture: patches after the pixel shuffle."""
        language: Any = self.language
        patch: Any = language.vision_config.patch_size
        side = self.understanding_size // int(patch[0] if isinstance(patch, (list, tuple)) else patch)
        return int((side * language.downsample_ratio) ** 2)

    @property
    def stride(self) -> int:
        """Pixels per latent side."""
        return int(2 ** (len(self.autoencoder["encoder_block_out_channels"]) - 1))

    @property
    def understanding_size(self) -> int:
        """Side in pixels of what the understanding encoder sees."""
        vision: Any = self.language.vision_config
        size: Any = self.seen_side or vision.image_size
        return int(size[0]) if isinstance(size, (list, tuple)) else int(size)


@dataclass(frozen=True)
class Caption:
    """What the queries brought back, and the way there. ``condition`` [B, Q, K] is what SANA is told."""

    inputs: Float[Tensor, "batch length width"]
    attention: Int[Tensor, "batch length"]
    positions: Int[Tensor, "batch length"]
    states: Float[Tensor, "batch queries width"]
    connected: Float[Tensor, "batch queries width"]
    condition: Float[Tensor, "batch queries caption"]


@dataclass(frozen=True)
class Denoising:
    """One flow-matching step: what went in and what came out."""

    timesteps: Float[Tensor, " batch"]
    noisy: Float[Tensor, "batch channels h w"]
    velocity: Float[Tensor, "batch channels h w"]
    loss: LossSum


class OpenUniNetwork(nn.Module):
    """All parameters of an OpenUni. In every recipe the vision-language model and the autoencoder are frozen, by
    ``requires_grad``: nothing here detaches what a tiny base has to learn.
    """

    lmm: Any  # transformers' and diffusers' classes are passed through untyped
    transformer: Any
    vae: Any

    def __init__(self, sizes: OpenUniSizes) -> None:
        super().__init__()
        width = sizes.connector.hidden_size
        tower: Any = sizes.connector
        tower._attn_implementation = "sdpa"  # a stack built on its own gets no default
        self.sizes = sizes
        self.lmm = InternVLForConditionalGeneration(sizes.language)
        self.meta_queries = nn.Parameter(torch.zeros(sizes.queries, width))
        self.connector = SiglipEncoder(tower)
        self.projector = nn.Linear(width, sizes.transformer["caption_channels"])
        self.transformer = SanaTransformer2DModel(**sizes.transformer)
        self.vae = AutoencoderDC(**sizes.autoencoder)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.meta_queries.device

    # ---- the autoencoder ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_pixels(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels h w"]:
        """Scaled latents of pixels in [-1, 1]; deterministic, float32 also under autocast."""
        with torch.autocast(pixels.device.type, enabled=False):
            latents: Tensor = self.vae.encode(pixels.float()).latent * self.vae.config.scaling_factor
        return latents

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Pixels, about [-1, 1], not clamped."""
        with torch.autocast(latents.device.type, enabled=False):
            pixels: Tensor = self.vae.decode(latents.float() / self.vae.config.scaling_factor).sample
        return pixels

    def redrawn(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Encoded and decoded, with gradient: what the autoencoder itself learns from."""
        with torch.autocast(pixels.device.type, enabled=False):
            redrawn: Tensor = self.vae.decode(self.vae.encode(pixels.float()).latent).sample
        return redrawn

    # ---- seeing ------------------------------------------------------------------------------------------------

    def understand(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens width"]:
        """Picture embeddings [B, tokens, D] of pixels in [-1, 1].

        Resized after the normalisation, bilinearly and without antialiasing, as the published model was trained.
        """
        mean, std = channels(IMAGENET_MEAN).to(pixels.device), channels(IMAGENET_STD).to(pixels.device)
        side = self.sizes.understanding_size
        normalised = ((pixels + 1) / 2 - mean) / std
        return self.features(F.interpolate(normalised, size=(side, side), mode="bilinear", align_corners=False))

    def features(self, pixels: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch tokens width"]:
        """Picture embeddings of pixels that are already as the encoder wants them."""
        embedded: Tensor = self.lmm.model.get_image_features(pixels).pooler_output
        return embedded

    def embed(
        self, ids: Int[Tensor, "batch length"], pictures: Float[Tensor, "batch tokens width"] | None = None
    ) -> Float[Tensor, "batch length width"]:
        """Word embeddings; the image places, in order, are the picture's."""
        words: Tensor = self.lmm.get_input_embeddings()(ids)
        if pictures is None:
            return words
        here = (ids == self.lmm.config.image_token_id)[..., None]
        return words.masked_scatter(here, pictures.to(words.dtype))

    # ---- drawing -----------------------------------------------------------------------------------------------

    def ask(self, words: Float[Tensor, "batch length width"], attention: Int[Tensor, "batch length"]) -> Caption:
        """Append the queries, let the language model read, connect and project their states."""
        queries = repeat(self.meta_queries, "q d -> b q d", b=len(words))
        inputs = torch.cat([words, queries], dim=1)
        mask = torch.cat([attention, attention.new_ones(queries.shape[:2])], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        states = self.lmm.model.language_model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state[:, -self.sizes.queries :]
        connected = self.connector(inputs_embeds=states).last_hidden_state
        return Caption(inputs, mask, positions, states, connected, self.projector(connected))

    def denoise(
        self,
        condition: Float[Tensor, "batch queries caption"],
        latents: Float[Tensor, "batch channels h w"],
        uniform: Float[Tensor, " batch"],
        noise: Float[Tensor, "batch channels h w"],
        scheduler: Any,
    ) -> Denoising:
        """Flow-matching loss at levels drawn uniformly from those of diffusers' flow-matching Euler ``scheduler``.

        ``uniform`` in [0, 1).
        """
        index = (uniform * len(scheduler.timesteps)).long().cpu()
        timesteps = scheduler.timesteps[index].to(latents.device)
        levels = scheduler.sigmas[index].to(latents.device, latents.dtype)
        noisy = flow_matching.mixed(latents, noise, levels)
        velocity = self.transformer(noisy, encoder_hidden_states=condition, timestep=timesteps).sample
        return Denoising(timesteps, noisy, velocity, flow_matching.velocity_error(velocity, latents, noise))
