"""The run form of every flow: human titles, help, defaults, bounds, and nothing that the form cannot draw."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from reca_core.contracts.base import Config
from reca_core.contracts.records import Outcome

FLOWS = {
    "flows.prepare": "prepare",
    "flows.post_train": "post_train",
    "flows.train_then_evaluate": "train_then_evaluate",
    "flows.evaluate": "evaluate",
    "flows.re_evaluate": "re_evaluate",
}
ORDER = (
    "images", "model", "versions", "losses", "captions", "training", "sampling", "evaluation", "judge",
    "registration",
)  # fmt: skip
UNDRAWABLE = {"anyOf", "oneOf", "allOf", "const", "discriminator", "patternProperties"}
LONGEST_BODY = 25


def load(module: str) -> Flow[Any, Any]:
    found = getattr(importlib.import_module(module), FLOWS[module])
    assert isinstance(found, Flow)
    return found


def schema(module: str) -> dict[str, Any]:
    return parameter_schema(load(module).fn).model_dump()


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from nodes(inner, f"{path}/{key}")
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from nodes(inner, f"{path}/{number}")


@pytest.fixture(params=sorted(FLOWS))
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_form_has_nothing_it_cannot_draw(module: str) -> None:
    found = [path for path, node in nodes(schema(module)) if isinstance(node, dict) and UNDRAWABLE & node.keys()]
    assert found == []


def test_every_field_has_title_help_and_default(module: str) -> None:
    made = schema(module)
    for owner, definition in made["definitions"].items():
        assert definition["title"]
        assert definition["title"][0].isupper()
        for name, field in definition["properties"].items():
            where = f"{owner}.{name}"
            assert field.get("title", name) != name.replace("_", " ").title() or " " not in field["title"], where
            assert len(field["description"]) > len(name), where
            assert field["description"].endswith("."), where
            assert "default" in field, where


def test_every_number_is_bounded_below_or_is_a_choice(module: str) -> None:
    for owner, definition in schema(module)["definitions"].items():
        for name, field in definition["properties"].items():
            if field.get("type") in ("integer", "number"):
                assert {"minimum", "exclusiveMinimum"} & field.keys(), f"{owner}.{name}"


def test_every_parameter_starts_from_a_complete_default_instance(module: str) -> None:
    made = schema(module)
    for name, parameter in made["properties"].items():
        owner = made["definitions"][parameter["$ref"].rpartition("/")[2]]
        assert set(parameter["default"]) == set(owner["properties"]), name
        help_text = parameter.get("description", owner["description"])  # left out where both are the same
        assert help_text.endswith("."), name
    assert not made.get("required")


def test_parameters_come_in_the_order_of_the_story(module: str) -> None:
    signature = inspect.signature(load(module).fn)
    places = [ORDER.index(name) for name in signature.parameters]
    assert places == sorted(places)
    for parameter in signature.parameters.values():
        assert isinstance(parameter.default, Config)


def test_flows_are_named_as_on_the_command_line_and_read_as_a_story(module: str) -> None:
    flow = load(module)
    assert flow.name == FLOWS[module].replace("_", "-")
    assert inspect.signature(flow.fn, eval_str=True).return_annotation is Outcome
    body = inspect.getsource(flow.fn).split('    """\n', 1)[1].splitlines()
    assert len(body) <= LONGEST_BODY
