"""The judge of question benchmarks is none: it hands over what the model itself said, and the rules read it."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.benchmark import JudgeTask
from evaluation.records import JudgeIdentity, Reply


class ReplyJudge:
    """Needs no weights, no accelerator and no network."""

    batch_size = 256

    def __init__(self) -> None:
        self.identity = JudgeIdentity(name="reply")

    def answer(self, tasks: Sequence[JudgeTask]) -> Sequence[Reply]:
        """The model's own words, one reply per task."""
        return [Reply(text=task.sample.reply) for task in tasks]
