"""What one training holds in memory and on disk, part by part, found without allocating it.

- Parameters are counted on the network itself, read from the checkpoint's shapes or made in the published size.
- Activations and gradients are *measured*, not computed by formula: one pass of the very ``TrainingStep`` runs forward
  and backward on fake tensors, and every storage that is alive is counted (``reca_core.training.shapes``). Up to
  ``MEASURED_PICTURES`` pictures per pass are run as they are; beyond, two sizes are, and the line through them is used.
- Optimizer state, moving average and checkpoints follow from what is trained: AdamW keeps two float32 numbers for each.
- Several ranks: replicas hold everything, and DDP its buckets, as large as the gradients. FSDP2 divides weights,
  gradients, state and average by the ranks of a copy; what it gathers is a formula: everything outside the repeated
  layers, three of the largest layer (one in use, one arriving, one buffer), and the gradients of the same. For previews
  every rank has the whole weights beside its part of everything. Ranks that write a part of a checkpoint each hold a
  file of it twice more while they write it.

Not counted: memory inside one operation (workspaces of convolutions), the allocator's own slack, what previews need
beside weights, compiled kernels. On a GPU the same pass stands for it; attention kernels there may keep other
intermediates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from reca_core.contracts.disks import tree_bytes
from reca_core.contracts.estimate import (
    MOMENTS,
    Changes,
    EstimateRequest,
    Need,
    checkpoint_bytes,
    checkpoints_at_once,
    final_bytes,
)
from reca_core.contracts.requests import TrainingPlan
from reca_core.data.captions import open_captions
from reca_core.data.feed import CACHE_BYTES, Share, Split, worker_count
from reca_core.data.images import PictureUnusable, load_picture
from reca_core.models import variants
from reca_core.models.load import adapter_class
from reca_core.models.unified import Images, ReusesFeatures, UnifiedModel
from reca_core.training import lora
from reca_core.training.batch import Batch, BatchBuilder, needs_captions
from reca_core.training.blocks import prepare_blocks, repeated_blocks
from reca_core.training.feature_choice import frozen_of, obstacle_of
from reca_core.training.host_needs import Held, between_steps, buckets, host_needs, ranks_of_a_copy
from reca_core.training.longest import LongestTexts
from reca_core.training.narrow import narrow_frozen
from reca_core.training.optimizer import set_trainable, trainable
from reca_core.training.setup import drawn_pixels
from reca_core.training.shapes import Allocations, FakeParameters, loading_shapes, making_shapes
from reca_core.training.step import TrainingStep, autocast

MEASURED_PICTURES = 8
"""Most pictures of one measured pass."""
GATHERED_LAYERS = 3
"""Of the largest repeated layer, what FSDP2 has whole at one time."""
ROWS = 1 << 20
"""Positions of the one made-up picture set; any that holds a pass does."""
WEIGHTS, GRADIENTS, OPTIMIZER, AVERAGE, ACTIVATIONS = (
    "weights",
    "gradients",
    "optimizer",
    "moving average",
    "activations",
)
GATHERED, BUCKETS, BATCHES = "gathered layers", "gradient buckets", "batches made ahead"


@dataclass(frozen=True)
class Pass:
    """Bytes of one forward and backward pass, beside weights."""

    peak: int
    """Gradients included."""
    activations: int
    """Gradients left out, at their own peak."""
    batch: int
    """The pass's inputs."""


@dataclass(frozen=True)
class Measured:
    """A need and what was counted on the way."""

    need: Need
    parameters: dict[str, int]
    trained: int


class OnePicture:
    """A picture set that is one picture of noise, as often as it is asked for."""

    def __init__(self, adapter: UnifiedModel, pixels: int) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
        self.rows = range(ROWS)
        self._one = adapter.prepare([Image.fromarray(noise)])

    def images(self, indices: Sequence[int]) -> Images:
        """As many of it as there are indices."""
        return type(self._one).joined([self._one] * len(indices))


