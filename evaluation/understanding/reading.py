"""From a model's words to what it answered: yes or no, or the letter of an option.

Every published script has a reading of its own, and each has its oddities; they are repeated here for parity. Corrected
numbers use one strict reading for all: a reply that says neither is ``other`` and counts as wrong, because the model
was asked and did not answer. That is not an unscored reply: nothing was lost on the way.

Sources, read for their rules: AoiDragon/POPE @ f3ec604 evaluate.py; the MME tool's calculation.py, as circulated with
BradyFU/Awesome-Multimodal-Large-Language-Models; OpenGVLab/InternVL @ 0355722 eval/mmvp/evaluate_mmvp.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from reca_core.contracts.world import NO, YES

OTHER = "other"
POPE_NEGATIONS = ("No", "not", "no")
MME_PREFIX = 4
"""Characters of a longer reply that the MME tool looks at."""
_WORD = re.compile(r"[a-z']+")
_SENTENCE_END = re.compile(r"[.!?\n]")
_LETTER = re.compile(r"\(?([A-Za-z])(?:[).:,]|\Z)")
"""A letter on its own: ``B``, ``(b)``, ``B.``, ``B: closed``; not the article of ``a bird``."""


def pope_reading(reply: str) -> str:
    """POPE's own: ``no`` if the first sentence has one of three words, split at blanks; anything else is ``yes``."""
    words = reply.split(".")[0].replace(",", "").split(" ")
    return NO if any(word in words for word in POPE_NEGATIONS) else YES


def mme_reading(reply: str) -> str:
    """MME's own: the whole reply, or else its first four characters, searched for ``yes`` and then for ``no``."""
    text = reply.lower()
    if text in (YES, NO):
        return text
    prefix = text[:MME_PREFIX]
    return YES if YES in prefix else NO if NO in prefix else OTHER


def strict_yes_no(reply: str) -> str:
    """Its first word if that is yes or no; else what its first sentence says, if it says one of them and not both."""
    text = reply.strip().lower()
    words = _WORD.findall(_SENTENCE_END.split(text)[0])
    if words and words[0] in (YES, NO):
        return words[0]
    agrees, denies = YES in words, NO in words or "not" in words
    if agrees == denies:
        return OTHER
    return YES if agrees else NO


def internvl_choice(reply: str, options: Mapping[str, str]) -> str:
    """InternVL's: a single character; else the first character if it is an option's letter, also that of ``A bird``;
    else the first option whose text occurs in the reply; else the reply itself.

    Args:
        options: letter -> text.
    """
    text = reply.strip()
    if len(text) == 1:
        return text
    if text[:1] in options:
        return text[0]
    return next((letter for letter, option in options.items() if option in text), text)


def strict_choice(reply: str, options: Mapping[str, str]) -> str:
    """The letter that stands alone at the beginning, in any case; else the one option whose words the reply has."""
    text = reply.strip()
    match = _LETTER.match(text)
    if match and match[1].upper() in options:
        return match[1].upper()
    said = [letter for letter, option in options.items() if _says(text, option)]
    return said[0] if len(said) == 1 else OTHER


def _says(text: str, option: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(option.strip().lower())}(?!\w)", text.lower()) is not None
