"""Key names: BAGEL's published files and ours, both ways.

Upstream ships ``ema.safetensors`` (language model, ViT, glue) and ``ae.safetensors`` (autoencoder, original latent
diffusion layout). Ours is one network; only the autoencoder's names differ (reca_core/models/ldm_autoencoder.py).
The two position tables are fixed: upstream recomputes them, so a checkpoint may lack them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from reca_core.models import ldm_autoencoder

AUTOENCODER = "vae."
FIXED = ("vit_pos_embed.pos_embed", "latent_pos_embed.pos_embed")
"""Recomputed, so harmless when absent."""


def from_upstream(weights: Mapping[str, Tensor], autoencoder: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """One state dict with our names; ``levels`` is the number of resolutions of the autoencoder."""
    renamed = ldm_autoencoder.from_original(autoencoder, levels)
    return dict(weights) | {AUTOENCODER + name: tensor for name, tensor in renamed.items()}


def to_upstream(
    state: Mapping[str, Tensor], autoencoder_like: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, autoencoder) in upstream's names; ``autoencoder_like`` gives the autoencoder's key set and shapes."""
    mine = {name.removeprefix(AUTOENCODER): tensor for name, tensor in state.items() if name.startswith(AUTOENCODER)}
    weights = {name: tensor for name, tensor in state.items() if not name.startswith(AUTOENCODER)}
    return weights, ldm_autoencoder.to_original(mine, autoencoder_like)
