"""Questions and answers as a loss: cross-entropy of the answers' tokens, end of text included.

Only the states that predict an answer go through the text head: a vocabulary of 58 thousand is most of its memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reca_core.models.showo.chat import Wording
from reca_core.models.showo.network import ShowoNetwork
from reca_core.models.showo.sequence import PictureLayout, padded_right, plain_mask
from reca_core.models.unified import Dialogue
from reca_core.objectives import next_token
from reca_core.objectives.loss_sum import LossSum


def picture_loss(
    network: ShowoNetwork,
    wording: Wording,
    layout: PictureLayout,
    dialogues: Sequence[Dialogue],
    seen: Float[Tensor, "dialogues rows width"],
) -> LossSum:
    """Of dialogues about pictures; ``seen`` has one picture per dialogue."""
    questions, answers = _ids(wording, dialogues)
    rows = layout.questions([[*question, *answer] for question, answer in zip(questions, answers, strict=True)])
    allowed = layout.question_mask(len(rows), max(len(row) for row in rows))
    return _answer_loss(network, wording, rows, answers, allowed, seen)


def text_loss(network: ShowoNetwork, wording: Wording, dialogues: Sequence[Dialogue]) -> LossSum:
    """Of dialogues without a picture: ``bos question answer``, causal."""
    questions, answers = _ids(wording, dialogues)
    rows = [[wording.special.bos, *question, *answer] for question, answer in zip(questions, answers, strict=True)]
    return _answer_loss(network, wording, rows, answers, plain_mask(len(rows), max(len(row) for row in rows)))


def _ids(wording: Wording, dialogues: Sequence[Dialogue]) -> tuple[list[list[int]], list[list[int]]]:
    questions = wording.questions([dialogue.question for dialogue in dialogues])
    return questions, wording.answers([dialogue.answer for dialogue in dialogues])


def _answer_loss(
    network: ShowoNetwork,
    wording: Wording,
    rows: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    allowed: Bool[Tensor, "dialogues 1 length length"],
    seen: Tensor | None = None,
) -> LossSum:
    ids = padded_right(rows, allowed.shape[-1], wording.special.pad).to(network.device)
    states = network.states(network.embed(ids, seen), allowed.to(network.device))
    ends = [(len(row) - len(answer), len(row)) for row, answer in zip(rows, answers, strict=True)]
    predicting = torch.cat([states[index, first - 1 : last - 1] for index, (first, last) in enumerate(ends)])
    labels = torch.tensor([token for answer in answers for token in answer], device=network.device)
    return next_token.cross_entropy(network.logits(predicting), labels)
