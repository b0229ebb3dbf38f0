"""Judging overlapped with sampling: asks about every picture as soon as it is drawn, while others are still being made.

For judges on another machine, whose waiting costs no GPU here. What is asked is what the judging asks afterwards; its
replies are kept by content (evaluation/judges/reply_cache.py), so that the judging finds them all and asks nothing. The
identity with its date and what was spent lie in this directory until the judging takes them over (tasks/ahead.py).
Ends when the sampler has written DONE.json and nothing is open.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from evaluation.asking import Asking, windows
from evaluation.records import JudgeRequest
from evaluation.runner import STAGE, TRANSCRIPT_FILE, checked_prompts, judge_of, open_rules
from evaluation.subjects import Subject, read_subjects, why_not
from evaluation.transcript import Transcript
from reca_core.contracts.files import remove_leftovers
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.lifeline import Interrupted, StopRequest, stop_requests, turn
from reca_core.contracts.progress import Progress, report_progress

POLL_SECONDS = 0.5
"""Between two looks at the samples; the sampler writes its rows down once a second."""

log = logging.getLogger(__name__)


def main(request: JudgeRequest) -> None:
    """Follow one samples directory to its end.

    Args:
        request: as for the judging, but without a hash of the samples, which are not complete yet.
    Raises: what a judging raises before and while it asks; Interrupted when asked to stop.
    """
    directory = RunDirectory(Path(request.output_directory))
    with stop_requests() as stop, turn(directory.lock, stop):
        remove_leftovers(directory.path)
        _Following(request, directory, stop).run()


class _Following:
    def __init__(self, request: JudgeRequest, directory: RunDirectory, stop: StopRequest) -> None:
        self.benchmark = open_rules(request)
        self.prompts_file = Path(request.prompts_file)
        self.prompts = checked_prompts(request, self.benchmark)
        self.samples = RunDirectory(Path(request.samples_directory))
        self.transcript = Transcript(directory.path / TRANSCRIPT_FILE, self.benchmark)
        self.judge = judge_of(request, directory)
        self.asking = Asking(self.benchmark, self.judge, self.transcript, stop)
        self.stop = stop
        self.seen: set[tuple[str, int]] = set()

    def run(self) -> None:
        """Ask about what is new until there will be nothing new."""
        while True:
            complete = self.samples.done.is_file()  # looked at first: rows that come after it do not exist
            fresh, total = self._fresh()
            for window in windows(fresh, self.judge.batch_size):
                self.asking.ask([subject for subject in window if not why_not(subject)])
                self.seen |= {subject.key for subject in window}
                report_progress(Progress(stage=STAGE, done=len(self.seen), total=total, unit="picture"))
            if complete and not fresh:
                log.info("asked about %d of %d pictures while they were made", len(self.seen), total)
                return
            if self.stop.requested:
                raise Interrupted(f"asked to stop; {self.transcript.rows} replies are kept")
            if not fresh:
                time.sleep(POLL_SECONDS)

    def _fresh(self) -> tuple[list[Subject], int]:
        """Pictures that were not there at the last look, and how many there will be in all."""
        subjects = read_subjects(self.prompts, self.prompts_file, self.samples.path)
        fresh = [subject for subject in subjects if subject.sample is not None and subject.key not in self.seen]
        return fresh, len(subjects)
