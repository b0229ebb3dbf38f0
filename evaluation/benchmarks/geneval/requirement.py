"""What one GenEval prompt asks for: the record of evaluation_metadata.jsonl, checked.

``{"tag", "prompt", "include": [{"class", "count", "color"?, "position"?: [relation, index]}], "exclude"?: [...]}``;
``index`` points to an earlier entry of ``include``. Fields that the rules do not use are ignored.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, Strict, StrictInt, field_validator, model_validator

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""The six tags in the order in which papers print them."""

RESERVED_TAGS = ("overall", "images", "prompts")
"""Rows of the table that are no tag's."""

Relation = Literal["left of", "right of", "above", "below"]
Number = Annotated[FiniteFloat, Strict()]
"""A number as JSON has it: a text or a truth value is none."""


class Clause(BaseModel):
    """One wanted kind of object."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    label: str = Field(alias="class")
    count: StrictInt
    color: str | None = None
    position: tuple[Relation, Annotated[int, Strict(), Field(ge=0)]] | None = None


class Exclusion(BaseModel):
    """One kind of object of which fewer than ``count`` may be there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    label: str = Field(alias="class")
    count: StrictInt


class Requirement(BaseModel):
    """One prompt's record."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tag: str
    prompt: str = ""
    include: tuple[Clause, ...] = ()
    exclude: tuple[Exclusion, ...] = ()

    @field_validator("tag")
    @classmethod
    def _tag_is_no_other_row(cls, tag: str) -> str:
        if tag in RESERVED_TAGS:
            raise ValueError(f"{tag!r} is a row of the table and cannot be a tag")
        return tag

    @model_validator(mode="after")
    def _positions_point_back(self) -> Requirement:
        for index, clause in enumerate(self.include):
            if clause.position is not None and clause.position[1] >= index:
                raise ValueError(f"include[{index}].position must point to an earlier entry, got {clause.position[1]}")
        return self

    def labels(self) -> list[str]:
        """Every class named, once, in order of appearance."""
        wanted = [clause.label for clause in self.include]
        return list(dict.fromkeys(wanted + [exclusion.label for exclusion in self.exclude]))


class Options(BaseModel):
    """The scorer's thresholds; the defaults are the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Number = 0.3
    """A detection counts when its score is strictly larger."""
    counting_threshold: Number = 0.9
    """The same for prompts with the tag ``counting``."""
    max_objects: StrictInt = Field(16, ge=0)
    """Detections kept per class."""
    max_overlap: Number = 1.0
    """Below 1: a box that overlaps a kept one by at least this IoU is dropped. 1 switches the rule off."""
    position_threshold: Number = 0.1
    """Margin of ``geometry.relative_position``."""


PUBLISHED = Options()
