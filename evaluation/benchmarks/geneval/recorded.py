"""Recorded detections, one picture per line, scored without any model: ``reca score geneval --answers FILE``.

A line: ``id``, ``metadata`` (the prompt's record), ``detections`` (class -> [{box, score, color}]), ``options``?.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from evaluation.benchmarks.geneval.requirement import PUBLISHED, Number, Options, Requirement
from evaluation.benchmarks.geneval.verdict import ColourQuery, score_picture
from evaluation.records import Finding, Judgment
from reca_core.contracts.hashing import canonical_json


class RecordedFinding(BaseModel):
    """One detection with the answer that the colour classifier gives for it."""

    model_config = ConfigDict(extra="ignore")

    box: tuple[Number, Number, Number, Number]
    score: Number
    color: str = ""


class RecordedPicture(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="ignore")

    id: str
    metadata: Requirement
    detections: dict[str, list[RecordedFinding]]
    options: Options = PUBLISHED


def judgment(line: Mapping[str, Any]) -> Judgment:
    """The verdict on one line. Raises pydantic.ValidationError for a malformed one."""
    picture = RecordedPicture.model_validate(line)
    requirement, options = picture.metadata, picture.options
    detections = {
        label: [Finding(label=label, box=found.box, score=found.score, colour=found.color) for found in findings]
        for label, findings in picture.detections.items()
    }

    def colours_of(query: ColourQuery) -> list[str]:
        return [detections[query.label][i].colour for i in query.indices]

    return Judgment(
        id=picture.id,
        prompt_id=canonical_json(line["metadata"]),
        tag=requirement.tag,
        outcome=score_picture(requirement, detections, colours_of, options),
    )


def judgments(lines: Sequence[Mapping[str, Any]]) -> list[Judgment]:
    """All lines."""
    return [judgment(line) for line in lines]
