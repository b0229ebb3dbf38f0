"""Whether a training keeps frozen features (``training.feature_cache``), of which parts, and why.

A feature is kept under a key made of everything that can change it, and of nothing else: the family and its numerics
version, the part with its settings (``FrozenPart.settings``: picture transform, sizes), the SHA-256 of the weights it
is computed with, the rules by which pictures are decoded, precision, and the facts of the environment that can change
last bits. So trainings share features over stages, data sets and loss weights, and never by mistake.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from reca_core.contracts import disks
from reca_core.contracts.errors import BadInput
from reca_core.contracts.estimate import checkpoint_bytes, checkpoints_at_once, final_bytes
from reca_core.contracts.hashing import HASH_LENGTH, canonical_json, sha256_text
from reca_core.contracts.records import ManifestRow
from reca_core.contracts.requests import LossTerms, TrainingPlan, TrainRequest
from reca_core.contracts.stages import AUTOENCODER_STAGES
from reca_core.data.feature_store import FeatureStore
from reca_core.data.images import load_verified
from reca_core.data.manifest import DECODING_VERSION
from reca_core.models.unified import FrozenPart, FrozenParts, ReusesFeatures, UnifiedModel
from reca_core.training import setup
from reca_core.training.distributed import Layout, add_up, sharded, shared, wait_for_all
from reca_core.training.features import TARGET, UNDERSTANDING, Features
from reca_core.training.step import OWN_TOKENS

log = logging.getLogger(__name__)

FIELD = "training.feature_cache"
WORTH_LOOKS = 2.0
"""How often every picture must be looked at for ``auto`` to keep its features. Those that are known count as a look
that was taken, so that a training that was killed in its first epoch decides as it did before."""
LOOK_DIGITS = 6
WORTH_KNOWN = 0.5
"""Or which share of them must be known already."""
DISK_SHARE = {"auto": 0.5, "on": 0.9}
"""Of the disk that stays free for them, which features may fill."""
SAMPLED_PICTURES = 1000
"""Of large data sets so many are looked up to see how much is known."""
MEASURED_PICTURES = 4
"""Are encoded to see how large a feature is: pictures of one set may differ in size."""
LAYOUT_FACTS = ("python", "processes", "sharding")
"""Facts of an environment that change no feature."""


@dataclass(frozen=True)
class Choice:
    """What is kept: key in words by part; nothing where ``keys`` is empty."""

    keys: dict[str, dict[str, Any]]
    why: str


@dataclass(frozen=True)
class Outlook:
    """What keeping would cost and bring."""

    pictures: int
    """Of the data set."""
    looks: float
    """How often each of them will still be looked at."""
    known: float
    """Share whose features are there."""
    bytes: int
    """That would be written."""
    free: int
    """Bytes free on the disk."""
    reserved: int = 0
    """Of these, what the training's own checkpoints and its finished model have yet to take."""


def open_features(
    request: TrainRequest,
    adapter: UnifiedModel,
    base: setup.Base,
    rows: Sequence[ManifestRow],
    done_steps: int,
    layout: Layout,
) -> Features | None:
    """The features that this training reuses; None where it does without. Before parameters are sharded.

    Rank 0 decides for all and writes the reason into the log. Raises BadInput where the plan says ``on`` and features
    cannot be kept.
    """
    plan = request.training
    choice = shared(lambda: choose(request, adapter, base, rows, done_steps, layout), layout)
    if layout.leads:
        log.info("frozen features: %s", choice.why)
    if not choice.keys or not isinstance(adapter, ReusesFeatures):
        return None
    return Features(
        adapter.frozen_parts(),
        {name: FeatureStore(place_of(request, key), key) for name, key in choice.keys.items()},
        needed_parts(plan),
        layout.device,
        meet=lambda: wait_for_all(layout),
        everywhere=(lambda here: _on_all(here, layout)) if sharded(layout, plan) else None,
        epoch=len(rows),
    )


def _on_all(here: bool, layout: Layout) -> bool:
    """True where it is true on every rank."""
    absent = torch.tensor([0.0 if here else 1.0], device=layout.device)
    return float(add_up(absent, layout)[0]) == 0


