"""The word-level tokenizer of a tiny Janus: Janus' structural tokens, and turns worded for a word-level vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from reca_core.models import word_tokenizer as shared
from reca_core.models.janus.chat import BOI_TAG, EOI_TAG, IMAGE_TAG, PAD_TAG, PRO_ROLES

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
STRUCTURAL = (PAD_TAG, BOS, EOS, shared.UNKNOWN, BOI_TAG, EOI_TAG, IMAGE_TAG, *PRO_ROLES)
ROLES = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD_TAG}
PICTURE_ROLES = {"boi_token": BOI_TAG, "eoi_token": EOI_TAG, "image_token": IMAGE_TAG}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    f"{{{{ '{PRO_ROLES[0]}' if message.role == 'user' else '{PRO_ROLES[1]}' }}}}"
    "{% for part in message.content %}"
    f"{{{{ '{IMAGE_TAG}' if part.type == 'image' else part.text }}}}"
    "{% endfor %}"
    "{{ eos_token if message.role == 'assistant' else '' }}"
    "{% endfor %}"
    f"{{{{ '{PRO_ROLES[1]}' if add_generation_prompt else '' }}}}"
)
"""Janus-Pro's turn, without the colons and blank lines that would be tokens of their own here."""


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Knows ``words`` (compared in lower case) and everything that structures a Janus sequence."""
    tokenizer = shared.word_tokenizer(words, STRUCTURAL, ROLES, PICTURE_ROLES)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
