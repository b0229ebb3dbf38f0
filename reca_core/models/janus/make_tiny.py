"""``python -m reca_core.models.janus.make_tiny --output DIR``: pretrain the bundled tiny Janus with the training loop.

    random weights -> "tokenizer" (image decoder) -> "base" (everything else) -> half-precision export

Each stage is a TrainRequest in its own run directory below ``--home``, so the command resumes where it was stopped.
Seeds: pictures for the tokenizer from 300,000 on, captions and questions from 500,000 on; what is measured on a base
uses scenes below 20,000 (below 1,000 for tuning, the others for reporting). Results: docs/tiny.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.hashing import request_hash, sha256_tree
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.lifeline import die_with_parent
from reca_core.contracts.progress import report_progress
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.registry import family_entry
from reca_core.contracts.requests import CaptionSource, ImageSource, LossTerms, TrainingPlan, TrainRequest
from reca_core.data.prepare import prepare
from reca_core.data.shapeworld import render, scene_from_seed
from reca_core.models.janus.tiny_start import SIDE_PIXELS, tiny_start
from reca_core.training import run

FAMILY = "janus"
WEIGHTS, CARD = "model.safetensors", "README.md"
PICTURE_SEED, PICTURES, STARTING_PICTURES = 300_000, 4096, 1200
"""Scenes that the tokenizer stage sees, and how many of them set the encoder and the codebook."""
WEIGHT_SEED = 0


@dataclass(frozen=True)
class Stage:
    """One training and what it asks about."""

    plan: TrainingPlan
    captions: CaptionSource = CaptionSource()
    losses: LossTerms = LossTerms()


TOKENIZER = Stage(
    TrainingPlan(
        stage="tokenizer",
        steps=860,
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=20,
        checkpoint_every_steps=200,
        preview_every_steps=200,
    )
)


def _base(
    seed: int, steps: int, learning_rate: float, warmup_steps: int, image_to_text: float, captions: CaptionSource
) -> Stage:
    """A stage of pretraining. Captions name objects only nine times in ten: it learns to read colours, counts and
    places, and hardly to draw by them. It never reconstructs: that is what post-training is for."""
    plan = TrainingPlan(
        stage="base",
        steps=steps,
        learning_rate=learning_rate,
        schedule="cosine",
        warmup_steps=warmup_steps,
        checkpoint_every_steps=100,
        preview_every_steps=1000,
        seed=seed,
    )
    losses = LossTerms(reconstruction=0, image_to_text=image_to_text, text_to_image=1, text=1)
    return Stage(plan, captions, losses)


BASE = _base(
    seed=0,
    steps=3600,
    learning_rate=1.5e-3,
    warmup_steps=50,
    image_to_text=2,
    captions=CaptionSource(rich_fraction=0.1, seed=500_000, described_fraction=0.15, finding_fraction=0.3),
)
"""Everything from the first step on, one schedule."""
FINDING = _base(
    seed=1,
    steps=500,
    learning_rate=1.2e-3,
    warmup_steps=30,
    image_to_text=3,
    captions=CaptionSource(rich_fraction=0.1, seed=800_000, described_fraction=0.05, finding_fraction=0.7),
)
"""The same again with more of what is slowest to learn: questions about an object that is found by its shape."""
POLISH = _base(
    seed=2,
    steps=600,
    learning_rate=7e-4,
    warmup_steps=20,
    image_to_text=4,
    captions=CaptionSource(rich_fraction=0.1, seed=900_000, described_fraction=0.05, finding_fraction=0.35),
)
"""All kinds of questions at a lower rate: after FINDING the easy ones had become a little worse."""
STAGES = (TOKENIZER, BASE, FINDING, POLISH)
log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Make or go on making the tiny base; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m reca_core.models.janus.make_tiny", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="receives the checkpoint directory")
    parser.add_argument("--home", type=Path, default=Path("reca-home"), help="where runs and pictures are kept")
    given = parser.parse_args(arguments)
    die_with_parent()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    torch.set_num_threads(1)  # operations of this size lose more to waiting than a second thread gains
    make(given.output.resolve(), Home(given.home.resolve()), STAGES)
    return os.EX_OK


def make(output: Path, home: Home, stages: Sequence[Stage]) -> None:
    """All stages and the export. Raises RecaError of the kind that fits; calling it again goes on."""
    source = ImageSource(scenes=PICTURES, scene_size_pixels=SIDE_PIXELS, scene_seed=PICTURE_SEED)
    pictures = prepare(source, home, report_progress)
    model = starting_model(home.cache / "tiny-janus-start")
    for stage in stages:
        model = train(model, pictures, stage, home)
    export_half(Path(model.path), output)
    log.info("the tiny base is in %s", output)


def starting_model(directory: Path) -> ResolvedModel:
    """The untrained model on disk, the same every time."""
    seeds = range(PICTURE_SEED, PICTURE_SEED + STARTING_PICTURES)
    adapter = tiny_start([render(scene_from_seed(seed), SIDE_PIXELS) for seed in seeds], WEIGHT_SEED)
    adapter.save(directory)
    return resolved("tiny-janus-start", directory)


def resolved(name: str, directory: Path) -> ResolvedModel:
    """A checkpoint directory as a request names it."""
    return ResolvedModel(name=name, family=FAMILY, path=str(directory), sha256=sha256_tree(directory))


def train(model: ResolvedModel, pictures: PreparedData, stage: Stage, home: Home) -> ResolvedModel:
    """One stage in its own run directory; done at once if it was done before."""
    request = TrainRequest(
        model=model,
        data=pictures,
        losses=stage.losses,
        captions=stage.captions,
        training=stage.plan,
        numerics_version=family_entry(FAMILY).numerics_version,
        run_directory="",
    )
    directory: RunDirectory = home.run(request_hash(request))
    directory.path.mkdir(parents=True, exist_ok=True)
    request = request.model_copy(update={"run_directory": str(directory.path)})
    atomic_write_text(directory.request, request.model_dump_json(indent=2) + "\n")
    log.info("stage %s in %s", stage.plan.stage, directory.path)
    run.main(request)
    return resolved(f"tiny-janus-{stage.plan.stage}", directory.final)


def export_half(checkpoint: Path, output: Path) -> None:
    """Copy a checkpoint directory with its weights in float16; a README.md that lies in ``output`` stays."""
    output.mkdir(parents=True, exist_ok=True)
    for file in checkpoint.iterdir():
        if file.name not in (WEIGHTS, CARD):
            shutil.copyfile(file, output / file.name)
    halved = {name: tensor.half().contiguous() for name, tensor in load_file(checkpoint / WEIGHTS).items()}
    save_file(halved, output / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    sys.exit(main())
