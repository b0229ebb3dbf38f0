"""Making the tiny base: every stage goes through the training loop, and making it again does nothing twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reca_core import make_tiny
from reca_core.contracts.errors import BadInput
from reca_core.contracts.home import Home
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.world import WORLD_TEMPLATES
from reca_core.make_tiny import Recipe
from reca_core.models.load import adapter_class

REPORTING_SCENES = range(1_000, 20_000)
SHORT = {"steps": 4, "images_per_step": 4, "schedule": "constant", "preview_every_steps": 1_000_000}
"""Branches that begin at zero need a few steps before every tensor moves."""


MADE = sorted(name for name, entry in FAMILIES.items() if entry.tiny)


def short(recipe: Recipe) -> Recipe:
    """The first two stages, a few steps each."""
    return replace(recipe, stages=[stage.with_plan(**SHORT) for stage in recipe.stages[:2]])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(make_tiny, "PICTURES", 24)
    monkeypatch.setattr(make_tiny, "STARTING_PICTURES", 60)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("family", MADE)
def test_the_stages_make_a_half_precision_checkpoint_once(tmp_path: Path, family: str) -> None:
    home, output, recipe = Home(tmp_path / "home"), tmp_path / "tiny", short(Recipe.of(family))
    output.mkdir()
    (output / "README.md").write_text("card")
    make_tiny.make(output, home, recipe)
    weights = load_file(output / make_tiny.WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert (output / "README.md").read_text() == "card"
    assert adapter_class(family).load(output).templates == WORLD_TEMPLATES
    finished = {path: path.stat().st_mtime_ns for path in home.root.glob("runs/*/DONE.json")}
    assert len(finished) == 2
    make_tiny.make(output, home, recipe)
    assert finished == {path: path.stat().st_mtime_ns for path in home.root.glob("runs/*/DONE.json")}


@pytest.mark.parametrize("family", MADE)
def test_nothing_is_trained_on_scenes_that_are_reported(family: str) -> None:
    pictures = range(make_tiny.PICTURE_SEED, make_tiny.PICTURE_SEED + make_tiny.PICTURES)
    used = [pictures] + [
        range(stage.captions.seed, stage.captions.seed + stage.plan.steps * stage.plan.images_per_step)
        for stage in Recipe.of(family).stages
    ]
    assert all(seeds.start >= REPORTING_SCENES.stop for seeds in used)


@pytest.mark.parametrize("family", MADE)
def test_a_base_never_learns_to_reconstruct(family: str) -> None:
    assert {stage.losses.reconstruction for stage in Recipe.of(family).stages[1:]} == {0}


def test_a_family_without_a_tiny_base_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(BadInput, match="janus"):
        Recipe.of("bagel")
