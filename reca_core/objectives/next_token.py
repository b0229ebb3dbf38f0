"""Next-token prediction: the loss of autoregressive families on text tokens and on image tokens alike.

Source: arXiv 2509.07295, section 3.2 (RecA keeps each family's own generation loss); for Janus this is the
cross-entropy over VQ codes of arXiv 2410.13848, section 3.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from reca_core.objectives.loss_sum import LossSum

IGNORED = -100
"""Label of a position that carries no loss; the value torch's cross-entropy skips by default."""


def cross_entropy(logits: Float[Tensor, "*positions classes"], targets: Int[Tensor, "*positions"]) -> LossSum:
    """Sum over positions of ``-log softmax(logits)[target]``, in nats; positions labelled ``IGNORED`` count nothing.

    Computed in float32 whatever the precision of ``logits``: a bfloat16 log-sum-exp over 16384 codes loses digits.
    """
    flat_targets = targets.flatten()
    total = F.cross_entropy(logits.flatten(0, -2).float(), flat_targets, ignore_index=IGNORED, reduction="sum")
    return LossSum(total, (flat_targets != IGNORED).sum().to(torch.float32))
