"""How OpenUni is spoken to: Qwen's chat turns as InternVL writes them, without a system turn.

    <|im_start|>user\\n[<img>PICTURE</img>\\n]{text}<|im_end|>\\n<|im_start|>assistant\\n

and then an answer, or ``<img>`` and the learned queries that ask what to draw. Wording: reference "reca_recipe",
sections 1.4 and 1.8.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from reca_core.contracts.errors import CheckpointRefused

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END, IMAGE = "<img>", "</img>", "<IMG_CONTEXT>"
STRUCTURAL = (TURN_START, TURN_END, IMAGE_START, IMAGE_END, IMAGE)
BEFORE, AFTER = f"{TURN_START}user\n", f"{TURN_END}\n{TURN_START}assistant\n"
DRAWING, NULL_PROMPT = "Generate an image: {}", "Generate an image."


class Turns:
    """Turns texts into rows of token ids.

    Args:
        tokenizer: the checkpoint's.
        picture_tokens: embeddings that stand for one picture.

    Raises:
        CheckpointRefused: the tokenizer lacks a token that structures turns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, picture_tokens: int) -> None:
        vocabulary = tokenizer.get_vocab()
        absent = [token for token in STRUCTURAL if token not in vocabulary]
        if absent:
            raise CheckpointRefused(
                f"the tokenizer has no {' and no '.join(absent)}",
                field="tokenizer",
                remedy="use the tokenizer of the InternVL3 model that this OpenUni was made from",
            )
        self.tokenizer = tokenizer
        self.end: int = vocabulary[TURN_END]
        self.image: int = vocabulary[IMAGE]
        self._picture = f"{IMAGE_START}{IMAGE * picture_tokens}{IMAGE_END}\n"

    def drawing_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """``user: Generate an image: text``; queries follow."""
        return [self._asked(DRAWING.format(self._clean(text))) for text in texts]

    def null_prompt(self) -> list[int]:
        """What guidance compares with: a drawing prompt that names nothing."""
        return self._asked(NULL_PROMPT)

    def redrawing_prompts(self, templates: Sequence[str], dropped: Sequence[bool]) -> list[list[int]]:
        """RecA's condition: picture and instruction; dropped rows keep the picture and name nothing."""
        texts = [NULL_PROMPT if drop else self._clean(text) for text, drop in zip(templates, dropped, strict=True)]
        return [self._asked(self._picture + text) for text in texts]

    def question_prompts(self, questions: Sequence[str], with_picture: Sequence[bool]) -> list[list[int]]:
        """``user: [picture] question``; an answer follows."""
        return [
            self._ids(BEFORE + (self._picture if picture else "") + self._clean(question) + AFTER)
            for question, picture in zip(questions, with_picture, strict=True)
        ]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each answer as the model should say it, end of turn included."""
        return [[*self._ids(self._clean(text)), self.end] for text in texts]

    def reply(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without structural tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _asked(self, text: str) -> list[int]:
        return self._ids(BEFORE + text + AFTER + IMAGE_START)

    def _clean(self, text: str) -> str:
        """A user's text cannot end its turn or show a picture."""
        for token in (*STRUCTURAL, *self.tokenizer.all_special_tokens):
            text = text.replace(token, "")
        return text.strip()

    def _ids(self, text: str) -> list[int]:
        row: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return row
