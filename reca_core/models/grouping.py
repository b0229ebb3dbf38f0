"""Batches of equal prompt length, results in the order of the requests; batches that are never too small.

Rows of equal length need no padding, and without padding a row's numbers cannot depend on its neighbours. Operations on
few rows take other kernels that round differently, so a batch is filled up where bits must not depend on its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from einops import repeat
from jaxtyping import Shaped
from torch import Tensor

Row = TypeVar("Row")
Result = TypeVar("Result")

WINDOW_BATCHES = 8
"""How many batches' worth of requests are sorted together: more fills batches better, fewer holds fewer results."""


def in_order_by_length(
    rows: Sequence[Row],
    *,
    length: Callable[[Row], int],
    batch: int,
    make: Callable[[Sequence[Row]], Sequence[Result]],
) -> Iterator[Result]:
    """Call ``make`` on batches of at most ``batch`` rows of equal ``length``; yield one result per row, in order."""
    window = batch * WINDOW_BATCHES
    for start in range(0, len(rows), window):
        part = rows[start : start + window]
        results: dict[int, Result] = {}
        for indices in _batches(part, length, batch):
            made = make([part[index] for index in indices])
            results.update(zip(indices, made, strict=True))
        yield from (results[index] for index in range(len(part)))


def _batches(rows: Sequence[Row], length: Callable[[Row], int], batch: int) -> Iterator[list[int]]:
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(length(row), []).append(index)
    for indices in by_length.values():
        yield from (indices[start : start + batch] for start in range(0, len(indices), batch))


def filled_rows(rows: Shaped[Tensor, "batch ..."], at_least: int) -> Shaped[Tensor, "filled ..."]:
    """Repeat the last row until there are ``at_least`` rows."""
    missing = at_least - len(rows)
    return rows if missing <= 0 else torch.cat([rows, repeat(rows[-1:], "1 ... -> n ...", n=missing)])
