"""How Show-o is spoken to: plain words around the user's text, ids from the checkpoint's own tokenizer.

    drawing     the caption as it is
    redrawing   USER: \\n {instruction} ASSISTANT:
    question    USER: {question} ASSISTANT: {answer}      in the VQ variant with a line break before the question

Wording: reference "reca_recipe", section 1.4, and the turns that the published checkpoints were tuned with
(LLaVA's for Phi). What stands around the ids of a text is in sequence.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models.showo.sequence import SpecialIds

REDRAWING, QUESTION, VQ_QUESTION = "USER: \n {} ASSISTANT:", "USER: {} ASSISTANT:", "USER: \n{} ASSISTANT:"
SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""What the published CLIP checkpoints were tuned to hear before a question: it belongs to the weights."""


class Wording:
    """Turns texts into ids.

    Args:
        tokenizer: the checkpoint's.
        text_vocabulary: how many ids are text; special tokens and image codes follow.
        vocabulary: of the language model, image codes and mask included.
        question: how a question is worded, with ``{}`` in place of it.

    Raises:
        CheckpointRefused: the tokenizer is not that of this vocabulary.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text_vocabulary: int, vocabulary: int, question: str
    ) -> None:
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if len(tokenizer) != text_vocabulary or bos is None or eos is None:
            raise CheckpointRefused(
                f"it has {len(tokenizer)} ids, {tokenizer.bos_token!r} begins and {tokenizer.eos_token!r} ends a text; "
                f"the model counts its image tokens from {text_vocabulary}",
                field="tokenizer",
                remedy="use the tokenizer of the language model that this Show-o was made from",
            )
        self.tokenizer = tokenizer
        self.special = SpecialIds.from_sizes(text_vocabulary, vocabulary, bos, eos)
        self._question = question

    def captions(self, texts: Sequence[str]) -> list[list[int]]:
        """Of drawing prompts."""
        return [self.ids(self._clean(text)) for text in texts]

    def instructions(self, templates: Sequence[str]) -> list[list[int]]:
        """Of RecA's instructions."""
        return [self.ids(REDRAWING.format(self._clean(text))) for text in templates]

    def questions(self, texts: Sequence[str]) -> list[list[int]]:
        """An answer follows."""
        return [self.ids(self._question.format(self._clean(text))) for text in texts]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """As the model should say them, end included."""
        return [[*self.ids(f" {self._clean(text)}"), self.special.eos] for text in texts]

    def reply(self, ids: Sequence[int]) -> str:
        """Text of generated ids. A special token or image code among them has no words."""
        known = [token for token in ids if token < self.special.pad]
        return str(self.tokenizer.decode(known, skip_special_tokens=True)).strip()

    def ids(self, text: str) -> list[int]:
        """Of a text as it stands."""
        row: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return row

    def _clean(self, text: str) -> str:
        """A user's text cannot end its turn."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text.strip()
