"""Which pixels belong to an object: kept small between the question for objects and the one for their colours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool

from evaluation.records import Box, Finding

PICTURES_REMEMBERED = 2048
SAME_BOX_PIXELS = 4.0
"""How far a corner may move between two passes over the same picture: other batches round otherwise."""


@dataclass(frozen=True)
class PackedMask:
    """A mask cut to its box, one bit per pixel."""

    bits: np.ndarray
    top: int
    left: int
    rows: int
    columns: int
    size: tuple[int, int]
    """Height and width of the picture."""

    @classmethod
    def pack(cls, mask: Bool[np.ndarray, "height width"], box: Box) -> PackedMask:
        """From a whole mask and its tight box."""
        left, top, right, bottom = (int(corner) for corner in box)
        part = mask[top:bottom, left:right]
        return cls(np.packbits(part), top, left, part.shape[0], part.shape[1], (mask.shape[0], mask.shape[1]))

    def unpack(self) -> Bool[np.ndarray, "height width"]:
        """The whole mask."""
        mask = np.zeros(self.size, dtype=bool)
        part = np.unpackbits(self.bits, count=self.rows * self.columns).reshape(self.rows, self.columns)
        mask[self.top : self.top + self.rows, self.left : self.left + self.columns] = part.astype(bool)
        return mask


@dataclass(frozen=True)
class Detection:
    """One object that a detector found."""

    index: int
    """COCO class, 0 to 79."""
    box: Box
    score: float
    mask: PackedMask | None = None


class Detector(Protocol):
    """What finds objects. Results must not depend on what else is in the batch."""

    def detect(self, pictures: Sequence[np.ndarray], wanted: Sequence[frozenset[int]]) -> list[list[Detection]]:
        """Objects of the wanted classes in each picture (uint8, [height, width, 3], RGB)."""
        ...


class MaskMemory:
    """What was found in the pictures looked at last."""

    def __init__(self, pictures: int = PICTURES_REMEMBERED) -> None:
        self._limit = pictures
        self._known: OrderedDict[Path, list[Detection]] = OrderedDict()

    def remember(self, picture: Path, found: Sequence[Detection]) -> None:
        """Add what was found in a picture; the longest untouched one is forgotten."""
        self._known[picture] = [*self._known.pop(picture, []), *found]
        while len(self._known) > self._limit:
            self._known.popitem(last=False)

    def find(self, picture: Path, index: int, finding: Finding) -> Detection | None:
        """The detection that a finding was made from; None where it is not remembered."""
        same = [item for item in self._known.get(picture, []) if item.index == index]
        best = min(same, key=lambda item: _distance(item, finding), default=None)
        return best if best is not None and _corner(best, finding) <= SAME_BOX_PIXELS else None


def _corner(item: Detection, finding: Finding) -> float:
    return max(abs(a - b) for a, b in zip(item.box, finding.box, strict=True))


def _distance(item: Detection, finding: Finding) -> float:
    return _corner(item, finding) + abs(item.score - finding.score)
