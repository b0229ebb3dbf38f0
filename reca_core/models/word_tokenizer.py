"""A word-level tokenizer for tiny models whose whole language is a few hundred words, with a family's special tokens.

It is saved beside the weights; ids are always read back from there. Words are split at spaces and punctuation and
compared in lower case; a word outside the list becomes ``<unk>``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

UNKNOWN = "<unk>"


def word_tokenizer(
    words: Sequence[str],
    structural: Sequence[str],
    roles: Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
) -> PreTrainedTokenizerFast:
    """One id per structural token, then one per distinct word in sorted order, so that equal lists give equal ids.

    Args:
        words: compared in lower case.
        structural: tokens that no text can contain; ``<unk>`` is added where it is not among them.
        roles: of transformers' own names, such as ``{"bos_token": "<s>"}``.
        extra: further roles under names of the family's own; without them all structural tokens are plain special ones.
    """
    roles = roles or {}
    special = structural if UNKNOWN in structural else (*structural, UNKNOWN)
    ordered = [*special, *sorted({word.lower() for word in words} - set(special))]
    vocabulary = {word: index for index, word in enumerate(ordered)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    plain = [token for token in structural if token not in {*roles.values(), UNKNOWN}]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        extra_special_tokens=dict(extra) if extra else plain,
        padding_side="left",
        **roles,
    )
