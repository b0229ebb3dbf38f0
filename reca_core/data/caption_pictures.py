"""Which rows of a caption file have pictures that can be used: examined once, before the first step, and written down.

Public caption files name pictures that nobody has any more (of LLaVA-1.5's mix, many of OCR-VQA's). A training leaves
such rows out. Every file is opened and its header read, nothing is decoded: damage further on is met at its step.

What is left out decides which row a position means, so it belongs to a training as its checkpoints do: the list lies in
the run directory, every checkpoint holds its SHA-256, and an attempt that goes on from one reads the list and examines
nothing. Pictures that came back meanwhile stay out. Without a checkpoint nothing was learned, and all is examined anew.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reca_core.contracts.errors import BadInput, CheckpointRefused
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.progress import Progress
from reca_core.contracts.records import LeftOutCaption
from reca_core.contracts.requests import LossTerms
from reca_core.data.captions import Conversation, LlavaCaptions
from reca_core.data.entries import printable
from reca_core.data.images import PictureUnusable, check_header
from reca_core.data.manifest import write_records

log = logging.getLogger(__name__)

ILLUSTRATED = ("image_to_text", "text_to_image")
"""Loss terms whose rows have pictures."""
LARGEST_PART = 0.5
"""Of a term's rows that may be left out: beyond it the file lies in a wrong folder, or its pictures are not here."""
EXAMINERS = 16
"""Threads: on a disk elsewhere each file costs a wait."""
CHUNK_ROWS = 4096
REASONS_SHOWN = 3
PROGRESS_SECONDS = 0.5

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class LeftOut:
    """Rows of the caption file that a training goes without, and the SHA-256 of the file that lists them."""

    rows: frozenset[int] = frozenset()
    sha256: str = ""
    """Empty where nothing was examined."""


def examine(captions: LlavaCaptions, losses: LossTerms, listing: Path, report: Report) -> LeftOut:
    """Find the rows to leave out and write them to ``listing``, also if there are none.

    Only terms with weight are examined. Raises BadInput where one would lose more than ``LARGEST_PART`` of its rows.
    """
    terms = [kind for kind in ILLUSTRATED if getattr(losses, kind) > 0]
    found = {kind: list[LeftOutCaption]() for kind in terms}
    total, done, reported = sum(len(captions.kinds[kind]) for kind in terms), 0, 0.0
    with ThreadPoolExecutor(EXAMINERS, thread_name_prefix="captions") as pool:
        for kind in terms:
            for rows in _chunks(captions.kinds[kind]):
                found[kind] += [one for one in pool.map(_judged, rows) if one]
                done += len(rows)
                if time.monotonic() - reported >= PROGRESS_SECONDS or done == total:
                    report(Progress(stage="captions", done=done, total=total, unit="picture"))
                    reported = time.monotonic()
    listing.parent.mkdir(parents=True, exist_ok=True)
    listed = sorted((one for some in found.values() for one in some), key=lambda one: one.row)
    write_records(listing, listed)
    for kind, some in found.items():
        if len(some) > LARGEST_PART * len(captions.kinds[kind]):
            raise _mostly_unusable(captions, kind, some, listing)
    return _read(captions, listing)


def recorded(captions: LlavaCaptions, listing: Path, sha256: str, checkpoint: Path) -> LeftOut:
    """What a checkpoint was trained without. Raises CheckpointRefused if ``listing`` has another SHA-256."""
    if not sha256:  # a checkpoint from before rows were left out
        return LeftOut()
    if not listing.is_file() or sha256_file(listing) != sha256:
        was = "was changed" if listing.is_file() else "is gone"
        raise CheckpointRefused(
            f"the list of captions that {checkpoint.name} was trained without {was}",
            field=str(listing),
            remedy=f"restore it, or move {checkpoint.parent} away to start again with what is usable now",
        )
    return _read(captions, listing)


def _read(captions: LlavaCaptions, listing: Path) -> LeftOut:
    rows = [LeftOutCaption.model_validate(row) for row in read_jsonl(listing)]
    if rows:
        fact = "%d rows of %s left out, their pictures cannot be used (%s): %s"
        log.warning(fact, len(rows), captions.file, _counted(rows), listing)
    return LeftOut(frozenset(row.row for row in rows), sha256_file(listing))


def _chunks(rows: Sequence[Conversation]) -> Iterator[Sequence[Conversation]]:
    return (rows[first : first + CHUNK_ROWS] for first in range(0, len(rows), CHUNK_ROWS))


def _judged(row: Conversation) -> LeftOutCaption | None:
    assert row.picture is not None  # rows of these terms have one
    try:
        check_header(row.picture)
    except PictureUnusable as unusable:
        name = printable(str(row.picture))
        return LeftOutCaption(row=row.number, image=name, kind=unusable.kind, reason=unusable.reason)
    return None


def _counted(rows: Sequence[LeftOutCaption]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(row.kind for row in rows).items()))


def _mostly_unusable(captions: LlavaCaptions, kind: str, rows: Sequence[LeftOutCaption], listing: Path) -> BadInput:
    first = "; ".join(f"row {row.row}: {row.image} {row.reason}" for row in rows[:REASONS_SHOWN])
    return BadInput(
        f"{len(rows)} of {len(captions.kinds[kind])} rows for the loss term {kind} have no usable picture "
        f"({_counted(rows)}), the first being {first}",
        field=f"captions.source ({captions.file})",
        choices=(f"up to {LARGEST_PART:.0%} of a term's rows are left out",),
        remedy=f"names of pictures count from {captions.file.parent}: put the pictures or the file where they fit, "
        f"or set losses.{kind} to 0; all reasons are in {listing}",
    )
