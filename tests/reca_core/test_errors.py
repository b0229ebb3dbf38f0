"""Errors travel between processes whole: a rank raises what another rank found."""

from __future__ import annotations

import ast
import importlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import BadInput, RecaError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("reca_core", "tasks", "flows", "evaluation", "deployments")
USUAL = ("is 7", {"field": "here", "choices": ["8", "9"], "remedy": "take 8"})
FAULTS = ([BadInput("is 7", field="here"), BadInput("is 8", remedy="take 9")],)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "PictureUnusable": ("missing", "is not there", {"field": "a.png"}),
    "SizesUnknown": (["layers.0.weight"], "model.safetensors"),
    "ManyFaults": FAULTS,
    "BadSettings": FAULTS,
}
"""Of the classes with a constructor of their own."""


def error_classes() -> Iterator[tuple[str, str]]:
    """Module and name of every subclass of RecaError, from the sources: importing all of them would take minutes."""
    known = {"RecaError"}
    defined = [
        (".".join(path.relative_to(ROOT).with_suffix("").parts), node)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    while found := [(module, node) for module, node in defined if _is_one(node, known)]:
        known |= {node.name for _, node in found}
        yield from ((module, node.name) for module, node in found)


def _is_one(node: ast.ClassDef, known: set[str]) -> bool:
    return node.name not in known and any(isinstance(base, ast.Name) and base.id in known for base in node.bases)


@pytest.mark.parametrize(("module", "name"), sorted(error_classes()))
def test_every_error_comes_whole_out_of_another_process(module: str, name: str) -> None:
    error_class = getattr(importlib.import_module(module), name)
    given = ARGUMENTS[name] if "__init__" in vars(error_class) else USUAL
    named = given[-1] if isinstance(given[-1], dict) else {}
    error = error_class(*(value for value in given if value is not named), **named)
    received = pickle.loads(pickle.dumps(error))
    assert type(received) is error_class
    assert isinstance(received, RecaError)
    assert (str(received), received.args, received.exit_code) == (str(error), error.args, error.exit_code)
    told = {key: value for key, value in vars(error).items() if key != "faults"}
    assert {key: value for key, value in vars(received).items() if key != "faults"} == told
    assert [str(fault) for fault in vars(received).get("faults", ())] == [
        str(fault) for fault in vars(error).get("faults", ())
    ]
