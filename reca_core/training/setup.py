"""The parts of a training, built from its request: model, data, optimizer, in the order in which they depend.

Rank 0 holds the base weights' digests; every rank holds the rest.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed
from reca_core.contracts.hashing import canonical_json, sha256_file
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.progress import report_progress
from reca_core.contracts.requests import TrainingPlan, TrainRequest
from reca_core.contracts.stages import AUTOENCODER_STAGES, division_faults
from reca_core.data import caption_pictures
from reca_core.data.caption_pictures import LeftOut
from reca_core.data.captions import SHAPEWORLD, Captions, LlavaCaptions, open_captions
from reca_core.data.feed import Pictures, Prefetch, Share, Split
from reca_core.data.images import load_verified
from reca_core.data.leaks import Leaks
from reca_core.data.manifest import read_manifest
from reca_core.models.load import load_adapter
from reca_core.models.unified import UnifiedModel
from reca_core.models.variants import following
from reca_core.training import guards
from reca_core.training.batch import Batch, BatchBuilder, needs_captions
from reca_core.training.checkpoint_folder import Found
from reca_core.training.distributed import Layout, gather, shared
from reca_core.training.optimizer import set_trainable, trainable
from reca_core.training.step import TrainingStep

PACKAGES = ("torch", "transformers", "diffusers", "numpy", "pillow")
"""Whose versions are recorded with a checkpoint and compared on resume."""
LEFT_OUT = "left_out_captions_sha256"
"""Among a checkpoint's facts."""


@dataclass(frozen=True)
class Base:
    """SHA-256 of every tensor before training, on rank 0; empty elsewhere."""

    frozen: dict[str, str]
    trained: dict[str, str]

    def with_additions(self, targets: Sequence[str]) -> Base:
        """The same where only additions to ``targets`` are trained: every tensor is frozen, those change in the end."""
        everything = self.frozen | self.trained
        return Base(everything, {name: everything[name] for name in targets if everything})

    @property
    def frozen_sha256(self) -> str:
        """One hash for all frozen tensors."""
        return hashlib.sha256(canonical_json(self.frozen).encode()).hexdigest()


@dataclass(frozen=True)
class Data:
    """Where batches come from."""

    builder: BatchBuilder
    split: Split
    captions: Captions | None
    left_out: LeftOut
    """Of the captions: every checkpoint says which."""
    pins: bool = False
    """Batches wait in pinned memory: for a CUDA device, which then copies while it computes."""

    def steps(self, first: int, end: int) -> Prefetch[list[Batch]]:
        """This rank's batches of the steps from ``first`` to before ``end``, made ahead in threads."""
        return Prefetch(self._batches, first, end)

    def _batches(self, step: int) -> list[Batch]:
        batches = [self.builder(share) for share in self.split.shares(step)]
        return [batch.pinned() for batch in batches] if self.pins else batches


def load_model(request: TrainRequest, layout: Layout) -> UnifiedModel:
    """The base model, in float32 on its device, with gradients where the stage wants them."""
    adapter = following(load_adapter(request.model, str(layout.device)), request.training)
    set_trainable(adapter.network, adapter.trainable_names(request.training.stage))
    return adapter


