"""Frozen matrices of a bfloat16 training are kept in bfloat16, where that changes no value of them.

Autocast turns a matrix into bfloat16 at every use, so a frozen one in float32 is a master copy that nothing needs: half
of its memory. Published weights are stored in bfloat16 and lose nothing by it; a matrix that would is left as it is.
Everything else (trained weights, image tokenizer, embeddings, vectors) stays in float32.
"""

from __future__ import annotations

import torch
from torch import nn

from reca_core.contracts.requests import TrainingPlan
from reca_core.models.state import matrices_of

NARROW = torch.bfloat16


@torch.no_grad()
def narrow_frozen(network: nn.Module, plan: TrainingPlan, image_tokenizer: str) -> int:
    """Halve what may be halved, in place; returns the bytes saved, 0 in a float32 training.

    Args:
        network: with gradients switched as the training wants them. Of one on the device "meta" the values are taken
            to be such that nothing is lost.
        image_tokenizer: path of the part that computes in float32 always.
    """
    if plan.precision == "float32":
        return 0
    saved = 0
    for parameter in _candidates(network, image_tokenizer):
        narrow = parameter.to(NARROW)
        if parameter.is_meta or torch.equal(narrow.to(parameter.dtype), parameter):
            saved += parameter.nbytes - narrow.nbytes
            parameter.data = narrow
    return saved


def _candidates(network: nn.Module, image_tokenizer: str) -> list[nn.Parameter]:
    """Frozen matrices in float32 that nothing else uses: a text head may be the word embeddings."""
    matrices = dict(matrices_of(network, image_tokenizer))
    others = {id(p) for name, p in network.named_parameters(remove_duplicate=False) if name not in matrices}
    frozen = {id(p): p for p in matrices.values() if not p.requires_grad and p.dtype == torch.float32}
    return [parameter for key, parameter in frozen.items() if key not in others]
