"""The benchmarks' prompts that fine-tuning captions are held against (reca_core/data/leaks.py has the rules).

The trainer knows no benchmark, so it is given their prompts in a file, whose hash is part of the training's identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluation.registry import prompt_texts
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.hashing import HASH_LENGTH, canonical_json, sha256_text
from reca_core.contracts.home import Home
from reca_core.contracts.requests import CaptionSource, LossTerms

RENDERED_CAPTIONS = "shapeworld"
FOLDER = "leaks"
DRAWN_FROM_TEXT = ("geneval", "dpg")
"""Benchmarks whose prompts are captions; those of the others tell what to change."""


@dataclass(frozen=True)
class LeakFile:
    """Prompts to hold captions against, and where the trainer reads them; both empty where nothing is filtered."""

    text: str = ""
    path: str = ""

    @property
    def sha256(self) -> str:
        """Of the text; empty for none."""
        return sha256_text(self.text) if self.text else ""

    def write(self) -> None:
        """Put the file in place, if it is not there."""
        if self.text and not Path(self.path).is_file():
            atomic_write_text(Path(self.path), self.text)


def leak_file(home: Home, captions: CaptionSource, losses: LossTerms, data: Path | None) -> LeakFile:
    """What the captions of a fine-tuning are held against. The rendered world keeps its own apart (docs/shapeworld.md).

    Raises PrerequisiteMissing where the benchmarks' files are not here.
    """
    filters = captions.leak_filter != "off" and captions.source != RENDERED_CAPTIONS and losses.text_to_image > 0
    if not filters:
        return LeakFile()
    text = canonical_json({name: _prompts(name, data) for name in DRAWN_FROM_TEXT})
    return LeakFile(text, str(home.cache / FOLDER / f"{sha256_text(text)[:HASH_LENGTH]}.json"))


def _prompts(benchmark: str, data: Path | None) -> list[str]:
    try:
        return sorted(set(prompt_texts(benchmark, data)))
    except PrerequisiteMissing as error:
        raise PrerequisiteMissing(
            f"the prompts of {benchmark}, which fine-tuning captions are held against, are not here: {error.fact}",
            field="captions.leak_filter",
            remedy=f"reca fetch {benchmark} --no-pictures, or --set captions.leak_filter=off",
        ) from error
