"""How Janus is spoken to: chat turns rendered by the checkpoint's own template, token ids read from its own tokenizer.

The published checkpoints differ (Janus says "User:", Janus-Pro has special role tokens, and the pad id is another one
in the 1B than in the 7B model), so nothing here is a constant but the names that DeepSeek's processor gives its tokens.
Sequence plans: reference "reca_recipe", sections 1.4 and 4.2 B; system prompt and tags: DeepSeek's processor settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from reca_core.contracts.errors import CheckpointRefused

IMAGE_TAG, BOI_TAG, EOI_TAG = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
PAD_TAG = "<｜▁pad▁｜>"
PRO_ROLES = ("<|User|>", "<|Assistant|>")
ROLES = ("User", "Assistant")
SENTINEL_QUESTION, SENTINEL_ANSWER = "\ue000", "\ue001"
"""Private-use characters that stand for the texts while a template is rendered once."""


@dataclass(frozen=True)
class TokenIds:
    """Ids of the tokens that structure a sequence, as this checkpoint numbers them."""

    pad: int
    bos: int
    eos: int
    boi: int
    eoi: int
    image: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> TokenIds:
        """Read from a tokenizer. Raises CheckpointRefused naming a token that it does not have."""
        vocabulary = tokenizer.get_vocab()
        names = {
            # DeepSeek's tokenizer files call the end of a sentence their pad token; its processor pads with PAD_TAG.
            "pad": PAD_TAG if PAD_TAG in vocabulary else tokenizer.pad_token,
            "bos": tokenizer.bos_token,
            "eos": tokenizer.eos_token,
            "boi": getattr(tokenizer, "boi_token", None) or BOI_TAG,
            "eoi": getattr(tokenizer, "eoi_token", None) or EOI_TAG,
            "image": getattr(tokenizer, "image_token", None) or IMAGE_TAG,
        }
        absent = [f"{role} token {name!r}" for role, name in names.items() if name not in vocabulary]
        if absent:
            raise CheckpointRefused(
                f"the tokenizer has no {', no '.join(absent)}",
                field="tokenizer",
                remedy="use the tokenizer files that were published with these weights",
            )
        return cls(**{role: vocabulary[str(name)] for role, name in names.items()})


def deepseek_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The turns that DeepSeek's processor writes, as a chat template: its own layout has no template file."""
    user, assistant = PRO_ROLES if PRO_ROLES[0] in tokenizer.get_vocab() else ROLES
    return (
        "{% for message in messages %}"
        f"{{{{ '{user}: ' if message.role == 'user' else '{assistant}: ' }}}}"
        "{% for part in message.content %}"
        f"{{{{ '{IMAGE_TAG}\\n' if part.type == 'image' else part.text }}}}"
        "{% endfor %}"
        "{{ '\\n\\n' if message.role == 'user' else eos_token }}"
        "{% endfor %}"
        f"{{{{ '{assistant}:' if add_generation_prompt else '' }}}}"
    )


@dataclass(frozen=True)
class Frame:
    """What stands before and after the user's text in one kind of turn."""

    before: str
    after: str


class ChatFormat:
    """Turns texts into rows of token ids.

    Args:
        tokenizer: the checkpoint's; its ``chat_template`` decides the wording, DeepSeek's turns where it has none.
        image_tokens: how many embeddings stand for one picture.
        system_prompt: said before questions; "" where the checkpoint was not trained with one.

    Raises:
        CheckpointRefused: the template drops the text or the picture, or a structural token is missing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int, system_prompt: str = "") -> None:
        self.tokenizer = tokenizer
        self.image_tokens = image_tokens
        self.system_prompt = system_prompt
        self.template: str = tokenizer.chat_template or deepseek_template(tokenizer)
        self.ids = TokenIds.of(tokenizer)
        tags = tokenizer.convert_ids_to_tokens([self.ids.image, self.ids.boi, self.ids.eoi])
        self._tags: tuple[str, ...] = tuple(tags)
        self._turns = {picture: self._frame(picture) for picture in (False, True)}
        self._answer = self._answer_frame()

    def drawing_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """``BOS user text assistant BOI`` for each text: image tokens follow."""
        return [[*row, self.ids.boi] for row in self._encode(self._turns[False], texts)]

    def redrawing_prompts(self, templates: Sequence[str]) -> list[list[int]]:
        """``BOS user BOI IMAGE*U EOI text assistant BOI``: the RecA condition (arXiv 2509.07295, section 3.2)."""
        return [[*row, self.ids.boi] for row in self._encode(self._turns[True], templates)]

    def question_prompts(self, questions: Sequence[str], with_picture: Sequence[bool]) -> list[list[int]]:
        """``BOS system user [BOI IMAGE*U EOI] question assistant``: an answer follows."""
        frames = {picture: Frame(self.system_prompt + turn.before, turn.after) for picture, turn in self._turns.items()}
        rows = [
            self._encode(frames[picture], [question])[0]
            for question, picture in zip(questions, with_picture, strict=True)
        ]
        return rows

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each answer as the model should say it, end of sentence included."""
        wrapped = [self._answer.before + self._clean(text) + self._answer.after for text in texts]
        return [self._with_eos(row) for row in self._tokenize(wrapped)]

    def reply(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without structural tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _with_eos(self, row: list[int]) -> list[int]:
        return row if row and row[-1] == self.ids.eos else [*row, self.ids.eos]

    def _encode(self, frame: Frame, texts: Sequence[str]) -> list[list[int]]:
        rows = self._tokenize([frame.before + self._clean(text) + frame.after for text in texts])
        return [self._with_bos(self._with_picture(row)) for row in rows]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(texts, add_special_tokens=False).input_ids
        return rows

    def _clean(self, text: str) -> str:
        """A user's text cannot smuggle in a picture or end one."""
        for tag in self._tags:
            text = text.replace(tag, "")
        return text.strip()

    def _with_bos(self, row: list[int]) -> list[int]:
        return row if row and row[0] == self.ids.bos else [self.ids.bos, *row]

    def _with_picture(self, row: list[int]) -> list[int]:
        if self.ids.image not in row:
            return row
        at = row.index(self.ids.image)
        picture = [self.ids.boi, *[self.ids.image] * self.image_tokens, self.ids.eoi]
        return [*row[:at], *picture, *row[at + 1 :]]

    def _frame(self, picture: bool) -> Frame:
        before, found, after = self._render(picture, answered=False).partition(SENTINEL_QUESTION)
        if not found or (self._tags[0] in before + after) != picture:
            raise CheckpointRefused(
                "the chat template loses the question or the picture",
                field="tokenizer.chat_template",
                remedy="use the template published with these weights",
            )
        return Frame(before, after)

    def _answer_frame(self) -> Frame:
        asked, answered = (self._render(False, answered) for answered in (False, True))
        before, found, after = answered.partition(SENTINEL_ANSWER)
        if not found or not before.startswith(asked):
            raise CheckpointRefused(
                "an answered turn does not begin as an open one",
                field="tokenizer.chat_template",
                remedy="use the template published with these weights",
            )
        return Frame(before[len(asked) :], after.rstrip())

    def _render(self, picture: bool, answered: bool) -> str:
        content: list[dict[str, Any]] = [{"type": "image"}] if picture else []
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": SENTINEL_QUESTION}]}]
        if answered:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": SENTINEL_ANSWER}]})
        render: Callable[..., Any] = self.tokenizer.apply_chat_template
        return str(render(messages, chat_template=self.template, tokenize=False, add_generation_prompt=not answered))
