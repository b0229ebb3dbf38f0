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


def from_upstream(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Full upstream names, the autoencoder's after ``vae.``, to ours. ``levels``: resolutions of the autoencoder."""
    theirs = {name.removeprefix(AUTOENCODER): tensor for name, tensor in state.items() if name.startswith(AUTOENCODER)}
    renamed = {AUTOENCODER + n: tensor for n, tensor in ldm_autoencoder.from_original(theirs, levels).items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith(AUTOENCODER)} | renamed


def to_upstream(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The inverse."""
    mine = {name.removeprefix(AUTOENCODER): tensor for name, tensor in state.items() if name.startswith(AUTOENCODER)}
    theirs = {AUTOENCODER + n: tensor for n, tensor in ldm_autoencoder.to_original(mine, levels).items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith(AUTOENCODER)} | theirs
