"""What was measured before: the judgings of one model's pictures in the order of time.

The answers directories are the memory; nothing else is written. Two judgings belong together when weights, prompts,
sampling, benchmark and its revision, judge and protocol are the same. Hash of the judge's weights, date and address may
differ: that is the change which is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from evaluation.records import JudgeRequest, JudgeResult
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.requests import SampleRequest
from tasks.results import Judged

CHANGES_UNNOTICED = {"weights_sha256": "", "date": ""}
"""What may differ in a judge of the same name."""


def before(home: Home, judged: Judged) -> Path | None:
    """The answers of the last complete judging of the same thing that ended before this one; None for the first."""
    now = RunDirectory(Path(judged.directory))
    subject, ended = _subject(now), now.done.stat().st_mtime_ns
    if subject is None:
        return None
    earlier = [
        (done.stat().st_mtime_ns, done.parent)
        for done in _finished(home)
        if done.stat().st_mtime_ns < ended and _subject(RunDirectory(done.parent)) == subject and _complete(done)
    ]
    return max(earlier, default=(0, None))[1]


def _finished(home: Home) -> Iterator[Path]:
    yield from home.root.glob("answers/*/DONE.json")


def _subject(answers: RunDirectory) -> tuple[str, ...] | None:
    """What was judged, and by whom in name; None where its request or that of the pictures cannot be read any more."""
    try:
        judging = JudgeRequest.model_validate_json(answers.request.read_text(encoding="utf-8"))
        drawing = RunDirectory(Path(judging.samples_directory)).request.read_text(encoding="utf-8")
        sampling = SampleRequest.model_validate_json(drawing)
    except (OSError, ValidationError):
        return None
    judge = request_hash(judging.judge.model_copy(update=CHANGES_UNNOTICED))
    drawn = (sampling.model.sha256, sampling.task, request_hash(sampling.sampling))
    return (judging.benchmark, judging.data_revision, judging.prompts_sha256, judge, *drawn)


def _complete(done: Path) -> bool:
    """Whether every picture got its verdict; an outage of that day is no change."""
    try:
        return not JudgeResult.model_validate_json(done.read_text(encoding="utf-8")).outages
    except ValidationError:
        return False
