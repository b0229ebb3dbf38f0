"""One share of a sampling or a judging, so that several processes can work on it; where results are never decides them.

Every ``count``-th item is in a share. A share works in a directory of its own, leaves out what the whole has already,
and ends without a conclusion: whoever shared the work out gathers the shares and lets the ordinary child conclude.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import Field

from reca_core.contracts.base import Config

Item = TypeVar("Item")


class Share(Config):
    """Which part of the work this process does."""

    index: int = Field(0, ge=0)
    """From 0."""
    count: int = Field(1, ge=1)
    """Shares in all; 1 is everything."""
    whole: str = ""
    """Absolute output directory of the whole; empty where this is the whole."""

    @property
    def is_part(self) -> bool:
        """True where somebody else concludes."""
        return bool(self.whole)

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items of this share, in their order."""
        return list(items[self.index :: self.count])
