"""Key names: Harmon's published files and ours, both ways.

Upstream ships the model without its autoencoder (``llm.* mar.* proj_in.* proj_out.*``) and ``kl16.ckpt``, whose
autoencoder has the original latent-diffusion layout. Only the autoencoder's names differ from ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reca_core.models import ldm_autoencoder

AUTOENCODER = "vae."
TEXT_HEAD, WORDS = "llm.lm_head.weight", "llm.model.embed_tokens.weight"


def from_upstream(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Full upstream names, the autoencoder's after ``vae.``, to ours. ``levels``: resolutions of the autoencoder."""
    theirs = {name.removeprefix(AUTOENCODER): tensor for name, tensor in state.items() if name.startswith(AUTOENCODER)}
    renamed = {AUTOENCODER + n: tensor for n, tensor in ldm_autoencoder.from_original(theirs, levels).items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith(AUTOENCODER)} | renamed


def to_upstream(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The inverse; a head tied to the word embeddings is written out, as upstream does."""
    mine = {name.removeprefix(AUTOENCODER): tensor for name, tensor in state.items() if name.startswith(AUTOENCODER)}
    theirs = {AUTOENCODER + n: tensor for n, tensor in ldm_autoencoder.to_original(mine, levels).items()}
    weights = {name: tensor for name, tensor in state.items() if not name.startswith(AUTOENCODER)}
    if TEXT_HEAD not in weights and WORDS in weights:
        weights[TEXT_HEAD] = weights[WORDS]
    return weights | theirs


def tied(stated: bool, state: Mapping[str, Tensor]) -> bool:
    """As config says, unless the file holds a text head that differs from the word embeddings."""
    head, words = state.get(TEXT_HEAD), state.get(WORDS)
    return stated and (head is None or (words is not None and torch.equal(head, words)))
