"""Rows of token ids to the embedded sequence that Janus' language model reads. Pictures replace their placeholders.

Rows are padded on the left, so that what is predicted always stands at the end. Null forms: classifier-free guidance
and prompt dropout both put pad embeddings, attended to, in place of text (DeepSeek's generation code does so without
any attention mask; reference "model_goldens", Janus, point 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import JanusForConditionalGeneration

from reca_core.models.janus.chat import TokenIds
from reca_core.models.unified import Condition


def left_padded(
    rows: Sequence[Sequence[int]], fill: int
) -> tuple[Int[Tensor, "batch length"], Int[Tensor, "batch length"]]:
    """Ids and attention (1 on real positions), padded on the left to the longest row."""
    length = max(len(row) for row in rows)
    ids = torch.tensor([[fill] * (length - len(row)) + list(row) for row in rows])
    attention = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, attention


def without_text(rows: Sequence[Sequence[int]], dropped: Sequence[bool], ids: TokenIds) -> list[list[int]]:
    """Rows whose text between first and last token is replaced by pad; a picture inside stays (reference 1.5)."""
    kept = {ids.boi, ids.eoi, ids.image}
    return [
        [row[0], *(token if token in kept else ids.pad for token in row[1:-1]), row[-1]] if drop else list(row)
        for row, drop in zip(rows, dropped, strict=True)
    ]


def null_prompts(rows: Sequence[Sequence[int]], ids: TokenIds) -> list[list[int]]:
    """The unconditional form of guidance: pad in all but the first and last position, pictures included."""
    return [[row[0], *[ids.pad] * (len(row) - 2), row[-1]] for row in rows]


def embed_rows(
    network: JanusForConditionalGeneration,
    rows: Sequence[Sequence[int]],
    ids: TokenIds,
    understanding: Float[Tensor, "pictures und_tokens width"] | None = None,
) -> Condition:
    """Embed rows; placeholders receive ``understanding`` in row order, one picture per row that has any."""
    device = network.device
    tokens, attention = left_padded(rows, ids.pad)
    tokens, attention = tokens.to(device), attention.to(device)
    embeddings = network.get_input_embeddings()(tokens)
    if understanding is not None:
        placeholders = (tokens == ids.image).unsqueeze(-1)
        embeddings = embeddings.masked_scatter(placeholders, understanding.to(embeddings.dtype))
    return Condition(embeddings, attention)


def hidden_states(network: JanusForConditionalGeneration, sequence: Condition) -> Float[Tensor, "batch length width"]:
    """Last hidden states; positions count real tokens only, padding is not attended to."""
    padded = not bool(sequence.attention.all())
    output = network.model.language_model(
        inputs_embeds=sequence.embeddings,
        attention_mask=sequence.attention if padded else None,
        position_ids=position_ids(sequence.attention) if padded else None,
        use_cache=False,
    )
    states: Tensor = output.last_hidden_state
    return states


def position_ids(attention: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """0, 1, 2, ... over the real positions of each row; padding gets 0."""
    return (attention.cumsum(-1) - 1).clamp(min=0)


def image_logits(
    network: JanusForConditionalGeneration, condition: Condition, codes: Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens codebook"]:
    """Teacher-forced logits of every code: the last prompt position predicts code 0 (reference 4.2 B, steps 4-5)."""
    states = hidden_states(network, with_codes(network, condition, codes))
    logits: Tensor = network.model.generation_head(states[:, -codes.shape[1] :])
    return logits


def with_codes(
    network: JanusForConditionalGeneration, condition: Condition, codes: Int[Tensor, "batch tokens"]
) -> Condition:
    """The condition followed by all codes but the last, embedded as the generator reads them."""
    embedded = network.prepare_embeddings_for_image_generation(codes[:, :-1])
    embeddings = torch.cat([condition.embeddings, embedded.to(condition.embeddings.dtype)], dim=1)
    seen = condition.attention.new_ones(embedded.shape[:2])
    return Condition(embeddings, torch.cat([condition.attention, seen], dim=1))


def answer_logits(
    network: JanusForConditionalGeneration, sequence: Condition, lengths: Sequence[int]
) -> Float[Tensor, "answer_tokens vocabulary"]:
    """Logits of the last ``lengths[row]`` tokens of every row, all rows one after another.

    Rows are padded on the left, so n answer tokens are predicted by the states -n-1 ... -2 of their row. Only these
    go through the text head: a vocabulary of 100 thousand is most of the memory of this loss.
    """
    states = hidden_states(network, sequence)
    predicting = torch.cat([states[row, -length - 1 : -1] for row, length in enumerate(lengths)])
    logits: Tensor = network.lm_head(predicting)
    return logits


def as_flags(dropped: Bool[Tensor, " batch"]) -> list[bool]:
    """A mask as Python booleans."""
    flags: list[bool] = dropped.tolist()
    return flags
