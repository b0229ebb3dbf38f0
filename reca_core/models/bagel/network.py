"""BAGEL's network and its losses on a packed batch: flow matching on VAE tokens, cross-entropy on answers.

Rectified flow: ``x_t = (1 - t) x_0 + t noise``, velocity target ``noise - x_0``, t = sigmoid of a normal draw, shifted
(arXiv 2505.14683, section 3.4). Clean VAE pictures have t = 0. Time goes into its embedding unscaled, in [0, 1].
Module names are those of the published checkpoint; the autoencoder is diffusers' (reca_core/models/ldm_autoencoder.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.embeddings import get_timestep_embedding
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Qwen2Config, SiglipVisionConfig

from reca_core.models.bagel.packing import Grids, Pack
from reca_core.models.bagel.patches import patchify, sine_table
from reca_core.models.bagel.transformer import Attention, AttentionKind, MixtureOfTransformers, Routing
from reca_core.models.bagel.vision import PackedSiglip
from reca_core.objectives.loss_sum import LossSum

TIME_CHANNELS = 256


@dataclass(frozen=True)
class BagelSizes:
    """Everything a network is built from. ``autoencoder``: arguments of diffusers' ``AutoencoderKL``."""

    language: Qwen2Config
    vision: SiglipVisionConfig
    autoencoder: dict[str, Any]
    latent_channels: int
    vae_downsampling: int
    latent_patch: int
    latent_per_side: int
    vit_per_side: int

    def grids(self) -> Grids:
        """Sizes that the packer needs."""
        stride = self.vae_downsampling * self.latent_patch
        patch: Any = self.vision.patch_size  # transformers allows a pair here; BAGEL has one number
        return Grids(patch, self.vit_per_side, stride, self.latent_per_side)


class TokenModel(nn.Module):
    """The stack and the text head, under the checkpoint's names."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.model = MixtureOfTransformers(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)


class VisionModel(nn.Module):
    """A level of naming that the checkpoint has."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.vision_model = PackedSiglip(config)


class Connector(nn.Module):
    """ViT width to language width."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width_in, width_out)
        self.fc2 = nn.Linear(width_out, width_out)

    def forward(self, x: Float[Tensor, "tokens vit_width"]) -> Float[Tensor, "tokens width"]:
        """Linear, tanh-GELU, linear."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class PositionTable(nn.Module):
    """A fixed table that the checkpoint stores and upstream recomputes."""

    pos_embed: Tensor

    def __init__(self, per_side: int, width: int) -> None:
        super().__init__()
        self.register_buffer("pos_embed", sine_table(per_side, width))


