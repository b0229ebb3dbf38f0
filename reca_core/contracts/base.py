"""Base classes of everything that crosses a border between rooms: frozen, strict, self-describing.

One object is type, form, file and documentation (docs/architecture.md): attribute docstrings become the
help text of the Prefect form and of ``reca --help``; the field order is the order in which people read them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

WHEN_SET = "when set"
"""Mark of a field that is hashed only where it differs from its default."""


def tell_bounds(schema: dict[str, Any]) -> None:
    """Make the help of every field one line that ends in what it may be: forms show help, but no limits."""
    for field in schema.get("properties", {}).values():
        words = f"{field.get('description', '')} {bounds_in_words(field)}".split()
        if words:
            field["description"] = " ".join(words)


def bounds_in_words(field: dict[str, Any]) -> str:
    """``From 1 to 100.`` or ``Above 0, at most 1.``; empty for a field without limits."""
    if "minimum" in field and "maximum" in field:
        return f"From {field['minimum']:,} to {field['maximum']:,}."
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    told = ", ".join(f"{words} {field[name]:,}" for name, words in limits.items() if name in field)
    if field.get("minItems"):
        told = f"at least {field['minItems']} of them"
    return f"{told[:1].upper()}{told[1:]}." if told else ""


class Config(BaseModel):
    """A choice that a person makes. Unknown fields are refused, values never change after creation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, json_schema_extra=tell_bounds)


class Record(BaseModel):
    """A fact that a stage writes down. Unknown fields are refused: a file of another version must not half-load."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def unhashed(default: Any = ..., **constraints: Any) -> Any:
    """A field that changes where or how fast a result is made but not the result: left out of ``request_hash``."""
    return Field(default, json_schema_extra={"hashed": False}, **constraints)


def hashed_when_set(default: Any, **constraints: Any) -> Any:
    """A field that changes the result where it is set. At its default it is left out of ``request_hash``, so that what
    was made before the field existed is still found."""
    return Field(default, json_schema_extra={"hashed": WHEN_SET}, **constraints)
