"""How fast pictures reach a training step: section ``data`` of ``make bench``.

The prefetching feed as a training uses it (bytes checked against their hash, decoded, cut and scaled twice, made into
tensors, in threads) against the least that must be done to the same files (Pillow's open, convert and resize) in as
many threads. Then how long a step waits for its pictures while a device is busy for longer than they take.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from reca_core.contracts.bench import BenchPlace, Figure, rate
from reca_core.contracts.home import Home
from reca_core.contracts.records import ManifestRow
from reca_core.contracts.requests import ImageSource
from reca_core.data.feed import Order, Pictures, Prefetch, worker_count
from reca_core.data.manifest import read_manifest
from reca_core.data.prepare import prepare
from reca_core.models.janus.pictures import PictureTransform
from reca_core.models.unified import Images

PICTURES, QUICK_PICTURES = 128, 4
SIDE, QUICK_SIDE = 512, 32
"""Pixels of the files."""
PUBLISHED_SIDE = 384
"""Pixels on both sides of the published Janus-Pro."""
IMAGES_PER_STEP, QUICK_IMAGES_PER_STEP = 8, 2
BUSY = 1.5
"""How much longer the device computes than its pictures take to come: a training that data does not bound."""
GRAIN = 8
"""Pixels of a patch of one colour: between a photograph and noise, for a JPEG of common size."""
PERCENT, MILLISECONDS = 100.0, 1000.0


def data(place: BenchPlace) -> list[Figure]:
    """Pictures per second of raw decoding and of the feed, their ratio, and a step's wait for data."""
    count, side, per_step = (
        (QUICK_PICTURES, QUICK_SIDE, QUICK_IMAGES_PER_STEP) if place.quick else (PICTURES, SIDE, IMAGES_PER_STEP)
    )
    rows = pictures(place.folder, count, side)
    threads, steps = worker_count(), count // per_step
    raw = rate(count, partial(_decode_all, rows, threads))
    fed = rate(count, partial(_exhaust, _feed(rows, per_step, steps, threads)))
    busy = BUSY * per_step / fed
    waits = wait_seconds(_feed(rows, per_step, steps, threads), busy)
    how = f"{count} JPEG files of {side} x {side} to {PUBLISHED_SIDE} x {PUBLISHED_SIDE}, {threads} threads, cpu"
    beside = f"median of {len(waits)}, {per_step} pictures, the device busy for {MILLISECONDS * busy:.0f} ms; {how}"
    return [
        Figure(what="raw: open, convert, resize", value=raw, unit="pictures/s", how=how),
        Figure(what="feed, nothing in memory", value=fed, unit="pictures/s", how=f"both transforms of Janus; {how}"),
        Figure(what="feed of raw", value=PERCENT * fed / raw, unit="%", how=how),
        Figure(what="a step's wait for data", value=MILLISECONDS * statistics.median(waits), unit="ms", how=beside),
    ]


def pictures(folder: Path, count: int, side: int) -> Sequence[ManifestRow]:
    """Prepared JPEG files of coloured patches with noise, the same every time."""
    draw = np.random.default_rng(0)
    source = folder / "pictures"
    source.mkdir()
    for number in range(count):
        patches = draw.integers(0, 256, (side // GRAIN, side // GRAIN, 3), dtype=np.uint8)
        pixels = np.repeat(np.repeat(patches, GRAIN, axis=0), GRAIN, axis=1) // 2
        noisy = pixels + draw.integers(0, 128, pixels.shape, dtype=np.uint8)
        Image.fromarray(noisy).save(source / f"{number:04d}.jpg")
    home = Home(folder / "home")
    prepared = prepare(ImageSource(source=str(source), kind="folder"), home, lambda progress: None)
    return read_manifest(Path(prepared.directory))


def _feed(rows: Sequence[ManifestRow], per_step: int, steps: int, threads: int) -> Prefetch[Images]:
    """Every step's pictures; none is kept in memory."""
    transform, order = PictureTransform(PUBLISHED_SIDE, PUBLISHED_SIDE), Order(len(rows), 0, "images")
    kept = Pictures(rows, transform.squares, cache_bytes=0)

    def build(step: int) -> Images:
        return kept.images([order.row(step * per_step + place) for place in range(per_step)])

    return Prefetch(build, 0, steps, threads)


def _exhaust(feed: Iterable[Images]) -> None:
    for _ in feed:
        pass


def _decode_all(rows: Sequence[ManifestRow], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_decode, [row.file for row in rows]))


def _decode(file: str) -> Image.Image:
    with Image.open(file) as picture:
        return picture.convert("RGB").resize((PUBLISHED_SIDE, PUBLISHED_SIDE), Image.Resampling.BICUBIC)


def wait_seconds(feed: Iterable[object], busy: float) -> list[float]:
    """How long each step after the first waited, where it then computes for ``busy`` seconds away from the processor.

    The first step waits for its pictures whatever the feed does.
    """
    waits, began = [], time.perf_counter()
    for _ in feed:
        waits.append(time.perf_counter() - began)
        time.sleep(busy)
        began = time.perf_counter()
    return waits[1:]
