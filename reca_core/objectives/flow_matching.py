"""Flow matching: the loss of families that draw by following a velocity from noise to latents.

Rectified flow (arXiv 2209.03003; as trained by SANA, arXiv 2410.10629): ``x_s = (1 - s) x_0 + s noise`` at noise
level s, and the network predicts ``noise - x_0``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reca_core.objectives.loss_sum import LossSum


def mixed(
    clean: Float[Tensor, "batch *shape"], noise: Float[Tensor, "batch *shape"], level: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *shape"]:
    """x_s, one noise level in [0, 1] per sample."""
    share = level.reshape(-1, *[1] * (clean.dim() - 1))
    return (1 - share) * clean + share * noise


def velocity_error(
    predicted: Float[Tensor, "batch *shape"],
    clean: Float[Tensor, "batch *shape"],
    noise: Float[Tensor, "batch *shape"],
) -> LossSum:
    """Squared error of the velocity, one count per latent number."""
    errors = (predicted.float() - (noise - clean).float()).square()
    return LossSum(errors.sum(), torch.tensor(float(errors.numel()), device=errors.device))
