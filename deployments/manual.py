"""The settings of a flow and the recipes as help text: ``reca run FLOW --help`` adds it below the options."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from deployments import recipes
from deployments.catalogue import FLOWS

WIDEST = 110
"""Columns beyond which lines are hard to read."""
INDENT = " " * 6


def manual(flow: str) -> str:
    """Every setting of a flow with its default and meaning, and the recipes."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return "\n".join([*_settings(flow, width), *_recipes(width)]) + "\n"


def _settings(flow: str, width: int) -> Iterator[str]:
    yield "\nsettings, for --set NAME=VALUE or as JSON in --config:"
    for name, owner in FLOWS[flow].parameters.items():
        yield f"\n  {owner.model_config.get('title') or owner.__name__}"
        for key, field in owner.model_fields.items():
            yield f"    {name}.{key} = {json.dumps(field.default, ensure_ascii=False)}"
            yield textwrap.fill(_meaning(field), width, initial_indent=INDENT, subsequent_indent=INDENT)


def _meaning(field: FieldInfo) -> str:
    """Title, help, and the values that are possible where they can be listed or bounded."""
    limits = [part for constraint in field.metadata for part in _limits(constraint)]
    choices = [json.dumps(choice) for choice in getattr(field.annotation, "__args__", ()) if isinstance(choice, str)]
    possible = f"One of {', '.join(choices)}." if choices else f"({', '.join(limits)})" if limits else ""
    return " ".join(part for part in (f"{field.title}.", field.description or "", possible) if part)


def _limits(constraint: Any) -> Iterator[str]:
    words = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
    for name, word in words:
        value = getattr(constraint, name, None)
        if value is not None:
            yield f"{word} {value}"


def _recipes(width: int) -> Iterator[str]:
    yield "\nrecipes, for --recipe NAME:"
    for name in recipes.RECIPES:
        yield f"\n    {name}"
        for line in recipes.card(name).splitlines():
            yield textwrap.fill(line, width, initial_indent=INDENT, subsequent_indent=INDENT)
