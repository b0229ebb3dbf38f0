"""``python -m reca_core.make_tiny --family F --output DIR``: pretrain a family's tiny base with the training loop.

    tiny_start of the family -> its STAGES: image decoder, then everything else -> half-precision export

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from reca_core.contracts.errors import BadInput
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.hashing import request_hash, sha256_tree
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.lifeline import die_with_parent
from reca_core.contracts.progress import report_progress
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.registry import FAMILIES, family_entry
from reca_core.contracts.requests import ImageSource, TrainRequest
from reca_core.data.prepare import prepare
from reca_core.data.shapeworld import render, scene_from_seed
from reca_core.models.tiny_stages import SIDE_PIXELS, Stage
from reca_core.models.unified import UnifiedModel
from reca_core.training import run

WEIGHTS, CARD = "model.safetensors", "README.md"
PICTURE_SEED, PICTURES, STARTING_PICTURES = 300_000, 4096, 1200
"""Scenes that the decoder learns from, and how many of them set the encoder."""
WEIGHT_SEED = 0


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a family's tiny base is made."""

    family: str
    start: Callable[[Sequence[Image.Image], int], UnifiedModel]
    """The untrained model, from scenes that set its image encoder and a seed for the rest."""
    stages: Sequence[Stage]

    @classmethod
    def of(cls, family: str) -> Recipe:
        """From the module that the registry names. Raises BadInput with the choices for a family that has none."""
        where = family_entry(family).tiny
        if not where:
            makeable = tuple(name for name, entry in FAMILIES.items() if entry.tiny)
            raise BadInput(f"the family {family} has no tiny base", field="--family", choices=makeable)
        module = import_module(where)
        return cls(family, module.tiny_start, module.STAGES)


def main(arguments: list[str] | None = None) -> int:
    """Make or go on making a tiny base; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m reca_core.make_tiny", description=__doc__)
    parser.add_argument("--family", required=True, choices=[name for name, entry in FAMILIES.items() if entry.tiny])
    parser.add_argument("--output", type=Path, required=True, help="receives the checkpoint directory")
    parser.add_argument("--home", type=Path, default=Path("reca-home"), help="where runs and pictures are kept")
    given = parser.parse_args(arguments)
    die_with_parent()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    torch.set_num_threads(1)  # operations of this size lose more to waiting than a second thread gains
    make(given.output.resolve(), Home(given.home.resolve()), Recipe.of(given.family))
    return os.EX_OK


def make(output: Path, home: Home, recipe: Recipe) -> None:
    """All stages and the export. Raises RecaError of the kind that fits; calling it again goes on."""
    source = ImageSource(scenes=PICTURES, scene_size_pixels=SIDE_PIXELS, scene_seed=PICTURE_SEED)
    pictures = prepare(source, home, report_progress)
    model = starting_model(recipe, home.cache / f"tiny-{recipe.family}-start")
    for stage in recipe.stages:
        model = train(model, pictures, stage, home)
    export_half(Path(model.path), output)
    log.info("the tiny base is in %s", output)


def starting_model(recipe: Recipe, directory: Path) -> ResolvedModel:
    """The untrained model on disk, the same every time."""
    seeds = range(PICTURE_SEED, PICTURE_SEED + STARTING_PICTURES)
    adapter = recipe.start([render(scene_from_seed(seed), SIDE_PIXELS) for seed in seeds], WEIGHT_SEED)
    adapter.save(directory)
    return resolved(recipe.family, "start", directory)


def resolved(family: str, stage: str, directory: Path) -> ResolvedModel:
    """A checkpoint directory as a request names it."""
    return ResolvedModel(
        name=f"tiny-{family}-{stage}", family=family, path=str(directory), sha256=sha256_tree(directory)
    )


def train(model: ResolvedModel, pictures: PreparedData, stage: Stage, home: Home) -> ResolvedModel:
    """One stage in its own run directory; done at once if it was done before."""
    request = TrainRequest(
        model=model,
        data=pictures,
        losses=stage.losses,
        captions=stage.captions,
        training=stage.plan,
        numerics_version=family_entry(model.family).numerics_version,
        run_directory="",
    )
    directory: RunDirectory = home.run(request_hash(request))
    directory.path.mkdir(parents=True, exist_ok=True)
    request = request.model_copy(update={"run_directory": str(directory.path)})
    atomic_write_text(directory.request, request.model_dump_json(indent=2) + "\n")
    log.info("stage %s in %s", stage.plan.stage, directory.path)
    run.main(request)
    return resolved(model.family, stage.plan.stage, directory.final)


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
