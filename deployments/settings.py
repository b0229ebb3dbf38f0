"""From ``--recipe``, ``--config`` and ``--set`` to the typed parameters of a flow, with all faults reported at once.

Later sources win: the classes' own defaults, then the recipe, then the file, then ``--set`` in the order given.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from reca_core.contracts.base import Config
from reca_core.contracts.errors import BadInput

Classes = Mapping[str, type[Config]]
Tree = dict[str, Any]
MANY_CHOICES = 12
"""Longer lists of choices are cut down to the closest ones."""


class BadSettings(BadInput):
    """Everything that is wrong with a set of settings, one fault after another."""

    def __init__(self, faults: Sequence[BadInput]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(fault.render() for fault in faults))


def closest(word: str, choices: Sequence[str]) -> list[str]:
    """The choices most like ``word``, best first; a choice that ends in it counts as close."""
    ends = [choice for choice in choices if choice.rsplit(".", 1)[-1] == word]
    similar = difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    return list(dict.fromkeys(ends + similar))


def unknown(kind: str, word: str, choices: Sequence[str]) -> BadInput:
    """The fault for a name that does not exist: the closest one as remedy, the choices as far as they are few."""
    near = closest(word, choices)
    shown = choices if len(choices) <= MANY_CHOICES else near
    remedy = f"did you mean {near[0]}?" if near else ""
    return BadInput(f"no {kind} has this name", field=word, choices=shown, remedy=remedy)


@dataclass(frozen=True)
class Reading:
    """What the sources gave: the parameters that are valid, and what is wrong with the others."""

    parameters: dict[str, Config]
    faults: list[BadInput]


def resolve(
    classes: Classes, recipe: Mapping[str, Config], file: Path | None, sets: Sequence[str]
) -> dict[str, Config]:
    """The parameters, complete and checked. Raises BadSettings with every fault of every source."""
    reading = read(classes, recipe, file, sets)
    if reading.faults:
        raise BadSettings(reading.faults)
    return reading.parameters


def read(classes: Classes, recipe: Mapping[str, Config], file: Path | None, sets: Sequence[str]) -> Reading:
    """Put the sources together. Raises BadInput only for a file that cannot be read at all."""
    faults: list[BadInput] = []
    tree: Tree = {name: {} for name in classes}
    for name, config in recipe.items():
        if name in classes:
            tree[name] = config.model_dump()
    if file is not None:
        _merge(tree, _read_file(file))
    for assignment in sets:
        _assign(tree, classes, assignment, faults)
    for name in [name for name in tree if name not in classes]:
        faults.append(unknown("setting", name, list(classes)))
        del tree[name]
    validated = {name: _validate(name, classes[name], tree[name], faults) for name in classes}
    return Reading({name: config for name, config in validated.items() if config is not None}, faults)


def _read_file(path: Path) -> Tree:
    """The object in a --config file. Raises BadInput where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", field=f"--config {path}") from error
    except ValueError as error:
        raise BadInput(f"not JSON: {error}", field=f"--config {path}") from error
    if not isinstance(content, dict):
        raise BadInput(
            f"holds a {type(content).__name__}, not an object",
            field=f"--config {path}",
            remedy='{"training": {"steps": 100}}',
        )
    return content


def _merge(tree: Tree, update: Tree) -> None:
    """Deep merge in place; ``update`` wins."""
    for name, value in update.items():
        if isinstance(value, dict) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        else:
            tree[name] = value


def _assign(tree: Tree, classes: Classes, assignment: str, faults: list[BadInput]) -> None:
    """Apply one ``a.b=value``."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        faults.append(BadInput("is not NAME=VALUE", field=f"--set {assignment}", remedy="--set training.steps=100"))
        return
    *branch, leaf = key.strip().split(".")
    field = _field(classes, key.strip())
    if field is None:
        faults.append(unknown("setting", key.strip(), keys(classes)))
        return
    node = tree
    for name in branch:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    value = read_value(text, field.annotation)
    _merge(node, {leaf: value})


def _field(classes: Classes, key: str) -> FieldInfo | None:
    """The field behind a dotted key; a whole parameter counts as a field of its class."""
    name, *rest = key.split(".")
    if name not in classes:
        return None
    field = FieldInfo(annotation=classes[name])
    for part in rest:
        owner = field.annotation
        if not (isinstance(owner, type) and issubclass(owner, BaseModel)) or part not in owner.model_fields:
            return None
        field = owner.model_fields[part]
    return field


def keys(classes: Classes) -> list[str]:
    """Every dotted key that --set accepts."""
    return [f"{name}.{field}" for name, owner in classes.items() for field in owner.model_fields]


def read_value(text: str, annotation: Any) -> Any:
    """A --set value as the field's type wants it: JSON where it is JSON, the bare text where the field is text.

    A list may also be written with commas. What fits nothing is kept as text, for the class to refuse.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return [part.strip() for part in text.split(",")] if get_origin(annotation) is list else text
    if _accepts(annotation, text) and not isinstance(value, str):
        return text
    if get_origin(annotation) is list and not isinstance(value, list):
        return [value]
    return value


def _accepts(annotation: Any, text: str) -> bool:
    try:
        TypeAdapter(annotation).validate_python(text, strict=True)
    except ValidationError:
        return False
    return True


def _validate(name: str, owner: type[Config], values: Any, faults: list[BadInput]) -> Config | None:
    try:
        return owner.model_validate(values)
    except ValidationError as error:
        faults += [_fault(name, owner, detail) for detail in error.errors()]
        return None


def _fault(name: str, owner: type[Config], detail: ErrorDetails) -> BadInput:
    """One pydantic complaint in the form fact, field, choices, remedy."""
    path = ".".join([name, *(str(part) for part in detail["loc"])])
    if detail["type"] == "extra_forbidden":
        return unknown("setting", path, keys({name: owner}))
    context = detail.get("ctx", {})
    choices = _literal_choices(owner, detail) if detail["type"] == "literal_error" else ()
    message = str(context.get("error") or detail["msg"])
    fact = f"{_shown(detail['input'])}: {message[0].lower()}{message[1:]}"
    return BadInput(fact, field=path, choices=choices, remedy=_help(owner, detail))


def _literal_choices(owner: type[Config], detail: ErrorDetails) -> tuple[str, ...]:
    field = owner.model_fields.get(str(detail["loc"][0]))
    return tuple(str(choice) for choice in getattr(field.annotation, "__args__", ())) if field else ()


def _help(owner: type[Config], detail: ErrorDetails) -> str:
    """What the field means and what it is by default."""
    field = owner.model_fields.get(str(detail["loc"][0])) if detail["loc"] else None
    if field is None:
        return ""
    return f"{field.title or detail['loc'][0]} (default {_shown(field.default)}): {field.description or ''}".strip()


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
