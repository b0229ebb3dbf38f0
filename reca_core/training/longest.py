"""The longest texts of a training: what its estimate measures a pass with (needs.py).

A run has its peak of memory where its texts are longest, not at its first batch or its average one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reca_core.contracts.requests import LossTerms
from reca_core.data.captions import Captions
from reca_core.models.unified import Dialogue
from reca_core.training.batch import Batch

TEXTS = 64
"""Captions and questions that are looked at."""


@dataclass(frozen=True)
class LongestTexts:
    """In characters, of all templates and of the first ``TEXTS`` captions and questions of the stream."""

    template: str
    caption: str = ""
    asked: tuple[str, str] = ("", "")
    told: tuple[str, str] = ("", "")
    """Question and answer."""

    @classmethod
    def of(cls, templates: Sequence[str], losses: LossTerms, captions: Captions | None) -> LongestTexts:
        """Raises what reading the captions raises."""
        found: dict[str, Any] = {"template": max(templates, key=len)}
        if captions is not None and losses.text_to_image > 0:
            found["caption"] = max((captions.drawn(n).caption for n in range(TEXTS)), key=len)
        for name, wanted in (("asked", losses.image_to_text), ("told", losses.text)):
            if captions is not None and wanted > 0:
                samples = map(getattr(captions, name), range(TEXTS))
                pairs = ((sample.question, sample.answer) for sample in samples)
                found[name] = max(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
        return cls(**found)

    def put_into(self, batch: Batch) -> Batch:
        """The same pictures with the longest texts, none of which is dropped."""
        return replace(
            batch,
            templates=(self.template,) * len(batch.templates),
            drop_template=_none_of(batch.drop_template),
            dialogues=tuple(Dialogue(*self.asked, one.picture) for one in batch.dialogues),
            captions=(self.caption,) * len(batch.captions),
            drop_caption=_none_of(batch.drop_caption),
            told=(Dialogue(*self.told),) * len(batch.told),
        )


def _none_of(dropped: Tensor | None) -> Tensor | None:
    return None if dropped is None else torch.zeros_like(dropped)
