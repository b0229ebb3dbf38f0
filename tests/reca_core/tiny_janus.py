"""A Janus with random weights at the smallest size that has every part, in memory or as a checkpoint directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reca_core.models.janus.adapter import Janus
from reca_core.models.janus.smallest import TEMPLATES, WORDS, smallest_configuration
from reca_core.models.janus.word_tokenizer import word_tokenizer


def tiny_janus(
    seed: int = 0, *, words: Sequence[str] = WORDS, templates: Sequence[str] = TEMPLATES, tied: bool = True
) -> Janus:
    """The adapter in memory."""
    tokenizer = word_tokenizer(words)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Janus.from_configuration(smallest_configuration(len(tokenizer), tied=tied), tokenizer, templates)


def save_tiny_janus(
    directory: Path, seed: int = 0, *, words: Sequence[str] = WORDS, templates: Sequence[str] = TEMPLATES
) -> Path:
    """The same as a checkpoint directory; returns ``directory``."""
    tiny_janus(seed, words=words, templates=templates).save(directory)
    return directory


def tiny_pictures(count: int, *, side: int = 16, seed: int = 0) -> list[Image.Image]:
    """Pictures of random colour blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(block).resize((side, side), Image.Resampling.NEAREST) for block in blocks]