def choose(
    request: TrainRequest,
    adapter: UnifiedModel,
    base: setup.Base,
    rows: Sequence[ManifestRow],
    done_steps: int,
    layout: Layout,
) -> Choice:
    """The decision with its reason. Raises BadInput where ``on`` cannot be followed."""
    plan = request.training
    if plan.feature_cache == "off":
        return Choice({}, "off, as asked for")
    obstacle = _no_place(request) or obstacle_of(plan, request.losses, adapter)
    if obstacle or not isinstance(adapter, ReusesFeatures):
        return _without(plan, obstacle)
    frozen = frozen_of(adapter.frozen_parts(), adapter.network, plan)
    keys = {name: key_of(request, name, part, base, layout) for name, part in frozen.items()}
    outlook = look_ahead(request, adapter, list(frozen.values()), list(keys.values()), rows, done_steps)
    keep, reason = judged(plan, outlook)
    if not keep:
        return _without(plan, reason)
    learning = sorted(set(needed_parts(plan)) - frozen.keys())
    besides = f"; {' and '.join(learning)} learns in this stage and is computed anew" if learning else ""
    return Choice(keys, f"kept of {' and '.join(sorted(keys))}: {reason}{besides}")


def _without(plan: TrainingPlan, reason: str) -> Choice:
    if plan.feature_cache == "on":
        _refuse(reason)
    return Choice({}, f"not kept: {reason}")


def _refuse(reason: str) -> NoReturn:
    raise BadInput(f"features cannot be kept: {reason}", field=FIELD, choices=("auto", "off"))


def needed_parts(plan: TrainingPlan) -> tuple[str, ...]:
    """The parts that reconstruction reads; the control without a bottleneck looks at the target alone."""
    return (TARGET,) if plan.condition == OWN_TOKENS else (UNDERSTANDING, TARGET)


def _named(parts: FrozenParts, plan: TrainingPlan) -> dict[str, FrozenPart[Any]]:
    found: dict[str, FrozenPart[Any]] = {UNDERSTANDING: parts.understanding, TARGET: parts.target}
    return {name: found[name] for name in needed_parts(plan)}


def frozen_of(parts: FrozenParts, network: nn.Module, plan: TrainingPlan) -> dict[str, FrozenPart[Any]]:
    """Those whose features can be kept in this stage, by name."""
    return {name: part for name, part in _named(parts, plan).items() if not learns(network, part)}


def learns(network: nn.Module, part: FrozenPart[Any]) -> bool:
    """Whether this stage changes a weight that the part is computed with, LoRA's additions included."""
    return any(
        parameter.requires_grad for name, parameter in network.named_parameters() if name.startswith(part.weights)
    )


def _no_place(request: TrainRequest) -> str:
    """Why there is no folder to keep features in; empty where there is."""
    if not request.feature_directory:
        return "the request names no folder for them (feature_directory)"
    folder = disks.standing(Path(request.feature_directory))
    return "" if os.access(folder, os.W_OK) else f"{folder} may not be written to"


def obstacle_of(plan: TrainingPlan, losses: LossTerms, adapter: UnifiedModel) -> str:
    """Why no feature can be kept, whatever it would cost and wherever; empty where one can."""
    if plan.stage in AUTOENCODER_STAGES:
        return f"the stage {plan.stage!r} learns from pixels"
    if losses.reconstruction == 0:
        return (
            "only reconstruction looks at the data set's pictures with an encoder, and its weight is 0; those of the "
            "replay terms come from the captions' source, whose rendered scenes never repeat"
        )
    if not isinstance(adapter, ReusesFeatures):
        return f"the family {adapter.family} declares no frozen part"
    parts = _named(adapter.frozen_parts(), plan)
    if all(learns(adapter.network, part) for part in parts.values()):
        return f"stage {plan.stage} trains everything that they are computed with ({', '.join(sorted(parts))})"
    return ""


def key_of(request: TrainRequest, name: str, part: FrozenPart[Any], base: setup.Base, layout: Layout) -> dict[str, Any]:
    """Everything that can change a feature, in words; its hash names the directory. ``base`` must be rank 0's."""
    weights = {tensor: digest for tensor, digest in base.frozen.items() if tensor.startswith(part.weights)}
    facts = setup.environment_facts(layout, request.training)
    return {
        "part": name,
        "family": request.model.family,
        "numerics_version": request.numerics_version,
        "decoding_version": DECODING_VERSION,
        "settings": part.settings,
        "weights_sha256": sha256_text(canonical_json(weights)),
        "precision": request.training.precision if name == UNDERSTANDING else "float32",
        "environment": {fact: value for fact, value in facts.items() if fact not in LAYOUT_FACTS},
    }