@torch.no_grad()
def base_with(request: TrainRequest, weights: Mapping[str, Tensor]) -> UnifiedModel:
    """The base model on the CPU with trained weights put in place."""
    adapter = following(load_adapter(request.model), request.training)
    parameters = dict(adapter.network.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
    return adapter


def base_digests(network: nn.Module, layout: Layout) -> Base:
    """Of the freshly loaded weights."""
    if not layout.leads:
        return Base({}, {})
    return Base(guards.digests(guards.frozen_tensors(network)), guards.digests(trainable(network).items()))


def open_data(request: TrainRequest, adapter: UnifiedModel, layout: Layout, found: Found | None = None) -> Data:
    """Manifest, captions and their split; ``found`` is the checkpoint to go on from.

    Raises BadInput for what cannot be trained on, CheckpointRefused where ``found`` was trained on other captions.
    """
    plan, losses = request.training, request.losses
    if plan.images_per_step < layout.world:
        raise BadInput(
            f"{plan.images_per_step} pictures cannot be divided over {layout.world} processes",
            field="training.images_per_step",
            remedy=f"at least {layout.world}",
        )
    rows = read_manifest(Path(request.data.directory))
    captions, left_out = None, LeftOut()
    # The rendered world costs nothing to open, and gives previews something to draw where no term needs captions.
    if needs_captions(plan, losses) or request.captions.source == SHAPEWORLD:
        captions = open_captions(request.captions, drawn_pixels(adapter), losses, open_leaks(request))
        left_out = _leave_out(captions, request, layout, found)
    pictures = Pictures(rows, adapter.prepare)
    builder = BatchBuilder(plan, losses, pictures, captions, adapter)
    split = Split(plan.images_per_step, plan.images_per_pass, layout.world, layout.rank)
    return Data(builder, split, captions, left_out, pins=layout.device.type == "cuda")


def _leave_out(captions: Captions, request: TrainRequest, layout: Layout, found: Found | None) -> LeftOut:
    """Without the rows whose pictures rank 0 cannot use; after a resume without those of the first attempt."""
    if not isinstance(captions, LlavaCaptions):
        return LeftOut()
    listing = RunDirectory(Path(request.run_directory)).left_out_captions

    def settle() -> LeftOut:
        if found:
            return caption_pictures.recorded(captions, listing, found.facts.get(LEFT_OUT, ""), found.folder)
        return caption_pictures.examine(captions, request.losses, listing, report_progress)

    left_out = shared(settle, layout)
    captions.leave_out(left_out.rows)
    return left_out


def open_leaks(request: TrainRequest) -> Leaks | None:
    """What fine-tuning captions are held against; None where nothing is. Raises PrerequisiteMissing, StageFailed."""
    if not request.leaks_file:
        return None
    file = Path(request.leaks_file)
    if not file.is_file():
        raise PrerequisiteMissing("is not a file", field=str(file), remedy="start the run again: it writes the file")
    if sha256_file(file) != request.leaks_sha256:
        raise StageFailed("has changed since the run was planned", field=str(file), remedy="remove it and start again")
    return Leaks.read(file, request.captions.leak_filter == "templates")


def drawn_pixels(adapter: UnifiedModel) -> int:
    """Side of the pictures that the family draws."""
    return int(adapter.prepare([Image.new("RGB", (1, 1))]).target.shape[-1])


def check_method(request: TrainRequest, adapter: UnifiedModel, data: Data) -> None:
    """The bottleneck guard, where the reconstruction term is used. Raises BadInput."""
    if request.training.stage not in AUTOENCODER_STAGES and request.losses.reconstruction > 0:
        guards.check_bottleneck(adapter, load_verified(data.builder.pictures.rows[0]))


def check_divided(plan: TrainingPlan) -> None:
    """Raises BadInput where a step is divided that cannot be."""
    for fault in division_faults(plan.stage, plan.processes * plan.nodes, plan.images_per_pass):
        raise fault


def check_best(plan: TrainingPlan, terms: Iterable[str]) -> None:
    """Raises BadInput if the best checkpoint is to be chosen by a term that is not active."""
    choices = ("off", "loss", *terms)
    if plan.best_by not in choices:
        raise BadInput(f"no {plan.best_by} loss is computed", field="training.best_by", choices=choices)


def environment_facts(layout: Layout, plan: TrainingPlan) -> dict[str, Any]:
    """What can change the last bits of a result without being part of the request: recorded, compared, not hashed."""
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "processes": layout.world,
        "sharding": plan.sharding if layout.world > 1 else "none",
        "compile": plan.compile,
        "device": layout.device.type if layout.device.type == "cpu" else torch.cuda.get_device_name(layout.device),
        "threads": torch.get_num_threads(),
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed between two sets of facts, in words."""
    names = sorted(before.keys() | now.keys())
    return [f"{name} {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)]


class Blame:
    """Finds the samples that make a step not finite, by running each one alone."""

    def __init__(self, step: TrainingStep, builder: BatchBuilder, layout: Layout) -> None:
        self.step, self.builder, self.layout = step, builder, layout

    @torch.no_grad()
    def __call__(self, batches: Sequence[Batch]) -> str:
        """The positions in the stream and the files at fault, of all ranks; every rank must call this.

        All ranks try equally many samples, because where parameters are sharded a rank cannot run alone.
        """
        mine = [position for batch in batches if batch.weight for position in batch.positions]
        tries = max(gather(len(mine), self.layout))
        filler = batches[0].positions[0]
        alone = [(position, self._faulty_alone(position)) for position in [*mine, *[filler] * (tries - len(mine))]]
        bad = [
            (position, self.builder.origin(position, term)) for position, terms in alone[: len(mine)] for term in terms
        ]
        everyone = gather((mine, bad), self.layout)
        positions = sorted(position for part in everyone for position in part[0])
        found = sorted(pair for part in everyone for pair in part[1])
        if not found:
            return f"samples at stream positions {json.dumps(positions)}; each is finite by itself"
        named = json.dumps(sorted({position for position, _ in found}))
        return f"samples at stream positions {named}: {', '.join(origin for _, origin in found)}"

    def _faulty_alone(self, position: int) -> list[str]:
        """The terms that are not finite on one sample."""
        sums = self.step(self.builder(Share((position,), 1.0)).to(self.layout.device))
        return [name for name, part in sums.items() if not guards.finite([float(part.total)])]
