"""Sizes that a file of weights does not say, read off its tensors.

Vectors are asked and counts of numbers, never the axis of a matrix: a transposed one must not change a size, so that
the comparison can name it. Many vectors of a network have one length; the length that most of them have counts, so that
a vector that is damaged, renamed or absent is reported like any other tensor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

from reca_core.models.published import SizesUnknown


class Shapes:
    """The shapes of some named tensors.

    Args:
        state: the tensors.
        field: what an error calls the file they are from.
        prefix: of the names that count; it is left out in patterns.
    """

    def __init__(self, state: Mapping[str, Tensor], field: str, prefix: str = "") -> None:
        self.field, self.prefix = field, prefix
        self.shapes = {n.removeprefix(prefix): tuple(t.shape) for n, t in state.items() if n.startswith(prefix)}
        self.numbers = {n.removeprefix(prefix): t.numel() for n, t in state.items() if n.startswith(prefix)}

    def length(self, example: str, pattern: str = "") -> int:
        """Of most vectors that have the name ``example`` or one that fits ``pattern``, whole.

        Raises SizesUnknown naming ``example`` if there is none.
        """
        fits = re.compile(pattern or re.escape(example))
        return self.most(
            example,
            (
                shape[0]
                for name, shape in self.shapes.items()
                if len(shape) == 1 and (name == example or fits.fullmatch(name))
            ),
        )

    def most(self, example: str, found: Iterable[int | None]) -> int:
        """The value that is found most often, of equally many the largest; None and 0 say nothing.

        Raises SizesUnknown naming ``example`` if nothing says anything.
        """
        votes = Counter(value for value in found if value)
        if not votes:
            raise SizesUnknown([self.prefix + example], field=self.field)
        return max(votes, key=lambda value: (votes[value], value))

    def rows(self, name: str, width: int) -> int | None:
        """How many vectors of ``width`` a tensor holds; None where it is not there."""
        return self.numbers[name] // width if name in self.numbers else None

    def count(self, pattern: str) -> int:
        """One more than the largest number that the only group of ``pattern`` takes at the beginning of a name."""
        fits = re.compile(pattern)
        return 1 + max((int(found[1]) for name in self.shapes if (found := fits.match(name))), default=-1)
