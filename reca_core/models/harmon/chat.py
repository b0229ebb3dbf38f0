"""How Harmon is spoken to: Qwen's chat turns without a system turn, pictures in place inside the user's turn.

    <|im_start|>user\\n  PICTURE  \\n{text}<|im_end|>\\n<|im_start|>assistant\\n      then an answer or a drawing

Segments are tokenised separately: tokenised as one text, Qwen merges the newline before the picture with the one after
it, which is how the published RecA training reads (reference "reca_recipe", section 3.2, H1; ``upstream_parity``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.harmon.network import HarmonNetwork
from reca_core.models.unified import Condition

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
BEFORE, AFTER = f"{TURN_START}user\n", f"{TURN_END}\n{TURN_START}assistant\n"
DRAWING, NULL_PROMPT = "Generate an image: {}", "Generate an image."
PICTURE = -1
"""Stands in a row of ids wherever one embedding of a picture goes."""


class Turns:
    """Turns texts into rows of token ids.

    Args:
        tokenizer: the checkpoint's.
        picture_rows: embeddings that stand for one picture.
        upstream_parity: redrawing prompts as the published training and its sampler wrote them.

    Raises:
        CheckpointRefused: the tokenizer lacks a token that structures turns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, picture_rows: int, upstream_parity: bool = False) -> None:
        absent = [token for token in (TURN_START, TURN_END) if token not in tokenizer.get_vocab()]
        if absent:
            raise CheckpointRefused(
                f"the tokenizer has no {' and no '.join(absent)}",
                field="tokenizer",
                remedy="use the tokenizer of the Qwen2.5 model that this Harmon was made from",
            )
        self.tokenizer = tokenizer
        self.upstream_parity = upstream_parity
        self.end = self._ids(TURN_END)[0]
        self._picture = [PICTURE] * picture_rows

    def drawing_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """``user: Generate an image: text`` for each text."""
        return [self._ids(BEFORE + DRAWING.format(self._clean(text)) + AFTER) for text in texts]

    def null_prompt(self) -> list[int]:
        """What guidance compares with: a drawing prompt that names nothing."""
        return self._ids(BEFORE + NULL_PROMPT + AFTER)

    def learning_prompts(self, templates: Sequence[str], dropped: Sequence[bool]) -> list[list[int]]:
        """RecA's condition: picture and instruction. Dropped rows get the null text and keep the picture (1.5)."""
        texts = [NULL_PROMPT if drop else self._clean(text) for text, drop in zip(templates, dropped, strict=True)]
        return [self._shown(f"\n{text}") for text in texts]

    def redrawing_prompts(self, templates: Sequence[str]) -> list[list[int]]:
        """The same at drawing time; the published sampler leaves out the newline after the picture."""
        return [
            self._shown(self._clean(text) if self.upstream_parity else f"\n{self._clean(text)}") for text in templates
        ]

    def question_prompts(self, questions: Sequence[str], with_picture: Sequence[bool]) -> list[list[int]]:
        """``user: [picture] question``; an answer follows."""
        return [
            self._separately(f"\n{self._clean(question)}")
            if picture
            else self._ids(BEFORE + self._clean(question) + AFTER)
            for question, picture in zip(questions, with_picture, strict=True)
        ]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each answer as the model should say it, end of turn included."""
        return [[*self._ids(self._clean(text)), self.end] for text in texts]

    def reply(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without structural tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _shown(self, text: str) -> list[int]:
        """A turn with a picture, the text after it."""
        if not self.upstream_parity:
            return self._separately(text)
        place, row = len(self._ids(BEFORE)), self._ids(BEFORE + text + AFTER)
        return [*row[:place], *self._picture, *row[place:]]

    def _separately(self, text: str) -> list[int]:
        return [*self._ids(BEFORE), *self._picture, *self._ids(text + AFTER)]

    def _clean(self, text: str) -> str:
        """A user's text cannot end its turn."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text.strip()

    def _ids(self, text: str) -> list[int]:
        row: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return row


def embed_rows(
    network: HarmonNetwork,
    rows: Sequence[Sequence[int]],
    seen: Float[Tensor, "pictures und_tokens width"] | None = None,
) -> Condition:
    """Embed rows, padded on the right; places of pictures receive ``seen`` in row order, one picture per row with any.

    On the right, because a sampler reads the prefix without a mask: what stands before padding cannot see it.
    """
    device = network.device
    length = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], device=device)
    attention = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
    embeddings = network.embed(ids.clamp(min=0))
    if seen is not None:
        embeddings = embeddings.masked_scatter((ids == PICTURE)[..., None], seen.to(embeddings.dtype))
    return Condition(embeddings, attention)


def answer_logits(
    network: HarmonNetwork, sequence: Condition, rows: Sequence[int], lengths: Sequence[int]
) -> Float[Tensor, "answer_tokens vocabulary"]:
    """Logits of the last ``lengths[i]`` of the ``rows[i]`` tokens of every sequence, one after another.

    Only these go through the text head: a vocabulary of 150 thousand is most of the memory of this loss.
    """
    padded = not bool(sequence.attention.all())
    states = network.llm.model(
        inputs_embeds=sequence.embeddings, attention_mask=sequence.attention if padded else None, use_cache=False
    ).last_hidden_state
    predicting = [states[i, row - n - 1 : row - 1] for i, (row, n) in enumerate(zip(rows, lengths, strict=True))]
    logits: Tensor = network.llm.lm_head(torch.cat(predicting))
    return logits


def labels(answers: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, " answer_tokens"]:
    """All answers' ids one after another."""
    return torch.tensor([token for answer in answers for token in answer], device=device)
