"""The judge of the rendered world: answers a benchmark's questions with what the reader sees in the picture.

Asked for objects it gives boxes, confidences and colours; asked for colours it gives those of the boxes. Scores made
with it always carry the suffix ``.shapeworld``: they say nothing about photographs.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from evaluation.benchmark import JudgeTask
from evaluation.judges.shapeworld_reader import READER_VERSION, read_picture
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
        """One reply per task. Raises StageFailed for a question that this world has no words for."""
        return [self._reply(task) for task in tasks]

    def _reply(self, task: JudgeTask) -> Reply:
        with Image.open(task.picture) as picture:
            seen = read_picture(picture)
        if task.question.kind == "objects":
            return Reply(findings=[finding for finding in seen if finding.label in task.question.labels])
        if task.question.kind == "colours":
            return Reply(labels=[_colour_of(finding, seen) for finding in task.question.findings])
        raise StageFailed(
            f"the rendered world answers no free text: {task.question.text!r}",
            field="judge",
            remedy="choose a judge that reads text for this benchmark",
        )


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
