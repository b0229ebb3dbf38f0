"""The judge of the rendered world: answers a benchmark's questions with what the reader sees in the picture.

Asked for objects it gives boxes, confidences and colours; asked for colours those of the boxes; asked in words of the
world it answers in its words, or with marks for an edit. Scores made with it always carry the suffix ``.shapeworld``:
they say nothing about photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from evaluation.benchmark import JudgeTask
from evaluation.judges.shapeworld_answers import answer
from evaluation.judges.shapeworld_marks import marks_reply, objects_of
from evaluation.judges.shapeworld_reader import READER_VERSION, CellReading, read_cells, read_picture
from evaluation.records import Finding, JudgeIdentity, Reply
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.world import WORLD_VERSION

__all__ = ["ShapeworldJudge", "read_picture"]


class ShapeworldJudge:
    """Reads rendered scenes; needs no weights, no accelerator and no network."""

    batch_size = 64

    def __init__(self) -> None:
        settings = {"world_version": str(WORLD_VERSION), "reader_version": str(READER_VERSION)}
        self.identity = JudgeIdentity(name="shapeworld", settings=settings)

    def answer(self, tasks: Sequence[JudgeTask]) -> Sequence[Reply]:
        """One reply per task.

        Raises StageFailed for a question that this world has no words for, and BadInput for an instruction that does
        not fit its source: both are mistakes of the benchmark, not of the picture.
        """
        return [_reply(task) for task in tasks]


def _reply(task: JudgeTask) -> Reply:
    readings = _read(task.picture)
    seen = [reading.finding for reading in readings if reading.finding]
    if task.question.kind == "objects":
        return Reply(findings=[finding for finding in seen if finding.label in task.question.labels])
    if task.question.kind == "colours":
        return Reply(labels=[_colour_of(finding, seen) for finding in task.question.findings])
    marks = marks_reply(task.question.text, _read(task.source) if task.source else None, readings)
    return Reply(text=answer(task.question.text, objects_of(readings)) if marks is None else marks)


def _read(path: Path) -> list[CellReading]:
    with Image.open(path) as picture:
        return read_cells(picture)


def _colour_of(finding: Finding, seen: Sequence[Finding]) -> str:
    """The colour of an object that this judge found before in the same picture."""
    for candidate in seen:
        if candidate.label == finding.label and candidate.box == finding.box:
            return candidate.colour
    raise StageFailed(
        f"no {finding.label} at {finding.box} in this picture",
        field="question.findings",
        remedy="ask one judge for objects and for their colours; judge the picture again from the start",
    )
