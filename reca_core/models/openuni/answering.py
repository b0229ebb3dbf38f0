"""Questions put to OpenUni's vision-language model: rows of ids embedded, loss of answers, greedy answers.

The model is frozen in every recipe, so these losses then carry no gradient: they show that nothing was forgotten. Only
states that predict an answer go through the text head: a vocabulary of 150 thousand is most of its memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from reca_core.models.grouping import filled_rows
from reca_core.models.openuni.network import OpenUniNetwork
from reca_core.models.unified import Condition
from reca_core.objectives import next_token
from reca_core.objectives.loss_sum import LossSum

MIN_ROWS = 16
"""Matrix products of fewer rows round differently (measured on x86 with torch 2.13)."""


def embed_rows(
    network: OpenUniNetwork,
    rows: Sequence[Sequence[int]],
    seen: Float[Tensor, "pictures tokens width"] | None = None,
) -> Condition:
    """Embed rows, padded on the left; places of pictures receive ``seen`` in row order."""
    device, length = network.device, max(len(row) for row in rows)
    ids = torch.tensor([[*[0] * (length - len(row)), *row] for row in rows], device=device)
    attention = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=device)
    return Condition(network.embed(ids, seen), attention)


def answer_loss(
    network: OpenUniNetwork,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    seen: Float[Tensor, "pictures tokens width"] | None,
) -> LossSum:
    """Cross-entropy of answers after their prompts, one count per answer token."""
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    sequence = embed_rows(network, rows, seen)
    states = network.lmm.model.language_model(
        inputs_embeds=sequence.embeddings,
        attention_mask=sequence.attention,
        position_ids=(sequence.attention.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    ).last_hidden_state
    predicting = torch.cat([states[index, -len(answer) - 1 : -1] for index, answer in enumerate(answers)])
    labels = torch.tensor([token for answer in answers for token in answer], device=network.device)
    return next_token.cross_entropy(network.lmm.lm_head(predicting), labels)


@torch.no_grad()
def greedy_text(
    network: OpenUniNetwork, prefix: Float[Tensor, "batch length width"], *, end: int, max_tokens: int
) -> list[list[int]]:
    """The likeliest continuation of every row, up to but without ``end``; rows of equal length."""
    batch, cache, inputs = len(prefix), DynamicCache(), filled_rows(prefix, MIN_ROWS)
    chosen: list[Int[Tensor, " batch"]] = []
    running = torch.ones(batch, dtype=torch.bool, device=prefix.device)
    for _ in range(max_tokens):
        states = network.lmm.model.language_model(
            inputs_embeds=inputs, past_key_values=cache, use_cache=True
        ).last_hidden_state
        tokens = network.lmm.lm_head(states[:, -1]).argmax(-1)
        chosen.append(tokens[:batch])
        running = running & (chosen[-1] != end)
        if not bool(running.any()):
            break
        inputs = network.embed(tokens[:, None])
    return [_until(row, end) for row in torch.stack(chosen, dim=1).tolist()]


def _until(row: Sequence[int], end: int) -> list[int]:
    return list(row[: row.index(end)]) if end in row else list(row)