def measure(request: EstimateRequest, device: str, changed: Changes | None = None) -> Measured:
    """What the training needs with some settings changed. Raises what opening the model or the captions raises."""
    plan = request.training.model_copy(update=changed or {})
    stored: dict[torch.dtype, int] = {}
    adapter = variants.following(_of_shapes(request, stored), plan)
    if decay := plan.ema_decay or variants.parity_average(adapter, plan):
        plan = plan.model_copy(update={"ema_decay": decay})
    set_trainable(adapter.network, adapter.trainable_names(plan.stage))
    targets = lora.add(adapter.network, plan) if plan.lora_rank else []
    # Of a checkpoint in float32 only its values say whether bfloat16 holds them, and they are not read here.
    narrow = narrow_frozen(adapter.network, plan, adapter.image_tokenizer) if stored.get(torch.bfloat16) else 0
    fakes = FakeParameters()
    fakes.put_into(adapter.network)
    held = _held(adapter.network, stored, targets, narrow)
    world = plan.processes * plan.nodes
    split = Split(plan.images_per_step, plan.images_per_pass, world)
    step = TrainingStep(adapter, plan, request.losses)
    prepare_blocks(step.network, plan.model_copy(update={"compile": "off"}))
    pictures = len(split.shares(0)[0].positions)
    found = _pass(step, request, fakes, pictures)
    return Measured(
        _need(request, plan, changed or {}, held, found, device, split, pictures).model_copy(
            update={"samples": _samples(request, adapter), "features": _features(request, plan, adapter, fakes)}
        ),
        _counts(adapter.network),
        sum(parameter.numel() for parameter in trainable(adapter.network).values()),
    )


def _of_shapes(request: EstimateRequest, stored: dict[torch.dtype, int]) -> UnifiedModel:
    if request.path:
        with loading_shapes(stored):
            return adapter_class(request.family).load(Path(request.path))
    from reca_core.models.published_sizes import PUBLISHED

    with making_shapes():
        return PUBLISHED[request.size]()


def _counts(network: nn.Module) -> dict[str, int]:
    counts: dict[str, int] = {}
    for parameter in network.parameters():
        name = str(parameter.dtype).removeprefix("torch.")
        counts[name] = counts.get(name, 0) + parameter.numel()
    return counts


def _held(network: nn.Module, stored: dict[torch.dtype, int], targets: Sequence[str], narrowed: int) -> Held:
    parameters, layers = dict(network.named_parameters()), repeated_blocks(network)
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    chosen = set(targets)
    trained = trainable(network).values()
    return Held(
        weights=sum(tensor.nbytes for tensor in (*parameters.values(), *network.buffers())),
        narrowed=narrowed,
        trained=sum(parameter.nbytes for parameter in trained),
        converted=sum(size for kind, size in stored.items() if kind != torch.float32),
        layer=max((sum(parameter.nbytes for parameter in layer.parameters()) for layer in layers), default=0),
        outside=sum(parameter.nbytes for parameter in parameters.values() if id(parameter) not in inside),
        merged=sum(parameter.nbytes for name, parameter in parameters.items() if lora.plain(name) in chosen),
        largest=max((parameter.nbytes for parameter in trained), default=0),
    )


# ---- one pass --------------------------------------------------------------------------------------------------


