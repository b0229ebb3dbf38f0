"""A complete training request on disk: the tiny Janus, a folder of pictures, a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from reca_core.contracts.files import write_json
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.lifeline import StopRequest
from reca_core.contracts.records import PreparedData, ResolvedModel, TrainResult
from reca_core.contracts.requests import CaptionSource, ImageSource, LossTerms, TrainingPlan, TrainRequest
from reca_core.contracts.world import VOCABULARY, WORLD_TEMPLATES
from reca_core.data.prepare import prepare
from reca_core.training.distributed import Layout
from reca_core.training.run import Training
from tests.reca_core.tiny_janus import save_tiny_janus, tiny_pictures

torch.set_num_threads(1)  # threads of these tiny operations spend their time waiting for each other
ONE_PROCESS = Layout(0, 1, torch.device("cpu"))
NEVER = 10_000_000
"""A preview or checkpoint interval that no test reaches."""
RECA = LossTerms(reconstruction=1, image_to_text=1, text_to_image=0, text=1)
ALONE = LossTerms(reconstruction=1, image_to_text=0, text_to_image=0, text=0)


def write_pictures(root: Path, count: int = 12) -> PreparedData:
    """A folder of random pictures below ``root``, prepared."""
    folder = root / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(tiny_pictures(count)):
        picture.save(folder / f"{number:03d}.png")
    source = ImageSource(source=str(folder), kind="folder")
    return prepare(source, Home(root / "home"), lambda progress: None, workers=1)


def base_model(directory: Path) -> ResolvedModel:
    """The tiny Janus with random weights and the rendered world's words; written once per directory."""
    if not directory.exists():
        save_tiny_janus(directory, words=VOCABULARY, templates=WORLD_TEMPLATES)
    return ResolvedModel(name="random-janus", family="janus", path=str(directory), sha256=sha256_tree(directory))


def plan(**settings: Any) -> TrainingPlan:
    """A short training without previews, on the CPU; ``settings`` override."""
    quick = {
        "steps": 6,
        "images_per_step": 4,
        "warmup_steps": 2,
        "learning_rate": 1e-3,
        "checkpoint_every_steps": 2,
        "preview_every_steps": NEVER,
        "device": "cpu",
    }
    return TrainingPlan(**{**quick, **settings})


def request(
    root: Path, run: str = "run", losses: LossTerms = RECA, pictures: int = 12, **settings: Any
) -> TrainRequest:
    """A training below ``root``; base model and pictures are shared by all runs of one root."""
    return TrainRequest(
        model=base_model(root / "base"),
        data=write_pictures(root, pictures),
        losses=losses,
        captions=CaptionSource(),
        training=plan(**settings),
        numerics_version=1,
        run_directory=str(root / run),
    )


def write_request(asked: TrainRequest) -> Path:
    """``request.json`` of the run; returns its path."""
    path = RunDirectory(Path(asked.run_directory)).request
    write_json(path, asked.model_dump())
    return path


def train(asked: TrainRequest, stop: StopRequest | None = None) -> TrainResult:
    """Train in this process; returns the result record."""
    Training(asked, ONE_PROCESS, stop or StopRequest()).complete()
    return TrainResult.model_validate_json(RunDirectory(Path(asked.run_directory)).done.read_bytes())


def weights(asked: TrainRequest) -> bytes:
    """The bytes of the exported weights."""
    return (Path(asked.run_directory) / "final" / "model.safetensors").read_bytes()
