"""What the command line believes about flows and recipes is what they are."""

from __future__ import annotations

import importlib
import inspect
import typing

import pytest

from deployments import arguments, recipes
from deployments.catalogue import FLOWS
from deployments.settings import resolve
from reca_core.contracts.errors import BadInput
from reca_core.contracts.registry import FAMILIES
from tasks import validate

RENDERED = ("demo", "tiny-study")
"""Recipes that need no files."""


def test_the_grammar_and_the_table_name_the_same_flows() -> None:
    assert list(arguments.FLOWS) == list(FLOWS)


@pytest.mark.parametrize("name", FLOWS)
def test_the_table_holds_the_signature_of_the_flow(name: str) -> None:
    module, _, function = FLOWS[name].target.partition(":")
    flow = getattr(importlib.import_module(module), function)
    hints = typing.get_type_hints(flow.fn)
    parameters = inspect.signature(flow.fn).parameters
    assert list(FLOWS[name].parameters) == list(parameters)
    assert {key: hints[key] for key in parameters} == FLOWS[name].parameters
    assert flow.name == name


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_is_valid_and_says_source_cost_and_expectation(name: str) -> None:
    settings = recipes.find(name)
    parameters = resolve(FLOWS[recipes.flow_of(name)].parameters, settings, None, [])
    assert set(settings) < set(parameters)
    absolute = ["captions.source"] if name not in RENDERED else []
    assert [fault.field for fault in validate.faults(*parameters.values())] == absolute
    card = recipes.card(name)
    assert "Expected:" in card
    assert "Cost:" in card or "see ``janus_1_3b``" in card


def test_recipes_name_registered_families_only() -> None:
    assert {name.partition("-")[0] for name in recipes.RECIPES} - {"demo", "tiny"} <= set(FAMILIES)


def test_an_unknown_recipe_is_answered_with_the_closest() -> None:
    with pytest.raises(BadInput, match=r"did you mean janus-pro-1b\?"):
        recipes.find("janus-pro1b")


def test_the_demo_measures_on_reporting_seeds_and_trains_on_others() -> None:
    demo = recipes.find("demo")
    images, captions, evaluation = demo["images"], demo["captions"], demo["evaluation"]
    scenes = range(images.scene_seed, images.scene_seed + images.scenes)  # type: ignore[attr-defined]
    assert evaluation.first_seed >= 1000  # type: ignore[attr-defined]
    assert evaluation.first_seed not in scenes  # type: ignore[attr-defined]
    assert captions.seed not in scenes  # type: ignore[attr-defined]