def _pass(step: TrainingStep, request: EstimateRequest, fakes: FakeParameters, pictures: int) -> Pass:
    """Of so many pictures: measured, or on the line through two that were."""
    plan, losses, adapter = step.plan, request.losses, step.adapter
    captions = None
    if needs_captions(plan, losses):
        load = partial(_usable_or_blank, request.picture_pixels)
        captions = open_captions(request.captions, drawn_pixels(adapter), losses, load=load)
    shown = OnePicture(adapter, request.picture_pixels)
    builder = BatchBuilder(plan, losses, shown, captions, adapter)  # type: ignore[arg-type]
    longest = LongestTexts.of(adapter.templates, losses, captions)

    def run(count: int) -> Pass:
        return _run(step, longest.put_into(builder(Share(tuple(range(count)), 1.0))), fakes)

    if pictures <= MEASURED_PICTURES:
        return run(pictures)
    less, more = MEASURED_PICTURES // 2, MEASURED_PICTURES
    low, high = run(less), run(more)

    def line(first: int, second: int) -> int:
        return max(second, first + (second - first) * (pictures - less) // (more - less))

    return Pass(line(low.peak, high.peak), line(low.activations, high.activations), line(low.batch, high.batch))


def _usable_or_blank(pixels: int, path: Path) -> Image.Image:
    """The run itself leaves rows out whose pictures cannot be used; what it needs does not hang on one of them."""
    try:
        return load_picture(path)
    except PictureUnusable:
        return Image.new("RGB", (pixels, pixels))


def _run(step: TrainingStep, batch: Batch, fakes: FakeParameters) -> Pass:
    parameters = list(trainable(step.network).values())
    allocations = Allocations(fakes.mode)
    allocations.leave_out(step.network)
    hooks = [parameter.register_post_accumulate_grad_hook(allocations.is_gradient) for parameter in parameters]
    with allocations:
        sums = step(batch)
        torch.stack([part.mean() for part in sums.values()]).sum().backward()
    for hook in hooks:
        hook.remove()
    for parameter in parameters:
        parameter.grad = None
    return Pass(allocations.peak, allocations.peak_without_gradients, _batch_bytes(batch))


def _batch_bytes(batch: Batch) -> int:
    images = [part for part in (batch.pictures, batch.asked, batch.drawn) if part is not None]
    return sum(part.understanding.nbytes + part.target.nbytes for part in images)


def _samples(request: EstimateRequest, adapter: UnifiedModel) -> int:
    """Without compression, so at most; in the size that the family makes of the pictures."""
    return request.samples * OnePicture(adapter, request.picture_pixels).images([0]).target[0].numel()


def _features(request: EstimateRequest, plan: TrainingPlan, adapter: UnifiedModel, fakes: FakeParameters) -> int:
    """Bytes of frozen features that must still be written, at least; 0 where it is not known or they are not asked for.

    Of those that lie there it is not asked whose they are.
    """
    if plan.feature_cache != "on" or not request.feature_directory or not request.pictures:
        return 0
    if obstacle_of(plan, request.losses, adapter) or not isinstance(adapter, ReusesFeatures):
        return 0
    images = OnePicture(adapter, request.picture_pixels).images([0])
    parts = frozen_of(adapter.frozen_parts(), adapter.network, plan).values()
    with torch.no_grad(), autocast(adapter.network, plan.precision), Allocations(fakes.mode):
        each = sum(feature.nbytes for part in parts for feature in part.encode(images))
    seen = min(request.pictures, plan.steps * plan.images_per_step)
    return max(each * seen - tree_bytes(Path(request.feature_directory)), 0)


# ---- all of it -------------------------------------------------------------------------------------------------


def _need(
    request: EstimateRequest,
    plan: TrainingPlan,
    changed: Changes,
    held: Held,
    found: Pass,
    device: str,
    split: Split,
    pictures: int,
) -> Need:
    process = _process(plan, held, found, split)
    saved = checkpoint_bytes(held.trained, plan)
    fed = _fed(request, plan, found, split, pictures)
    on_cpu = device == "cpu"
    host = host_needs(plan, held, saved, sum(process.values()), on_cpu, fed)
    loaded, share = held.weights + held.narrowed, ranks_of_a_copy(plan)
    drawing = between_steps(plan, held, saved, share) + held.weights if share > 1 else 0
    return Need(
        changed=changed,
        images_per_pass=pictures,
        process=process,
        device_peak=0 if on_cpu else max(sum(process.values()), loaded, drawing),
        host=host,
        host_peak=max(host.values()),
        checkpoint=saved,
        checkpoints_kept=checkpoints_at_once(plan),
        final=final_bytes(loaded, plan),
        samples=0,
    )


def _process(plan: TrainingPlan, held: Held, found: Pass, split: Split) -> dict[str, int]:
    """Parts of one rank at the peak of a step; those that are nothing are left out."""
    share = ranks_of_a_copy(plan)
    average = held.trained if plan.ema_decay else 0
    activations = found.activations
    if split.passes == 1:
        activations = _beside_gradients(found, held.trained, share)
    whole = held.outside + GATHERED_LAYERS * held.layer
    parts = {
        WEIGHTS: held.weights // share,
        GRADIENTS: held.trained // share,
        OPTIMIZER: held.trained * MOMENTS // share,
        AVERAGE: average // share,
        ACTIVATIONS: activations,
        GATHERED: (whole + min(whole, held.trained)) if share > 1 else 0,
        BUCKETS: buckets(plan, held),
    }
    return {name: size for name, size in parts.items() if size}


def _beside_gradients(found: Pass, trained: int, share: int) -> int:
    """Activations of the only pass of a step, so counted that with all of the rank's gradients they are the peak.

    Gradients g grow while activations a go, so the peak of a + g is less than that of a and of g together. A rank keeps
    g / share, and a + g / share is (1 - 1 / share) parts of a, and 1 / share parts of a + g, whose peaks are known.
    """
    alone = found.activations - found.activations // share
    return max(alone + (found.peak - trained) // share, 0)


def _fed(request: EstimateRequest, plan: TrainingPlan, found: Pass, split: Split, pictures: int) -> int:
    """Batches that threads make ahead, and all pictures where they are few enough to be kept."""
    ahead = (worker_count() + 1) * split.passes * found.batch
    seen = min(request.pictures or plan.steps * plan.images_per_step, plan.steps * plan.images_per_step)
    kept = seen * found.batch // pictures
    return ahead + (kept if kept <= CACHE_BYTES else 0)
