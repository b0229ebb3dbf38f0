"""The run form of every flow: human titles, help, defaults, bounds, and nothing that the form cannot draw."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from reca_core.contracts.base import Config, bounds_in_words
from reca_core.contracts.records import Outcome
from tasks.results import Cleaned

FLOWS = {
    "flows.prepare": "prepare",
    "flows.post_train": "post_train",
    "flows.train_then_evaluate": "train_then_evaluate",
    "flows.evaluate": "evaluate",
    "flows.re_evaluate": "re_evaluate",
    "flows.rollback": "rollback",
    "flows.poll_registry": "poll_registry",
    "flows.study": "study",
    "flows.sweep": "sweep",
    "flows.clean": "clean",
}
ORDER = (
    "images", "model", "versions", "losses", "captions", "training", "fine_tuning", "sampling", "evaluation", "judge",
    "registration", "registry", "promotion", "rollback", "study", "sweep", "cleaning",
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


def test_what_the_pipeline_fills_in_is_no_field(module: str) -> None:
    for owner, definition in schema(module)["definitions"].items():
        assert not [name for name in definition["properties"] if name.endswith("sha256")], owner


def test_every_number_is_bounded_below_or_is_a_choice(module: str) -> None:
    for owner, definition in schema(module)["definitions"].items():
        for name, field in definition["properties"].items():
            if field.get("type") in ("integer", "number"):
                assert {"minimum", "exclusiveMinimum"} & field.keys(), f"{owner}.{name}"
                assert bounds_in_words(field) in field["description"], f"{owner}.{name}"


def test_every_parameter_has_the_human_title_of_its_settings(module: str) -> None:
    """Where a parameter says nothing, the form takes the title of what it refers to."""
    made = schema(module)
    for name, parameter in made["properties"].items():
        owner = made["definitions"][parameter["$ref"].rpartition("/")[2]]
        assert parameter.get("title", owner["title"]) == owner["title"], name
        assert owner["title"] != name


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"minimum": 1, "maximum": 1_000_000}, "From 1 to 1,000,000."),
        ({"minimum": 0}, "At least 0."),
        ({"exclusiveMinimum": 0, "maximum": 1}, "Above 0, at most 1."),
        ({"minimum": 0, "exclusiveMaximum": 1}, "At least 0, below 1."),
        ({"minItems": 1}, "At least 1 of them."),
        ({"enum": ["a"]}, ""),
    ],
)
def test_bounds_are_told_in_words(field: dict[str, Any], words: str) -> None:
    assert bounds_in_words(field) == words


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
    returned = {"flows.poll_registry": list[str], "flows.clean": Cleaned}.get(module, Outcome)
    assert inspect.signature(flow.fn, eval_str=True).return_annotation == returned
    body = inspect.getsource(flow.fn).split('    """\n', 1)[1].splitlines()
    assert len(body) <= LONGEST_BODY
