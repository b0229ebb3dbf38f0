"""A word-level tokenizer with Janus' structural tokens, for tiny models whose whole language is a few hundred words.

It is saved beside the weights; ids are always read back from there. Words are split at spaces and punctuation and
compared in lower case; a word outside the list becomes ``<unk>``.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reca_core.models.janus.chat import BOI_TAG, EOI_TAG, IMAGE_TAG, PAD_TAG, PRO_ROLES

BOS, EOS, UNKNOWN = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<unk>"
STRUCTURAL = (PAD_TAG, BOS, EOS, UNKNOWN, BOI_TAG, EOI_TAG, IMAGE_TAG, *PRO_ROLES)
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
    """One id per structural token, then one per distinct word in sorted order, so that equal lists give equal ids."""
    ordered = [*STRUCTURAL, *sorted({word.lower() for word in words} - set(STRUCTURAL))]
    vocabulary = {word: index for index, word in enumerate(ordered)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in STRUCTURAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD_TAG,
        unk_token=UNKNOWN,
        extra_special_tokens={"boi_token": BOI_TAG, "eoi_token": EOI_TAG, "image_token": IMAGE_TAG},
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
