"""Asking a judge about pictures until nothing is open: what a judging and a judging ahead have in common.

A benchmark is asked for its questions again and again with what is known until it has none; what the transcript already
answers is not asked again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TypeVar

from evaluation.benchmark import Benchmark, Judge, JudgeTask
from evaluation.records import Question
from evaluation.subjects import Subject
from evaluation.transcript import Transcript, asks_again
from reca_core.contracts.lifeline import Interrupted, StopRequest

Item = TypeVar("Item")


class Asking:
    """A benchmark's questions, a judge, and the record of what was said."""

    def __init__(self, benchmark: Benchmark, judge: Judge, transcript: Transcript, stop: StopRequest) -> None:
        self._benchmark = benchmark
        self._judge = judge
        self._transcript = transcript
        self._stop = stop

    def ask(self, subjects: Sequence[Subject]) -> None:
        """Ask about some pictures that can be looked at until nothing is open.

        Raises: StageFailed where the judge cannot go on; Interrupted when asked to stop. What was answered is kept.
        """
        while tasks := [task for subject in subjects for task in self._open_tasks(subject)]:
            for batch in windows(tasks, self._judge.batch_size):
                if self._stop.requested:
                    raise Interrupted(f"asked to stop; {self._transcript.rows} replies are kept")
                self._transcript.record(batch, self._judge.answer(batch))

    def _open_tasks(self, subject: Subject) -> list[JudgeTask]:
        if subject.sample is None:
            return []
        known = self._transcript.known(subject.key)
        open_questions: list[Question] = [item.question for item in known.values() if asks_again(item)]
        if not open_questions:
            fresh = self._benchmark.questions(subject.prompt, subject.sample, known)
            open_questions = [question for question in fresh if question.key not in known]
        asked = {key: len(item.replies) for key, item in known.items()}
        return [subject.task(subject.sample, item, asked.get(item.key, 0)) for item in open_questions]


def windows(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """The items in order, at most ``size`` at a time."""
    iterator = iter(items)
    while window := list(itertools.islice(iterator, max(size, 1))):
        yield window
