"""Everything that was said about the pictures: ``transcript.jsonl``, one line per ask, and what is known from it.

A line is written before its reply is used, so after a kill the same replies lead to the same next questions. Outages
are written for the record but not taken up again: whoever starts the judging again asks those questions anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.benchmark import Benchmark, JudgeTask
from evaluation.records import Answer, Exchange, Question, Reply, TranscriptRow, Unusable
from reca_core.contracts.files import append_jsonl, read_jsonl

Key = tuple[str, int]
"""prompt_id and seed: one picture."""


class Transcript:
    """The file and the exchanges it amounts to, per picture and question."""

    def __init__(self, path: Path, benchmark: Benchmark) -> None:
        self._path = path
        self._benchmark = benchmark
        self._known: dict[Key, dict[str, Exchange]] = {}
        self.rows = 0
        """Lines in the file: asks of all attempts."""
        for row in read_jsonl(path):
            ask = TranscriptRow.model_validate(row)
            self.rows += 1
            if not ask.reply.error:
                self._absorb((ask.prompt_id, ask.seed), ask.question, ask.reply)

    def known(self, key: Key) -> dict[str, Exchange]:
        """What was said about a picture, by question key in the order of first asking."""
        return self._known.setdefault(key, {})

    def record(self, tasks: Sequence[JudgeTask], replies: Sequence[Reply]) -> None:
        """Write a batch of replies durably, then take them up."""
        rows = [
            TranscriptRow(
                prompt_id=task.prompt.prompt_id,
                seed=task.sample.seed,
                ask=self._asked(task),
                question=task.question,
                reply=reply,
            )
            for task, reply in zip(tasks, replies, strict=True)
        ]
        append_jsonl(self._path, [row.model_dump(mode="json") for row in rows])
        self.rows += len(rows)
        for row in rows:
            self._absorb((row.prompt_id, row.seed), row.question, row.reply)

    def _asked(self, task: JudgeTask) -> int:
        exchange = self.known((task.prompt.prompt_id, task.sample.seed)).get(task.question.key)
        return len(exchange.replies) if exchange else 0

    def _absorb(self, key: Key, question: Question, reply: Reply) -> None:
        exchanges = self.known(key)
        before = exchanges.get(question.key)
        answer: Answer | Unusable = Unusable(reason=f"the judge gave no reply: {reply.error}", outage=True)
        if not reply.error:
            answer = self._benchmark.parse(question, reply)
        replies = [*(before.replies if before else []), reply]
        exchanges[question.key] = Exchange(question=question, replies=replies, answer=answer)


def asks_again(exchange: Exchange) -> bool:
    """Whether a question is to be asked once more: unusable reply, asks left, and no outage."""
    answer = exchange.answer
    if isinstance(answer, Answer) or answer.outage:
        return False
    return len(exchange.replies) < exchange.question.max_asks
