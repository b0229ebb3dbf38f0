"""Making the tiny base: every stage goes through the training loop, and making it again does nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reca_core.contracts.home import Home
from reca_core.contracts.world import WORLD_TEMPLATES
from reca_core.models.janus import make_tiny
from reca_core.models.janus.adapter import Janus
from reca_core.models.janus.make_tiny import BASE, STAGES, TOKENIZER, Stage

REPORTING_SCENES = range(1_000, 20_000)
SHORT = {"steps": 4, "images_per_step": 4, "schedule": "constant", "preview_every_steps": 1_000_000}
"""Branches that begin at zero need a few steps before every tensor moves."""


def short(stage: Stage) -> Stage:
    return Stage(stage.plan.model_copy(update=SHORT), stage.captions, stage.losses)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(make_tiny, "PICTURES", 24)
    monkeypatch.setattr(make_tiny, "STARTING_PICTURES", 60)


@pytest.mark.usefixtures("small")
def test_the_stages_make_a_half_precision_checkpoint_once(tmp_path: Path) -> None:
    home, output = Home(tmp_path / "home"), tmp_path / "tiny"
    output.mkdir()
    (output / "README.md").write_text("card")
    make_tiny.make(output, home, [short(TOKENIZER), short(BASE)])
    weights = load_file(output / make_tiny.WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert (output / "README.md").read_text() == "card"
    assert Janus.load(output).templates == WORLD_TEMPLATES
    finished = {path: path.stat().st_mtime_ns for path in home.root.glob("runs/*/DONE.json")}
    assert len(finished) == 2
    make_tiny.make(output, home, [short(TOKENIZER), short(BASE)])
    assert finished == {path: path.stat().st_mtime_ns for path in home.root.glob("runs/*/DONE.json")}


def test_nothing_is_trained_on_scenes_that_are_reported() -> None:
    pictures = range(make_tiny.PICTURE_SEED, make_tiny.PICTURE_SEED + make_tiny.PICTURES)
    used = [pictures] + [
        range(stage.captions.seed, stage.captions.seed + stage.plan.steps * stage.plan.images_per_step)
        for stage in STAGES
    ]
    assert all(seeds.start >= REPORTING_SCENES.stop for seeds in used)


def test_the_base_never_learns_to_reconstruct() -> None:
    assert {stage.losses.reconstruction for stage in STAGES[1:]} == {0}
