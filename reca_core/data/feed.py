"""Which picture comes when: a global stream of samples that depends on the seed and on nothing else.

Position p of the stream is picture ``order[p]``: epoch ``p // n`` has its own permutation, and the stream simply goes
on into the next epoch, so no tail is dropped and no picture repeats within an epoch. A step takes the next
``images_per_step`` positions; ranks and accumulated passes divide them. Every random choice about a sample is keyed by
its position. Hence the state of the data path is one number, and the stream is the same on any number of ranks, any
split into passes, and after a resume (docs/architecture.md, "Randomness is an argument").
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from PIL import Image

from reca_core.contracts.errors import BadInput
from reca_core.contracts.records import ManifestRow
from reca_core.data.images import load_verified
from reca_core.data.shuffle import Permutation, permutation
from reca_core.models.unified import Images

Item = TypeVar("Item")
Prepare = Callable[[Sequence[Image.Image]], Images]

CACHE_BYTES = 512 << 20
"""Prepared pictures are kept in memory when all of them need at most this much."""
MAX_WORKERS = 8
"""Threads that decode ahead; pillow and the resizing release the interpreter lock."""
KEPT_EPOCHS = 2
"""Permutations in memory: a batch can straddle two epochs."""
FRACTION_BYTES = 7
"""56 random bits: the quotient below 1 is exact in a double, which holds 53."""


def keyed_fraction(seed: int, name: str, position: int) -> float:
    """A uniform number in [0, 1) that belongs to one named choice about one sample. Costs a microsecond."""
    digest = hashlib.sha256(f"{seed}/{name}/{position}".encode()).digest()
    bits = int.from_bytes(digest[:FRACTION_BYTES], "big") >> 3
    return bits / (1 << (8 * FRACTION_BYTES - 3))


def keyed_choice(items: Sequence[Item], seed: int, name: str, position: int) -> Item:
    """One of ``items``, uniformly. Raises IndexError for an empty sequence."""
    return items[int(keyed_fraction(seed, name, position) * len(items))]


class Order:
    """Row number for every position of the stream."""

    def __init__(self, rows: int, seed: int, name: str) -> None:
        """Raises BadInput for an empty data set: a training on nothing would succeed without learning."""
        if rows < 1:
            raise BadInput("there is not one usable picture in it", field=name, remedy="see quarantine.jsonl for why")
        self.rows, self.seed, self.name = rows, seed, name
        self._epochs: OrderedDict[int, Permutation] = OrderedDict()
        self._lock = threading.Lock()

    def row(self, position: int) -> int:
        """The row at a position of the stream."""
        epoch, place = divmod(position, self.rows)
        return self._permutation(epoch)(place)

    def _permutation(self, epoch: int) -> Permutation:
        with self._lock:
            if epoch not in self._epochs:
                self._epochs[epoch] = permutation(self.rows, self.seed, f"order/{self.name}", epoch)
                while len(self._epochs) > KEPT_EPOCHS:
                    self._epochs.popitem(last=False)
            return self._epochs[epoch]


@dataclass(frozen=True)
class Share:
    """The samples of one forward pass on one rank.

    ``weight`` is 0 where a rank has nothing left in this pass: it then runs one sample for nothing, because ranks must
    take part in the same collectives.
    """

    positions: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class Split:
    """How the samples of a step are divided over ranks and over accumulated passes; sums do not depend on it."""

    images_per_step: int
    images_per_pass: int
    """0 is all at once."""
    world: int = 1
    rank: int = 0

    @property
    def passes(self) -> int:
        """Forward passes per step, the same on every rank."""
        largest_share = -(-self.images_per_step // self.world)
        return -(-largest_share // (self.images_per_pass or largest_share))

    def shares(self, step: int) -> list[Share]:
        """This rank's passes of a step; steps count from 0."""
        first = step * self.images_per_step
        mine = range(first + self.rank, first + self.images_per_step, self.world)
        parts = [tuple(mine[part :: self.passes]) for part in range(self.passes)]
        return [Share(part, 1.0) if part else Share((first,), 0.0) for part in parts]


class Pictures:
    """A manifest's pictures as the family's model inputs; kept in memory after the first use where all of them fit."""

    def __init__(self, rows: Sequence[ManifestRow], prepare: Prepare, cache_bytes: int = CACHE_BYTES) -> None:
        self.rows, self.prepare, self.cache_bytes = rows, prepare, cache_bytes
        self._store: dict[int, Images] = {}
        self._lock = threading.Lock()

    def images(self, indices: Sequence[int]) -> Images:
        """The pictures at these rows, in this order. Raises what ``load_verified`` raises, naming the file."""
        fresh = self._decode([index for index in dict.fromkeys(indices) if index not in self._store])
        self._keep(fresh)
        parts = [fresh[index] if index in fresh else self._store[index] for index in indices]
        return type(parts[0]).joined(parts)

    def _decode(self, rows: list[int]) -> dict[int, Images]:
        if not rows:
            return {}
        images = self.prepare([load_verified(self.rows[row]) for row in rows])
        return {row: images.picture(number) for number, row in enumerate(rows)}

    def _keep(self, fresh: dict[int, Images]) -> None:
        """Remember them where all pictures fit, judging by these."""
        bytes_each = sum(one.understanding.nbytes + one.target.nbytes for one in fresh.values()) // max(1, len(fresh))
        if bytes_each * len(self.rows) <= self.cache_bytes:
            with self._lock:
                self._store.update(fresh)


def worker_count() -> int:
    """Threads that prepare data ahead: one per usable core beside the one that trains."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(MAX_WORKERS, cores - 1))


class Prefetch(Generic[Item]):
    """Calls ``build(step)`` for the next few steps in threads and hands the results out in order.

    What ``build`` raises is raised when its step is asked for. Nothing is lost by stopping: a step is rebuilt from its
    number alone.
    """

    def __init__(self, build: Callable[[int], Item], first: int, end: int, workers: int | None = None) -> None:
        self.build, self.first, self.end = build, first, end
        self.workers = workers or worker_count()

    def __iter__(self) -> Iterator[Item]:
        waiting: deque[Future[Item]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="feed")
        try:
            for step in range(self.first, self.end):
                waiting.append(pool.submit(self.build, step))
                if len(waiting) > self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
