"""Base classes of everything that crosses a border between rooms: frozen, strict, self-describing.

One object is type, form, file and documentation (docs/architecture.md): attribute docstrings become the
help text of the Prefect form and of ``reca --help``; the field order is the order in which people read them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """A choice that a person makes. Unknown fields are refused, values never change after creation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Record(BaseModel):
    """A fact that a stage writes down. Unknown fields are refused: a file of another version must not half-load."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def unhashed(default: Any = ..., **constraints: Any) -> Any:
    """A field that changes where or how fast a result is made but not the result: left out of ``request_hash``."""
    return Field(default, json_schema_extra={"hashed": False}, **constraints)
