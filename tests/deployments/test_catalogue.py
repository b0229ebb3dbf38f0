"""What the command line believes about flows and recipes is what they are."""

from __future__ import annotations

import importlib
import inspect
import typing
from pathlib import Path

import pytest

from deployments import arguments, recipes
from deployments.asked import Asked
from deployments.catalogue import FLOWS
from deployments.commands import demo
from deployments.foresight import Foresight
from deployments.settings import resolve
from reca_core.contracts.base import Config
from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.home import Home
from reca_core.contracts.hub_models import HUB_MODELS
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import CaptionSource
from reca_core.contracts.study import StudyPlan
from tasks import validate
from tasks.trainings import Trainings, complete_request

RENDERED = ("demo", "tiny-study")
PUBLISHED = {
    *("janus-1.3b", "janus-pro-1b", "janus-pro-7b", "showo-512-clip", "showo-256-clip", "showo-vq-256"),
    *("showo-vq-blur8", "harmon-0.5b", "harmon-1.5b", "harmon-1.5b-plus", "openuni-b", "openuni-l", "bagel"),
}
"""Runs of the paper and its repository (reference "reca_recipe", section 2.1), and of models like theirs."""
"""Recipes that need no files."""
CARD = ("Source:", "Steps:", "Precision:", "Hardware:", "Cost:", "Expected:")


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


def parameters_of(name: str) -> dict[str, Config]:
    return resolve(FLOWS[recipes.flow_of(name)].parameters, recipes.find(name), None, [])


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_is_valid_and_its_card_complete(name: str) -> None:
    assert validate.faults(*parameters_of(name).values()) == []
    card = recipes.card(name)
    wanted = ("Source:", "Cost:", "Expected:") if name in RENDERED else CARD
    assert [heading for heading in wanted if heading not in card] == []


@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if name != "tiny-study"])
def test_the_plan_of_a_recipe_needs_neither_weights_nor_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECA_BENCHMARK_DATA", raising=False)
    asked = Asked(**parameters_of(name))  # type: ignore[arg-type]
    steps = {step.stage: step for step in Foresight(Home(tmp_path), "train-then-evaluate", asked).steps()}
    assert str(asked.training.steps) in steps["train"].work
    assert asked.images.source in steps["prepare"].work or name == "demo"
    assert name == "demo" or "downloaded from the hub" in steps["model"].work
    if name in PUBLISHED:
        wanted = HUB_MODELS[asked.model.source + (f"/{asked.model.weights}" if asked.model.weights else "")]
        assert all(download.repository in steps["model"].work for download in wanted.downloads)
    assert ("fine-tune" in steps) == (name == "harmon-1.5b-plus")
    assert list(tmp_path.iterdir()) == []


def test_every_published_run_has_a_recipe_and_names_a_registered_family() -> None:
    models = {name: recipes.find(name)["model"] for name in recipes.RECIPES if name not in RENDERED}
    assert models.keys() >= PUBLISHED
    assert {model.family for model in models.values()} <= set(FAMILIES)  # type: ignore[attr-defined]
    for name, model in models.items():
        assert name.partition("-")[0] == model.family  # type: ignore[attr-defined]


def test_steps_are_optimizer_steps_whatever_upstream_counts() -> None:
    seen = {}
    for name in recipes.RECIPES:
        training = parameters_of(name)["training"]
        seen[name] = training.steps * training.images_per_step  # type: ignore[attr-defined]
    assert seen["harmon-1.5b"] == 120_000, "5000 iterations of 48, every other one of reconstruction"
    assert seen["openuni-b"] == 5000 * 42
    assert seen["showo-512-clip"] == 5000 * 2 * 5


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


def test_a_recipe_knows_its_flow_and_the_full_demo_is_the_study() -> None:
    assert recipes.flow_of(demo.FULL) == "study"
    assert recipes.flow_of(demo.DEMO) == recipes.flow_of("janus-pro-1b") == recipes.DEFAULT_FLOW
    with pytest.raises(BadInput, match="did you mean tiny-study"):
        recipes.flow_of("tiny-stud")


def test_hashes_of_a_study_are_those_of_what_its_arms_will_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECA_HOME", str(tmp_path))
    home, captions = Home(tmp_path), CaptionSource(source="home:captions.json", leak_filter="off")
    (tmp_path / "captions.json").write_text("[]")
    model = ResolvedModel(name="m", family="janus", path="/m", sha256="a" * 64)
    data = PreparedData(digest="d" * 64, directory="/p", pictures=4, quarantined=0, duplicates=0)
    plan = StudyPlan(arms=["reca", "fine-tuning"], repetitions=1)
    asked = Asked(captions=captions, study=plan)
    hashes = dict(Foresight(home, "study", asked)._study_hashes(model, data))
    planned = Trainings.of_study(plan, asked.losses, captions, asked.training).planned
    requests = [complete_request(home, model, data, one.losses, captions, one.training) for one in planned]
    assert hashes == {one.stage: request_hash(asks) for one, asks in zip(planned, requests, strict=True)}
    assert requests[0].captions.source == str(tmp_path / "captions.json")
