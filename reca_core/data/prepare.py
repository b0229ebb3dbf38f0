"""Preparation: a source of pictures becomes a prepared set with an identity. Entry: ``main(PrepareRequest)``.

    source -> parts -> entries -> decode, hash, measure -> ledger (duplicates, order) -> data/<digest>/

Memory does not grow with the number of pictures. A preparation may be killed at any moment and started again; one
source is prepared by one process at a time, and two sources may be prepared side by side. No torch is imported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reca_core.contracts.errors import BadInput, RunLocked, StageFailed
from reca_core.contracts.files import atomic_write_text, run_lock
from reca_core.contracts.hashing import HASH_LENGTH, sha256_text
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.progress import Progress, report_progress
from reca_core.contracts.records import PreparedData
from reca_core.contracts.requests import ImageSource, PrepareRequest
from reca_core.data.colour import statistics_of
from reca_core.data.entries import Companion, Outcome, Picture, Refused, Source, printable
from reca_core.data.examine import Job, PictureStore, examine_all
from reca_core.data.ledger import Ledger
from reca_core.data.manifest import MANIFEST, QUARANTINE, PreparedSummary, digest_of, write_records, write_summary
from reca_core.data.sources import open_source

Report = Callable[[Progress], None]

PROGRESS_SECONDS = 0.5
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 7 * 86_400.0
"""Another process that prepares the same source is waited for: its result is ours."""
REASONS_SHOWN = 5
MAXIMUM_WORKERS = 16
"""Beyond it the one thread that reads and records is the bottleneck."""

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What a pass has met so far."""

    pictures: int = 0
    duplicates: int = 0
    companions: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    first_reasons: list[str] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Entries met."""
        return self.pictures + self.duplicates + self.companions + self.refused.total()

    def count(self, outcome: Outcome, ledger: Ledger) -> None:
        """Take one outcome in."""
        if isinstance(outcome, Picture):
            chosen = ledger.choose(outcome)
            self.pictures += chosen
            self.duplicates += not chosen
        elif isinstance(outcome, Refused):
            ledger.refuse(outcome)
            self.refused[outcome.kind] += 1
            if len(self.first_reasons) < REASONS_SHOWN:
                self.first_reasons.append(f"{outcome.label}: {outcome.reason}")
        elif isinstance(outcome, Companion):
            self.companions += 1


def main(request: PrepareRequest) -> PreparedData:
    """Prepare, with progress on standard output and the result in ``run_directory/DONE.json``. Raises RecaError."""
    prepared = prepare(request.images, Home(Path(request.home)), report_progress, request.workers)
    done = RunDirectory(Path(request.run_directory)).done
    atomic_write_text(done, prepared.model_dump_json(indent=2) + "\n")
    return prepared


def prepare(source: ImageSource, home: Home, report: Report, workers: int = 0) -> PreparedData:
    """Prepare a source under ``home``.

    Args:
        source: which pictures.
        home: receives ``data/<digest>`` and the caches.
        report: is told how far it is, at most twice a second.
        workers: decoding threads; 0 is one per core.

    Raises BadInput for a source that is not there, empty or without one usable picture, PrerequisiteMissing for a hub
    data set out of reach, StageFailed where files cannot be written.
    """
    opened = open_source(source, home)
    room = home.cache / "prepare" / sha256_text(printable(opened.identity))[:HASH_LENGTH]
    try:
        with _sole_use_of(room), contextlib.closing(Ledger(room / "ledger.sqlite")) as ledger:
            store = PictureStore(home.cache / "pictures", room / "incoming")
            tally = _pass(opened, source.limit, ledger, store, report, workers or _cores())
            if tally.pictures == 0:
                raise _nothing_usable(source, tally, ledger, room)
            return _publish(source, opened, home, ledger, tally)
    except (OSError, sqlite3.Error) as error:
        remedy = f"free space or rights below {home.root}; {room} is only a cache and may be deleted"
        raise StageFailed(f"the prepared pictures cannot be written: {error}", field="home", remedy=remedy) from error


def _pass(source: Source, limit: int, ledger: Ledger, store: PictureStore, report: Report, workers: int) -> Tally:
    """Go through the source once, in its order, until ``limit`` distinct pictures are found."""
    tally = Tally()
    ledger.begin_pass()
    expected = source.expected()
    reported = 0.0
    with contextlib.closing(examine_all(_jobs(source, ledger), store, workers)) as results:
        for done in results:
            if done.outcome is None:
                ledger.finish_part(done.job.part)
                continue
            if done.job.known is None:
                ledger.add(done.job.part, done.job.number, done.outcome)
            tally.count(done.outcome, ledger)
            if time.monotonic() - reported >= PROGRESS_SECONDS:
                report(_progress(tally, limit, expected))
                reported = time.monotonic()
            if limit and tally.pictures >= limit:
                break
    report(_progress(tally, limit, 0))
    return tally


def _jobs(source: Source, ledger: Ledger) -> Iterator[Job]:
    """What is known of every part, then what is left of it."""
    for part in source.parts():
        row, known, complete = ledger.open_part(part)
        for number, outcome in enumerate(ledger.outcomes(row)):
            yield Job(row, number, known=outcome)
        if not complete:
            for number, entry in enumerate(part.entries(known), known):
                yield Job(row, number, entry=entry)
            yield Job(row, -1)


def _progress(tally: Tally, limit: int, expected: int) -> Progress:
    """Where reading alone would tell the total, it is what has been seen so far."""
    if limit:
        return Progress(stage="prepare", done=tally.pictures, total=max(limit, tally.pictures), unit="picture")
    return Progress(stage="prepare", done=tally.seen, total=max(expected, tally.seen), unit="picture")


def _publish(source: ImageSource, opened: Source, home: Home, ledger: Ledger, tally: Tally) -> PreparedData:
    """Write ``data/<digest>``, or find that it is there already."""
    digest = digest_of(ledger.hashes())
    directory = home.data / digest
    prepared = PreparedData(
        digest=digest,
        directory=str(directory),
        pictures=tally.pictures,
        quarantined=tally.refused.total(),
        duplicates=tally.duplicates,
        source=source.source,
    )
    colours = statistics_of(ledger.colours())
    summary = PreparedSummary(
        data=prepared,
        images=source,
        revision=opened.revision,
        companions=tally.companions,
        quarantine=dict(sorted(tally.refused.items())),
        colours=colours,
    )
    directory.mkdir(parents=True, exist_ok=True)
    with run_lock(home.data / ".lock"):
        _remove_torn(directory)
        changed = [
            write_records(directory / MANIFEST, ledger.manifest_rows()),
            write_records(directory / QUARANTINE, ledger.quarantine_rows()),
            write_summary(directory, summary),
        ]
    reused = not any(changed)
    _tell(summary, reused)
    return prepared.model_copy(update={"reused": reused})


def _tell(summary: PreparedSummary, reused: bool) -> None:
    data, colours = summary.data, summary.colours
    was = "were prepared before and are reused" if reused else "are prepared"
    rest = f"{data.duplicates} duplicates, {data.quarantined} quarantined, {summary.companions} companions ignored"
    log.info("%d pictures of %s %s (%s): %s", data.pictures, data.source, was, rest, data.directory)
    if colours.direction:
        log.warning(
            "the pictures are tinted %s (mean colour %.0f from grey): expect the model's own pictures to follow",
            colours.direction,
            colours.cast,
        )


def _nothing_usable(source: ImageSource, tally: Tally, ledger: Ledger, room: Path) -> BadInput:
    listing = room / QUARANTINE
    write_records(listing, ledger.quarantine_rows())
    fact = f"{source.source} holds no usable picture: {tally.refused.total()} files quarantined"
    if tally.first_reasons:
        fact += ", the first being " + "; ".join(tally.first_reasons)
    return BadInput(fact, field="images.source", remedy=f"all reasons are in {listing}; docs/data.md lists the rules")


def _remove_torn(directory: Path) -> None:
    """Files that a killed process was writing; the lock says that nobody writes now."""
    for torn in directory.glob(".*.tmp"):
        torn.unlink()


@contextlib.contextmanager
def _sole_use_of(room: Path) -> Iterator[None]:
    """One process per source; others wait, and say so."""
    lock = room / "lock"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(run_lock(lock, FIRST_WAIT_SECONDS))
        except RunLocked as locked:
            log.info("waiting: %s", locked.fact)
            held.enter_context(run_lock(lock, LONGEST_WAIT_SECONDS))
        yield


def _cores() -> int:
    affine = hasattr(os, "sched_getaffinity")  # Linux alone says which cores this process may use
    return min(MAXIMUM_WORKERS, len(os.sched_getaffinity(0)) if affine else os.cpu_count() or 1)
