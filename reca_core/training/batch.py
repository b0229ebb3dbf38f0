"""What one forward pass is given: the samples of a share of the stream, ready for the adapter.

A batch is made in a thread ahead of time from the positions of its samples alone (``reca_core.data.feed``), on the CPU.
Only the parts that an active loss term reads are filled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from reca_core.contracts.requests import LossTerms, TrainingPlan
from reca_core.contracts.stages import AUTOENCODER_STAGES
from reca_core.data.captions import KINDS, Captions
from reca_core.data.feed import Order, Pictures, Share, keyed_choice, keyed_fraction
from reca_core.models.unified import Dialogue, Images, UnifiedModel
from reca_core.training.features import NOTHING_KNOWN, Features, Known

DROP_TEMPLATE, DROP_CAPTION = "drop_template", "drop_caption"


@dataclass(frozen=True)
class Batch:
    """Samples of one pass, in the order of ``positions``.

    ``pictures`` with ``templates`` feed the reconstruction and unconditional terms (``pictures`` the tokenizer stage,
    too), ``asked`` with ``dialogues`` image-to-text, ``drawn`` with ``captions`` text-to-image, ``told`` text.
    ``weight`` is 0 for a pass run for nothing.
    """

    positions: tuple[int, ...]
    weight: float = 1.0
    pictures: Images | None = None
    templates: tuple[str, ...] = ()
    drop_template: Bool[Tensor, " batch"] | None = None
    asked: Images | None = None
    dialogues: tuple[Dialogue, ...] = ()
    drawn: Images | None = None
    captions: tuple[str, ...] = ()
    drop_caption: Bool[Tensor, " batch"] | None = None
    told: tuple[Dialogue, ...] = ()
    known: Known = NOTHING_KNOWN
    """What is kept of ``pictures``, which are None where that is all that is needed."""

    def to(self, device: torch.device) -> Batch:
        """The same batch with its pictures on ``device``."""
        return self._with_images(lambda images: images.to(device))

    def pinned(self) -> Batch:
        """The same batch with its pictures in pinned memory: ``to`` a CUDA device then keeps nobody waiting."""
        return self._with_images(Images.pinned)

    def _with_images(self, moved: Callable[[Images], Images]) -> Batch:
        held = {name: getattr(self, name) for name in ("pictures", "asked", "drawn")}
        changed: dict[str, Any] = {name: moved(images) for name, images in held.items() if images is not None}
        return replace(self, **changed)


class BatchBuilder:
    """Makes the batch of a share. Called from several threads at once; holds no state that calls change."""

    def __init__(
        self,
        plan: TrainingPlan,
        losses: LossTerms,
        pictures: Pictures,
        captions: Captions | None,
        adapter: UnifiedModel,
    ) -> None:
        """``captions`` is None where no term needs them; only the adapter's transforms and templates are used."""
        self.plan, self.losses = plan, losses
        self.pictures, self.captions = pictures, captions
        self.templates, self.prepare = adapter.templates, adapter.prepare
        self.order = Order(len(pictures.rows), plan.seed, "images")
        self.features: Features | None = None
        """Reused instead of pictures, once they are set; before the first batch."""

    def __call__(self, share: Share) -> Batch:
        """Raises what decoding raises, naming the file."""
        parts: dict[str, object] = {}
        redrawn = self.losses.reconstruction > 0 or self.losses.unconditional > 0
        if self.plan.stage in AUTOENCODER_STAGES or redrawn:
            parts |= self._reconstruction(share.positions)
        if self.plan.stage not in AUTOENCODER_STAGES and self.captions is not None:
            parts |= self._replay(share.positions, self.captions)
        return replace(Batch(share.positions, share.weight), **parts)  # type: ignore[arg-type]

    def origin(self, position: int, term: str) -> str:
        """What a term of the sample at a position was made of: what a message about a bad batch names."""
        if self.captions is not None and term in KINDS:
            return f"{term} of {self.captions.origin(term, position)}"
        return str(self.pictures.rows[self.order.row(position)].file)

    def _reconstruction(self, positions: Sequence[int]) -> dict[str, object]:
        seed, rows = self.plan.seed, [self.order.row(position) for position in positions]
        known = self._known(rows)
        done = self.features is not None and self.features.suffice(known)
        return {
            "known": known,
            "pictures": None if done else self.pictures.images(rows),
            "templates": tuple(keyed_choice(self.templates, seed, "template", position) for position in positions),
            "drop_template": self._dropped(DROP_TEMPLATE, positions),
        }

    def _known(self, rows: Sequence[int]) -> Known:
        if self.features is None:
            return NOTHING_KNOWN
        return self.features.look_up([self.pictures.rows[row].sha256 for row in rows])

    def _replay(self, positions: Sequence[int], captions: Captions) -> dict[str, object]:
        parts: dict[str, object] = {}
        if self.losses.image_to_text > 0:
            asked = [captions.asked(position) for position in positions]
            parts["asked"] = self.prepare([sample.picture for sample in asked], whole=True)
            parts["dialogues"] = tuple(Dialogue(one.question, one.answer, row) for row, one in enumerate(asked))
        if self.losses.text_to_image > 0:
            drawn = [captions.drawn(position) for position in positions]
            parts["drawn"] = self.prepare([sample.picture for sample in drawn])
            parts["captions"] = tuple(sample.caption for sample in drawn)
            parts["drop_caption"] = self._dropped(DROP_CAPTION, positions)
        if self.losses.text > 0:
            told = [captions.told(position) for position in positions]
            parts["told"] = tuple(Dialogue(sample.question, sample.answer) for sample in told)
        return parts

    def _dropped(self, name: str, positions: Sequence[int]) -> Bool[Tensor, " batch"]:
        seed, rate = self.plan.seed, self.plan.drop_text
        return torch.tensor([keyed_fraction(seed, name, position) < rate for position in positions])


def needs_captions(plan: TrainingPlan, losses: LossTerms) -> bool:
    """True if an active term of this stage reads the caption source."""
    replays = losses.image_to_text > 0 or losses.text_to_image > 0 or losses.text > 0
    return plan.stage not in AUTOENCODER_STAGES and replays