class TimeEmbedder(nn.Module):
    """Time in [0, 1] to a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Float[Tensor, " tokens"]) -> Float[Tensor, "tokens width"]:
        """[cos | sin] features through the MLP."""
        waves = get_timestep_embedding(time, TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        embedded: Tensor = self.mlp(waves)
        return embedded


@dataclass(frozen=True)
class Noised:
    """VAE tokens of a pack on their way: clean, noise, time and the mixture. Row per VAE token."""

    clean: Float[Tensor, "tokens channels"]
    noise: Float[Tensor, "tokens channels"]
    time: Float[Tensor, " tokens"]

    @property
    def mixed(self) -> Float[Tensor, "tokens channels"]:
        """x_t."""
        time = self.time[:, None]
        return (1 - time) * self.clean + time * self.noise

    @property
    def velocity(self) -> Float[Tensor, "tokens channels"]:
        """What is predicted."""
        return self.noise - self.clean


class BagelNetwork(nn.Module):
    """All parameters of a BAGEL, autoencoder included."""

    vae: Any  # diffusers' classes carry no types
    _no_split_modules = ("Layer", "SiglipEncoderLayer")

    def __init__(self, sizes: BagelSizes) -> None:
        super().__init__()
        width = sizes.language.hidden_size
        channels = sizes.latent_channels * sizes.latent_patch**2
        self.sizes = sizes
        self.language_model = TokenModel(sizes.language)
        self.vit_model = VisionModel(sizes.vision)
        self.connector = Connector(sizes.vision.hidden_size, width)
        self.vit_pos_embed = PositionTable(sizes.vit_per_side, width)
        self.latent_pos_embed = PositionTable(sizes.latent_per_side, width)
        self.time_embedder = TimeEmbedder(width)
        self.vae2llm = nn.Linear(channels, width)
        self.llm2vae = nn.Linear(width, channels)
        self.vae = AutoencoderKL(**sizes.autoencoder)
        # Sharded as one piece: it runs once per size of picture, so processes call its layers differently often.
        self.vae._no_split_modules = ()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.vae2llm.weight.device

    def choose_attention(self, kind: AttentionKind) -> None:
        """``dense``, the reference, or ``flex``, from here on and in every layer."""
        for part in self.language_model.model.modules():
            if isinstance(part, Attention):
                part.kind = kind

    # ---- the autoencoder ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_pixels(
        self, pixels: Float[Tensor, "batch 3 height width"], noise: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch channels h w"]:
        """Latents, *sampled* with the given noise: upstream samples in training and editing alike."""
        mean, deviation = self.posterior(pixels)
        return mean + deviation * noise

    @torch.no_grad()
    def posterior(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channels h w"], Float[Tensor, "batch channels h w"]]:
        """Mean and deviation of the latents; float32 whatever the training's precision: they are targets."""
        with torch.autocast(pixels.device.type, enabled=False):
            posterior = self.vae.encode(pixels).latent_dist
        scale, shift = self.vae.config.scaling_factor, self.vae.config.shift_factor
        return scale * (posterior.mean - shift), scale * posterior.std

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Pixels, about [-1, 1], not clamped."""
        scaled = latents.float() / self.vae.config.scaling_factor + self.vae.config.shift_factor
        with torch.autocast(latents.device.type, enabled=False):
            pixels: Tensor = self.vae.decode(scaled).sample
        return pixels

    def pack_latents(
        self, pack: Pack, vae_noise: Float[Tensor, "pictures channels h w"]
    ) -> Float[Tensor, "tokens channels"]:
        """VAE tokens of all pictures of a pack; pictures are padded to the largest with zeros and cropped again."""
        tallest = max(picture.shape[1] for picture in pack.vae_pixels)
        widest = max(picture.shape[2] for picture in pack.vae_pixels)
        padded = [F.pad(x, (0, widest - x.shape[2], 0, tallest - x.shape[1])) for x in pack.vae_pixels]
        latents = self.encode_pixels(torch.stack(padded), vae_noise)
        side = self.sizes.latent_patch
        rows = [
            patchify(latent[:, : height * side, : width * side], side)
            for latent, (height, width) in zip(latents, pack.vae_grids, strict=True)
        ]
        return torch.cat(rows)

    # ---- the sequence ------------------------------------------------------------------------------------------

    def understand(self, pack: Pack) -> Float[Tensor, "tokens width"]:
        """ViT tokens of all pictures of a pack, with their positions added."""
        ids, patches = torch.cat(pack.vit_position_ids).to(self.device), torch.cat(pack.vit_patches).to(self.device)
        return self.see(patches, ids, pack.vit_lengths)

    def see(
        self, patches: Float[Tensor, "tokens features"], ids: Int[Tensor, " tokens"], lengths: Sequence[int]
    ) -> Float[Tensor, "tokens width"]:
        """Patches of pictures through ViT and connector, with their positions added."""
        features = self.vit_model.vision_model(patches, ids, lengths)
        return self.connector(features) + self.vit_pos_embed.pos_embed[ids]

    def embed_noised(self, pack: Pack, noised: Noised) -> Float[Tensor, "tokens width"]:
        """VAE tokens as the language model sees them: value, time and place."""
        ids = torch.cat(pack.vae_position_ids).to(noised.time.device)
        return self.vae2llm(noised.mixed) + self.time_embedder(noised.time) + self.latent_pos_embed.pos_embed[ids]

    def embed(
        self, pack: Pack, noised: Noised | None, seen: Float[Tensor, "tokens width"] | None = None
    ) -> Float[Tensor, "tokens width"]:
        """The packed row of inputs [S, D]. ``seen`` are ViT tokens of a pack whose pictures are embedded already."""
        device = self.device
        words = self.language_model.model.embed_tokens(torch.tensor(pack.text_ids, dtype=torch.long, device=device))
        parts, index = [words], list(pack.text_index)
        if pack.vit_index:
            parts.append(self.understand(pack) if seen is None else seen)
            index += pack.vit_index
        if noised is not None:
            parts.append(self.embed_noised(pack, noised))
            index += pack.vae_index
        return torch.cat(parts)[torch.tensor(index, device=device).argsort()]

    def hidden(
        self, pack: Pack, embedded: Float[Tensor, "tokens width"], *, frozen_understanding: bool = False
    ) -> Float[Tensor, "tokens width"]:
        """Hidden states of the whole pack."""
        generation = torch.zeros(pack.length, dtype=torch.bool, device=embedded.device)
        generation[pack.vae_index] = True
        masks = [mask.to(embedded.device) for mask in pack.masks()]
        routing = Routing(generation, masks, frozen_understanding)
        positions = torch.tensor(pack.positions, device=embedded.device)
        states, _ = self.language_model.model(embedded, positions, routing)
        return states

    def velocity(self, pack: Pack, states: Float[Tensor, "tokens width"]) -> Float[Tensor, "noised channels"]:
        """Predicted velocity at the places that are asked for."""
        predicted: Tensor = self.llm2vae(states[pack.noise_index])
        return predicted

    def logits(self, pack: Pack, states: Float[Tensor, "tokens width"]) -> Float[Tensor, "labels vocabulary"]:
        """Text logits at the places that carry labels."""
        scores: Tensor = self.language_model.lm_head(states[pack.label_index])
        return scores


def shifted_time(logits: Float[Tensor, " tokens"], shift: float) -> Float[Tensor, " tokens"]:
    """Time of a logit; ``shift`` above 1 moves it towards noise, minus infinity is 0."""
    time = logits.sigmoid()
    return shift * time / (1 + (shift - 1) * time)


def flow_loss(pack: Pack, noised: Noised, predicted: Float[Tensor, "noised channels"]) -> LossSum:
    """Squared error of the velocity: mean over channels, one count per token to predict."""
    place = {token: row for row, token in enumerate(pack.vae_index)}
    rows = [place[token] for token in pack.noise_index]
    errors = (predicted - noised.velocity[rows]).square().mean(-1)
    return LossSum(errors.sum(), torch.tensor(float(len(rows)), device=errors.device))
