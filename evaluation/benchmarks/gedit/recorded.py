"""Recorded GEdit results scored without any model: ``reca score gedit --replies FILE`` or ``--rows FILE``.

A line of replies: ``id``, ``sc_replies``, ``pq_replies`` (successive replies; the last one repeats), and where known
``task_type``, ``instruction_language``, ``intersection_exist``. A run of rows: ``name`` and ``rows`` of
``{task_type, instruction_language, intersection_exist, sc, pq}``, the minima of both calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from evaluation.benchmarks.gedit.replies import HIGHEST, LOWEST
from evaluation.benchmarks.gedit.rounds import MAX_ROUNDS, combine, score_replies
from evaluation.benchmarks.gedit.summary import INTERSECTION, LANGUAGE, TASKS
from evaluation.records import Arithmetic, Judgment, Scored, Unscored


class RecordedReplies(BaseModel):
    """One edited picture with what the judge said."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str
    sc_replies: list[str] = Field(min_length=1)
    pq_replies: list[str] = Field(min_length=1)
    task_type: str = ""
    instruction_language: str = ""
    intersection_exist: bool = False


class RecordedRow(BaseModel):
    """One edited picture with both minima; null where there is none."""

    model_config = ConfigDict(extra="ignore", strict=True)

    task_type: str
    instruction_language: str
    intersection_exist: bool
    sc: FiniteFloat | None
    pq: FiniteFloat | None


class RecordedRun(BaseModel):
    """One table's worth of rows."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    rows: list[RecordedRow]


def reply_judgment(line: Mapping[str, Any], arithmetic: Arithmetic) -> Judgment:
    """The verdict on one line. Raises pydantic.ValidationError for a malformed one."""
    picture = RecordedReplies.model_validate(line)
    outcome = score_replies(_repeated(picture.sc_replies), _repeated(picture.pq_replies), arithmetic)
    if outcome is None:
        outcome = Unscored(reason="the recorded replies end before a score was reached")
    return _judgment(picture.id, picture, outcome, arithmetic)


def _repeated(replies: Sequence[str]) -> list[str]:
    return [*replies, *[replies[-1]] * MAX_ROUNDS][:MAX_ROUNDS]


def row_judgments(run: RecordedRun, arithmetic: Arithmetic) -> list[Judgment]:
    """One judgment per row; rows have no name of their own, so their number is their id."""
    return [
        _judgment(str(number), row, _row_outcome(row, arithmetic), arithmetic) for number, row in enumerate(run.rows)
    ]


def _row_outcome(row: RecordedRow, arithmetic: Arithmetic) -> Scored | Unscored:
    """Upstream checks no range; corrected takes what a call can give, though a row may hold means of calls."""
    if row.sc is None or row.pq is None:
        return Unscored(reason="the row has no score")
    if arithmetic == "corrected" and not all(LOWEST <= score <= HIGHEST for score in (row.sc, row.pq)):
        return Unscored(reason=f"SC {row.sc:g}, PQ {row.pq:g}: expected numbers from {LOWEST} to {HIGHEST}")
    return combine(row.sc, row.pq, {})


def _judgment(
    name: str, source: RecordedReplies | RecordedRow, outcome: Scored | Unscored, arithmetic: Arithmetic
) -> Judgment:
    """A task that the benchmark does not have belongs to no mean: corrected says so, upstream leaves it out."""
    if arithmetic == "corrected" and source.task_type and source.task_type not in TASKS:
        reason = f"GEdit-Bench has no task called {source.task_type!r}"
        outcome = Unscored(reason=reason, evidence=outcome.evidence)
    known = {LANGUAGE: source.instruction_language, INTERSECTION: source.intersection_exist}
    outcome = outcome.model_copy(update={"evidence": {**outcome.evidence, **known}})
    return Judgment(id=name, prompt_id=name, tag=source.task_type, outcome=outcome)
