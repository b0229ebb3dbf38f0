"""Captions that give a benchmark's prompts away, so that fine-tuning is not measured on what it was taught.

Public fine-tuning sets hold such captions: about ten thousand in the template of GenEval's prompts are reported for one
of them (docs/data.md). Two rules:

- ``prompts``: a caption is a benchmark's prompt, or contains one word by word;
- ``templates``: besides, it opens with the first words that all prompts of a benchmark share ("a photo of") and uses no
  word that the benchmark does not use: the same template with other objects.

Words are compared without case, accents' composition, punctuation and characters that show nothing, such as soft
hyphens. Prompts of fewer than ``FEWEST_WORDS`` words must be the whole caption: "a dog" is in every other sentence.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FEWEST_WORDS = 4
"""Shortest prompt that is looked for inside longer captions."""
FEWEST_OPENING_WORDS = 2
"""Shortest opening that makes a template."""

INVISIBLE = "Cf"
"""Unicode's category of characters that show nothing: soft hyphens, joiners, marks of direction."""

Words = tuple[str, ...]


def words(text: str) -> Words:
    """Lower-case words without punctuation, in Unicode's compatibility composition."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return tuple("".join(letter if letter.isalnum() else _between(letter) for letter in folded).split())


def _between(letter: str) -> str:
    """What a character that is no letter leaves of itself: the end of a word, or nothing."""
    return "" if unicodedata.category(letter) == INVISIBLE else " "


@dataclass(frozen=True)
class Template:
    """What the prompts of one benchmark have in common."""

    opening: Words
    vocabulary: frozenset[str]

    def fits(self, caption: Words) -> bool:
        """True for a caption that could be a prompt of the benchmark."""
        return caption[: len(self.opening)] == self.opening and self.vocabulary.issuperset(caption)


class Leaks:
    """Decides which captions are left out.

    Args:
        prompts: benchmark -> its prompts.
        templates: apply the second rule too.
    """

    def __init__(self, prompts: Mapping[str, Iterable[str]], templates: bool) -> None:
        split = {name: {words(text) for text in texts} - {()} for name, texts in prompts.items()}
        self._whole = frozenset().union(*split.values())
        self._lengths = sorted({len(prompt) for prompt in self._whole if len(prompt) >= FEWEST_WORDS})
        found = [template(texts) for texts in split.values()] if templates else []
        self._templates = [one for one in found if one]

    @classmethod
    def read(cls, file: Path, templates: bool) -> Leaks:
        """From a JSON file ``{benchmark: [prompt, ...]}``."""
        return cls(json.loads(file.read_text(encoding="utf-8")), templates)

    def holds(self, caption: str) -> bool:
        """True if a benchmark asks for this."""
        given = words(caption)
        if given in self._whole or any(one.fits(given) for one in self._templates):
            return True
        return any(
            given[first : first + length] in self._whole
            for length in self._lengths
            for first in range(len(given) - length + 1)
        )


def template(prompts: Iterable[Words]) -> Template | None:
    """What all prompts share, or None where their openings differ."""
    texts = list(prompts)
    if not texts:
        return None
    low, high = min(texts), max(texts)  # of sorted sequences the first and the last share what all share
    shared = next((place for place, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))
    if shared < FEWEST_OPENING_WORDS or len(texts) == 1:
        return None
    return Template(low[:shared], frozenset(word for text in texts for word in text))
