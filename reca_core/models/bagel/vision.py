"""BAGEL's understanding encoder: SigLIP on packed patches of pictures of any size.

Patch embedding is a matrix on flattened patches, positions are learned and looked up by grid id, attention is
bidirectional inside each picture only. The blocks are transformers' SigLIP blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder


class PatchEmbeddings(nn.Module):
    """Flattened patches and their grid ids to vectors."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        size: Any = config.image_size  # transformers allows pairs here; BAGEL has one number each
        patch: Any = config.patch_size
        per_side = size // patch
        self.patch_embedding = nn.Linear(config.num_channels * patch**2, config.hidden_size)
        self.position_embedding = nn.Embedding(per_side**2, config.hidden_size)

    def forward(
        self, patches: Float[Tensor, "tokens features"], ids: Int[Tensor, " tokens"]
    ) -> Float[Tensor, "tokens width"]:
        """Sum of both."""
        embedded: Tensor = self.patch_embedding(patches) + self.position_embedding(ids)
        return embedded


class PackedSiglip(nn.Module):
    """The tower, without a pooling head."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        tower: Any = config
        tower._attn_implementation = "sdpa"  # a stack built on its own gets no default
        self.encoder = SiglipEncoder(tower)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, patches: Float[Tensor, "tokens features"], ids: Int[Tensor, " tokens"], lengths: Sequence[int]
    ) -> Float[Tensor, "tokens width"]:
        """One row per patch; ``lengths`` are the pictures' patch counts.

        All pictures in one call of the stack, padded inside: where layers are sharded, every process must call each as
        often as the others do, whatever pictures it has.
        """
        rows = pad_sequence(list(self.embeddings(patches, ids).split(list(lengths))), batch_first=True)
        real = torch.arange(rows.shape[1], device=rows.device) < torch.tensor(lengths, device=rows.device)[:, None]
        mask = None if bool(real.all()) else repeat(real, "p key -> p 1 query key", query=rows.shape[1])
        states: Tensor = self.encoder(inputs_embeds=rows, attention_mask=mask).last_hidden_state
        return self.post_layernorm(states[real])
