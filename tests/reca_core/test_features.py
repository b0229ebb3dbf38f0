"""Frozen features in training: losses and gradients are those of the uncached run to the bit (float32, CPU).

That holds because no family's frozen part gives a picture other bits in another batch, from two pictures on
(``test_features_do_not_depend_on_the_batch``); where a device's kernels do not promise as much, digits agree.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import LossTerms, TrainingPlan, TrainRequest
from reca_core.data.feature_store import FeatureStore
from reca_core.data.feed import Pictures
from reca_core.models.load import adapter_class
from reca_core.models.showo.adapter import Showo
from reca_core.models.unified import FrozenPart, Images, ReusesFeatures, UnifiedModel
from reca_core.training import checkpoint_folder
from reca_core.training.batch import Batch
from reca_core.training.feature_choice import learns
from reca_core.training.features import TARGET, UNDERSTANDING, Features, Known
from reca_core.training.optimizer import set_trainable
from reca_core.training.run import Training
from reca_core.training.step import OWN_TOKENS, TrainingStep
from tests.reca_core.children import launch, start
from tests.reca_core.test_distributed import EVERY_TERM, assert_same_training, logged, train_on_two
from tests.reca_core.test_models_contract import keep_text, pictures, words
from tests.reca_core.test_models_contract_training import family_request
from tests.reca_core.test_models_contract_training import trained as final_weights
from tests.reca_core.test_resume import StopAfter, interrupt
from tests.reca_core.training_rig import ALONE, ONE_PROCESS, plan, request, train, weights, write_request

COUNT = 5
KEYS = tuple(hashlib.sha256(bytes([number])).hexdigest() for number in range(COUNT))
VQ = "showo without clip"
VARIANTS = [*FAMILIES, VQ]


def smallest(variant: str, stage: str = "post") -> UnifiedModel:
    adapter = Showo.smallest(0, clip=False) if variant == VQ else adapter_class(variant).smallest(0)
    set_trainable(adapter.network, adapter.trainable_names(stage))
    return adapter


def frozen(adapter: UnifiedModel) -> dict[str, FrozenPart[Any]]:
    assert isinstance(adapter, ReusesFeatures)
    parts = adapter.frozen_parts()
    return {UNDERSTANDING: parts.understanding, TARGET: parts.target}


def features(adapter: UnifiedModel, place: Path) -> Features:
    """Kept of every part that the stage leaves alone."""
    assert isinstance(adapter, ReusesFeatures)
    kept = [name for name, part in frozen(adapter).items() if not learns(adapter.network, part)]
    return Features(
        adapter.frozen_parts(),
        {name: FeatureStore(place / name, {}) for name in kept},
        (UNDERSTANDING, TARGET),
        torch.device("cpu"),
        meet=lambda: None,
        everywhere=None,
        epoch=COUNT,
    )


def batch(adapter: UnifiedModel, rows: Sequence[int], images: Images | None, known: Known) -> Batch:
    texts = tuple(words(adapter, len(rows)))
    return Batch(tuple(range(len(rows))), 1.0, images, texts, keep_text(len(rows)), known=known)


def outcome(
    adapter: UnifiedModel, rows: Sequence[int], reused: Features | None, settings: TrainingPlan, pixels: bool = True
) -> dict[str, torch.Tensor]:
    """The loss and every gradient of a pass over some of the pictures."""
    shown = pictures(COUNT)
    images = adapter.prepare([shown[row] for row in rows]) if pixels else None
    named = [KEYS[row] for row in rows]
    known = reused.look_up(named) if reused else Known(())
    step = TrainingStep(adapter, settings, ALONE, reused)
    (loss,) = step(batch(adapter, rows, images, known)).values()
    adapter.network.zero_grad(set_to_none=True)
    loss.mean().backward()
    gradients = {name: p.grad.clone() for name, p in adapter.network.named_parameters() if p.grad is not None}
    return {"loss": loss.total.detach(), **gradients}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_are_those_of_the_uncached_pass(variant: str, tmp_path: Path) -> None:
    adapter, settings = smallest(variant), plan()
    plain = outcome(adapter, range(COUNT), None, settings)
    first = features(adapter, tmp_path)
    assert set(first.stores) == {UNDERSTANDING, TARGET}
    assert_equal(plain, outcome(adapter, range(COUNT), first, settings))
    assert (first.computed, first.reused) == (2 * COUNT, 0)
    first.close()
    again, others = features(adapter, tmp_path), [3, 1, 2]
    assert_equal(plain, outcome(adapter, range(COUNT), again, settings, pixels=False))
    assert_equal(outcome(adapter, others, None, settings), outcome(adapter, others, again, settings, pixels=False))
    assert (again.computed, again.reused) == (0, 2 * COUNT + 2 * len(others))


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_do_not_depend_on_the_batch(variant: str) -> None:
    adapter, shown = smallest(variant), pictures(COUNT)
    for name, part in frozen(adapter).items():
        whole = part.encode(adapter.prepare(shown))
        for rows in ([0, 1], [4, 3, 2]):
            some = part.encode(adapter.prepare([shown[row] for row in rows]))
            assert all(torch.equal(whole[row], one) for row, one in zip(rows, some, strict=True)), name


@pytest.mark.parametrize("name", [UNDERSTANDING, TARGET])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_part_is_computed_with_the_weights_it_declares_and_no_others(variant: str, name: str) -> None:
    adapter = smallest(variant)
    part, images = frozen(adapter)[name], adapter.prepare(pictures(2))
    tensors = dict(adapter.network.named_parameters())
    mine = [tensor for key, tensor in tensors.items() if key.startswith(part.weights)]
    assert mine
    assert part.settings
    before = part.encode(images)
    assert not any(row.requires_grad for row in before)
    change(tensor for key, tensor in tensors.items() if not key.startswith(part.weights))
    assert all(torch.equal(one, two) for one, two in zip(before, part.encode(images), strict=True))
    change(mine)
    assert not all(torch.equal(one, two) for one, two in zip(before, part.encode(images), strict=True))


@torch.no_grad()
def change(tensors: Iterable[torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    for tensor in tensors:
        tensor.normal_(std=0.3, generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_part_that_learns_is_computed_anew(family: str, tmp_path: Path) -> None:
    adapter = smallest(family, "base")
    reused = features(adapter, tmp_path)
    expected = {UNDERSTANDING, TARGET} if family == "harmon" else {TARGET}
    assert set(reused.stores) == expected, "only Harmon looks at latents of its frozen autoencoder"
    plain = outcome(adapter, range(COUNT), None, plan())
    for _ in range(2):
        assert_equal(plain, outcome(adapter, range(COUNT), reused, plan()))
    assert reused.reused == COUNT * len(expected)
    assert reused.suffice(reused.look_up(KEYS)) == (family == "harmon")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_feature_keeps_the_type_that_the_encoder_gave_it(family: str, tmp_path: Path) -> None:
    adapter, settings = smallest(family), plan(precision="bfloat16")
    reused = features(adapter, tmp_path)
    plain = outcome(adapter, range(COUNT), None, settings)
    for _ in range(2):
        assert_equal(plain, outcome(adapter, range(COUNT), reused, settings))
    found = {name: reused.look_up(KEYS).rows[name][0].dtype for name in reused.stores}
    with torch.autocast("cpu", torch.bfloat16):
        seen = frozen(adapter)[UNDERSTANDING].encode(adapter.prepare(pictures(2)))[0].dtype
    assert found[UNDERSTANDING] == seen
    assert found[TARGET] in (torch.float32, torch.int64)


def test_the_control_without_a_bottleneck_keeps_targets_alone(tmp_path: Path) -> None:
    adapter, settings = smallest("janus"), plan(condition=OWN_TOKENS)
    reused = features(adapter, tmp_path)
    plain = outcome(adapter, range(COUNT), None, settings)
    for _ in range(2):
        assert_equal(plain, outcome(adapter, range(COUNT), reused, settings))
    assert len(reused.stores[UNDERSTANDING]) == 0


def cached(root: Path, run: str, losses: LossTerms = ALONE, choice: str = "on", **settings: Any) -> TrainRequest:
    asked = request(root, run, losses, feature_cache=choice, **settings)
    return asked.model_copy(update={"feature_directory": str(root / "features")})


def trained(asked: TrainRequest) -> Features:
    """Train; the features that were used."""
    training = Training(asked, ONE_PROCESS, StopAfter(10**6))
    training.complete()
    assert training.features is not None
    return training.features


def shards(root: Path) -> list[Path]:
    return sorted((root / "features").glob("*/*.safetensors"))


def test_trainings_share_features_and_the_second_computes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = cached(tmp_path, "plain", choice="off")
    train(plain)
    assert not shards(tmp_path)
    first = trained(cached(tmp_path, "first"))
    assert (first.computed, first.reused) == (24, 24), "two epochs of 12 pictures, two parts"
    monkeypatch.setattr(Pictures, "images", lambda *_: pytest.fail("a picture was decoded"))
    second = trained(cached(tmp_path, "second", choice="auto"))
    assert (second.computed, second.reused) == (0, 48)
    other = trained(cached(tmp_path, "other", losses=EVERY_TERM, learning_rate=1e-4, seed=3, steps=2))
    assert other.computed == 0
    monkeypatch.undo()
    shutil.copy(shards(tmp_path)[0], tmp_path / "kept")
    with safe_open(tmp_path / "kept", "pt") as file:
        lost = len(file.keys())
    shards(tmp_path)[0].write_bytes((tmp_path / "kept").read_bytes()[:-3])
    with caplog.at_level(logging.WARNING):
        mended = trained(cached(tmp_path, "mended"))
    assert "is damaged" in caplog.text
    assert mended.computed == lost
    for run in ("first", "second", "mended"):
        assert logged(tmp_path / run) == logged(tmp_path / "plain")
        assert weights(cached(tmp_path, run)) == weights(plain)


def test_a_resumed_training_goes_on_with_what_was_kept(tmp_path: Path) -> None:
    plain, broken = cached(tmp_path, "plain", choice="off"), cached(tmp_path, "broken")
    train(plain)
    interrupt(broken, 2)
    kept = shards(tmp_path)
    assert len(kept) == 2, "one of each part, written on the way out"
    rest = trained(broken)
    assert (rest.computed, rest.reused) == (8, 24), "a third of the first epoch was missing"
    assert weights(broken) == weights(plain)
    assert logged(tmp_path / "broken") == logged(tmp_path / "plain")


def launch_and_die_before(path: Path, last: int) -> None:
    """Train until the checkpoint of a step would appear, and be killed there."""
    publish = checkpoint_folder.publish

    def dying(directory: Path, step: int, *rest: Any) -> Path:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return publish(directory, step, *rest)

    checkpoint_folder.publish = dying  # type: ignore[assignment]
    launch("train", path)


@pytest.mark.parametrize("family", ["bagel", "harmon"])
def test_killed_in_its_first_epoch_a_training_with_uneven_passes_ends_with_the_same_bits(
    family: str, tmp_path: Path
) -> None:
    uneven = {"steps": 9, "images_per_step": 3, "images_per_pass": 2, "pictures": 13}
    settings = {**uneven, "checkpoint_every_steps": 1, "checkpoint_in_background": False, "feature_cache": "on"}
    straight, broken = (
        family_request(tmp_path, family, run, **settings).model_copy(
            update={"losses": ALONE, "feature_directory": str(tmp_path / f"features of {run}")}
        )
        for run in ("straight", "broken")
    )
    train(straight)
    path = write_request(broken)
    for step in (3, 5):
        child = start(launch_and_die_before, path, step)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    train(broken)
    one, other = final_weights(straight), final_weights(broken)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("sharding", ["replicate", "shard"])
def test_two_ranks_keep_features_together(tmp_path: Path, sharding: str) -> None:
    settings = {"steps": 5, "images_per_step": 7, "images_per_pass": 2}
    plain = cached(tmp_path, "plain", choice="off", **settings)
    train(plain)
    both, again = (cached(tmp_path, run, processes=2, sharding=sharding, **settings) for run in ("both", "again"))
    train_on_two(both)
    written = shards(tmp_path)
    assert len({shard.parent for shard in written}) == 2
    assert len(written) >= 4, "each rank writes its own"
    train_on_two(again)
    assert shards(tmp_path) == written, "nothing was left to compute"
    for run in ("both", "again"):
        assert_same_training(tmp_path / "plain", tmp_path / run)
