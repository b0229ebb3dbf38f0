"""What every registered family must keep while it trains: resume to the bit, and two processes like one to 5 digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.lifeline import Interrupted
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import LossTerms, TrainRequest
from reca_core.models.load import adapter_class
from reca_core.models.unified import AnswersInText, DrawsFromText
from reca_core.training.blocks import repeated_blocks
from tests.reca_core.test_distributed import logged, train_on_two
from tests.reca_core.test_resume import StopAfter
from tests.reca_core.training_rig import request, train

DIGITS = 1e-5


def family_request(root: Path, family: str, run: str, **settings: Any) -> TrainRequest:
    """A short training of the family's smallest model with every loss term that it has."""
    adapter, directory = adapter_class(family), root / family
    if not directory.exists():
        adapter.smallest(seed=0).save(directory)
    terms = LossTerms(
        reconstruction=1,
        image_to_text=float(issubclass(adapter, AnswersInText)),
        text_to_image=float(issubclass(adapter, DrawsFromText)),
        text=float(issubclass(adapter, AnswersInText)),
    )
    model = ResolvedModel(name=family, family=family, path=str(directory), sha256=sha256_tree(directory))
    return request(root, run, terms, **settings).model_copy(update={"model": model})


def trained(asked: TrainRequest) -> dict[str, torch.Tensor]:
    """The weights of the exported model."""
    return adapter_class(asked.model.family).load(Path(asked.run_directory) / "final").network.state_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interrupted_training_ends_with_the_same_bits(family: str, tmp_path: Path) -> None:
    straight, broken = (family_request(tmp_path, family, run, steps=4) for run in ("straight", "broken"))
    train(straight)
    with pytest.raises(Interrupted):
        train(broken, StopAfter(2))
    train(broken)
    one, other = trained(straight), trained(broken)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_train_as_one_does_replicated_and_sharded(family: str, tmp_path: Path) -> None:
    settings = {"steps": 3, "images_per_step": 5, "checkpoint_every_steps": 3}
    alone = family_request(tmp_path, family, "alone", **settings)
    train(alone)
    one = logged(Path(alone.run_directory))
    assert len(one) == settings["steps"]
    both = [
        family_request(tmp_path, family, sharding, processes=2, sharding=sharding, **settings)
        for sharding in ("replicate", "shard")
    ]
    train_on_two(*both)
    for together in both:
        for first, second in zip(one, logged(Path(together.run_directory)), strict=True):
            assert second == pytest.approx(first, rel=DIGITS), together.training.sharding
        for name, weight in trained(alone).items():
            torch.testing.assert_close(trained(together)[name], weight, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputing_activations_changes_no_bit(family: str, tmp_path: Path) -> None:
    plain, frugal = (family_request(tmp_path, family, run, steps=2) for run in ("plain", "frugal"))
    assert repeated_blocks(adapter_class(family).smallest().network)
    train(plain)
    training = frugal.training.model_copy(update={"activation_checkpointing": True})
    train(frugal.model_copy(update={"training": training}))
    one, other = trained(plain), trained(frugal)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_trains_additions_and_exports_an_ordinary_checkpoint(family: str, tmp_path: Path) -> None:
    asked = family_request(tmp_path, family, "lora", steps=3, lora_rank=2)
    result = train(asked)
    base, found = adapter_class(family).load(Path(asked.model.path)), trained(asked)
    before = base.network.state_dict()
    assert before.keys() == found.keys()
    changed = [name for name in before if not torch.equal(before[name], found[name])]
    assert len(changed) == result.trained_tensors > 0
    assert set(changed) <= base.trainable_names("post")
    assert {found[name].ndim for name in changed} == {2}
