"""Frozen features in a training: what a frozen encoder says of a picture is computed once and reused (docs/data.md).

A pass whose pictures are all known reads them; any other is computed whole, as without a cache, so what is kept is what
an uncached pass of these pictures computes. What was known of some of them is used all the same: a feature stays what
it was when it was kept, whoever is killed in between. Whether it is worth it decides ``training.feature_choice``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reca_core.data.feature_store import FeatureStore
from reca_core.models.unified import FrozenPart, FrozenParts, Images, Target, Value

log = logging.getLogger(__name__)

UNDERSTANDING, TARGET = "understanding", "target"


@dataclass(frozen=True)
class Known:
    """The pictures of a pass by their SHA-256, and the features that were found when the pass was made ready.

    ``rows`` hold a part's features, on the CPU, where all pictures of the pass were known.
    """

    pictures: tuple[str, ...]
    rows: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)


NOTHING_KNOWN = Known(())


class Features:
    """The features that one training reuses.

    Args:
        parts: the family's.
        stores: of the parts that are kept, by name; the others are always computed.
        needed: names of the parts that the training's terms read.
        device: where they are used.
        meet: returns when every rank is here.
        everywhere: whether something is true on all ranks; given where computing takes all of them (sharded
            parameters), so that their passes read or compute alike.
        epoch: pictures of the data set.
    """

    def __init__(
        self,
        parts: FrozenParts,
        stores: Mapping[str, FeatureStore],
        needed: Sequence[str],
        device: torch.device,
        *,
        meet: Callable[[], None],
        everywhere: Callable[[bool], bool] | None,
        epoch: int,
    ) -> None:
        self.parts, self.stores, self.needed = parts, dict(stores), tuple(needed)
        self.device, self.meet, self.everywhere, self.epoch = device, meet, everywhere, epoch
        self.computed = self.reused = 0
        """Features of pictures that were computed and kept, and that were read."""
        self._position = 0

    def look_up(self, pictures: Sequence[str]) -> Known:
        """What is known of these pictures. From any thread."""
        found = {name: store.read(pictures) for name, store in self.stores.items()}
        return Known(tuple(pictures), {name: rows for name, rows in found.items() if rows is not None})

    def suffice(self, known: Known) -> bool:
        """Whether the pass needs no pixels. Where ranks compute together, another one may be missing something."""
        return self.everywhere is None and all(name in known.rows for name in self.needed)

    def target(self, known: Known, images: Images | None) -> Target:
        """What ``encode_target`` returns for these pictures."""
        return self._value(TARGET, self.parts.target, known, images)

    def understanding(self, known: Known, images: Images | None) -> Tensor:
        """What ``understand`` returns for these pictures."""
        return self._value(UNDERSTANDING, self.parts.understanding, known, images)

    def _value(self, name: str, part: FrozenPart[Value], known: Known, images: Images | None) -> Value:
        rows = known.rows.get(name) or self.stores[name].read(known.pictures)
        if self.everywhere is not None and not self.everywhere(rows is not None):
            rows = None
        if rows is not None:
            self.reused += len(rows)
            return part.finish([row.to(self.device) for row in rows])
        assert images is not None  # the builder leaves them out only where everything is known
        kept = [self.stores[name].read([picture]) for picture in known.pictures]
        computed = part.encode(images)
        self.computed += self.stores[name].keep(known.pictures, computed)
        return part.finish([old[0].to(self.device) if old else new for old, new in zip(kept, computed, strict=True)])

    def passed(self, position: int) -> None:
        """The stream has come to ``position``. After every epoch the ranks show each other what they computed."""
        before, self._position = self._position, position
        if before // self.epoch == position // self.epoch:
            return
        self.write()
        self.meet()
        for store in self.stores.values():
            store.look()

    def write(self) -> None:
        """Put what is in memory on the disk. Before a checkpoint, so that an attempt that goes on from it knows as much
        as this one: computed again in a pass of another size, a feature can have other last bits.
        """
        for store in self.stores.values():
            store.write()

    def close(self) -> None:
        """Write what is in memory."""
        for store in self.stores.values():
            store.close()
        log.info("frozen features: %d computed and kept, %d reused", self.computed, self.reused)
