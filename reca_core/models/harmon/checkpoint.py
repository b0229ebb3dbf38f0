"""Key names: Harmon's published files and ours, both ways.

Upstream ships the model without its autoencoder (``llm.* mar.* proj_in.* proj_out.*``) and ``kl16.ckpt``, whose
autoencoder has the original latent-diffusion layout. Only the autoencoder's names differ from ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from reca_core.models import ldm_autoencoder

AUTOENCODER = "vae."


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