def place_of(request: TrainRequest, key: dict[str, Any]) -> Path:
    """The directory of a key."""
    return Path(request.feature_directory) / sha256_text(canonical_json(key))[:HASH_LENGTH]


def look_ahead(
    request: TrainRequest,
    adapter: UnifiedModel,
    parts: Sequence[FrozenPart[Any]],
    keys: Sequence[dict[str, Any]],
    rows: Sequence[ManifestRow],
    done_steps: int,
) -> Outlook:
    """What is there, what is to come, and what it would take."""
    plan, count = request.training, len(rows)
    coming = (plan.steps - done_steps) * plan.images_per_step
    sample = [rows[at * count // min(count, SAMPLED_PICTURES)] for at in range(min(count, SAMPLED_PICTURES))]
    known = min(_known_share(place_of(request, key), key, sample) for key in keys)
    each = bytes_each(
        adapter, parts, [sample[at * len(sample) // MEASURED_PICTURES] for at in range(MEASURED_PICTURES)]
    )
    return Outlook(
        pictures=count,
        looks=coming / count,
        known=known,
        bytes=int(each * min(count, coming) * (1 - known)),
        free=disks.free_bytes(Path(request.feature_directory)),
        reserved=reserved_bytes(request, adapter.network),
    )


def reserved_bytes(request: TrainRequest, network: nn.Module) -> int:
    """What this training has yet to write on the disk of the features, beside them: those give way, it cannot."""
    plan, run = request.training, Path(request.run_directory)
    if not disks.same(run, Path(request.feature_directory)):
        return 0
    parameters = list(network.parameters())
    weights = sum(tensor.nbytes for tensor in (*parameters, *network.buffers()))
    trained = sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)
    whole = checkpoint_bytes(trained, plan) * checkpoints_at_once(plan) + final_bytes(weights, plan)
    return max(whole - disks.tree_bytes(run), 0)


def _known_share(place: Path, key: dict[str, Any], sample: Sequence[ManifestRow]) -> float:
    if not place.is_dir():
        return 0.0
    store = FeatureStore(place, key)
    try:
        return sum(row.sha256 in store for row in sample) / len(sample)
    finally:
        store.close()


@torch.no_grad()
def bytes_each(adapter: UnifiedModel, parts: Sequence[FrozenPart[Any]], rows: Sequence[ManifestRow]) -> float:
    """Of all these features of one picture, on average over ``rows``."""
    images = adapter.prepare([load_verified(row) for row in rows])
    return sum(feature.nbytes for part in parts for feature in part.encode(images)) / len(rows)


def judged(plan: TrainingPlan, outlook: Outlook) -> tuple[bool, str]:
    """Whether to keep features, and why, in a sentence with the numbers it rests on."""
    share, left = DISK_SHARE[plan.feature_cache], max(outlook.free - outlook.reserved, 0)
    size, free = _size(outlook.bytes), f"{_size(outlook.free)} free"
    if outlook.reserved:
        free = f"{free}, {_size(outlook.reserved)} of it for checkpoints and the finished model"
    looks = f"{outlook.looks:.1f} looks at each of {outlook.pictures:,} pictures are to come"
    if outlook.bytes > share * left:
        return False, f"they would take {size}, more than {share:.0%} of the {_size(left)} that stay free ({free})"
    if plan.feature_cache == "on":
        return True, f"as asked for; {looks}, {outlook.known:.0%} known, {size} to write, {free}"
    if outlook.known >= WORTH_KNOWN:
        return True, f"{outlook.known:.0%} of the pictures are known already; {size} to write, {free}"
    if round(outlook.looks + outlook.known, LOOK_DIGITS) < WORTH_LOOKS:
        return False, f"{looks}, which pays from {WORTH_LOOKS:g} on, and {outlook.known:.0%} are known"
    return True, f"{looks}; {size} to write, {free}"


def _size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
