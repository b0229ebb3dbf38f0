"""Work on pictures in helper processes, begun before its results are needed.

A helper is started by spawning, because the process that wants it may already hold a GPU; it dies with it and leaves a
request to stop to it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from reca_core.contracts.errors import StageFailed
from reca_core.contracts.lifeline import PARENT_VARIABLE, die_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


def _itself(item: Any) -> Hashable:
    name: Hashable = item
    return name


class Ahead(Generic[Item, Result]):
    """One function over many items, in ``processes`` helpers or, with 0, in this process when asked."""

    def __init__(self, work: Callable[[Item], Result], processes: int, key: Callable[[Item], Hashable] = _itself):
        """``work`` is a function of a module; it and what it takes and gives must be fit for pickling.

        Args:
            key: under which an item is known.
        """
        self._work = work
        self._key = key
        self._begun: dict[Hashable, Future[Result]] = {}
        self._expected: set[Hashable] = set()
        self._pool: ProcessPoolExecutor | None = None
        if processes:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(processes, context, _tie, (os.getpid(),))

    def expect(self, items: Sequence[Item]) -> None:
        """Begin with items whose results will be asked for next.

        What was expected before the last time and was never asked for is given up, so that nothing piles up.
        Raises StageFailed where a helper is gone.
        """
        now = {self._key(item) for item in items}
        for name in [name for name in self._begun if name not in self._expected | now]:
            self._begun.pop(name).cancel()
        self._expected = now
        self._begin(items)

    def _begin(self, items: Sequence[Item]) -> None:
        if self._pool is None:
            return
        try:
            for item in items:
                if self._key(item) not in self._begun:
                    self._begun[self._key(item)] = self._pool.submit(self._work, item)
        except BrokenProcessPool as error:
            raise _gone() from error

    def results(self, items: Sequence[Item]) -> list[Result]:
        """One result per item, in order. Raises StageFailed where a helper is gone."""
        if self._pool is None:
            return [self._work(item) for item in items]
        self._begin(items)
        names = [self._key(item) for item in items]
        found = {name: self._begun.pop(name) for name in dict.fromkeys(names)}
        try:
            return [found[name].result() for name in names]
        except BrokenProcessPool as error:
            raise _gone() from error

    def close(self) -> None:
        """End the helpers; what was begun in vain is given up."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _tie(parent: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.environ[PARENT_VARIABLE] = str(parent)
    die_with_parent()


def _gone() -> StageFailed:
    return StageFailed(
        "a helper that decodes pictures was ended from outside, or by a picture",
        field="judge.decoding_processes",
        remedy="start again: what was answered is kept; with 0 the judge decodes by itself and its log names the place",
    )
