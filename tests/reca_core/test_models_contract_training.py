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
def test_two_processes_train_as_one_does(family: str, tmp_path: Path) -> None:
    settings = {"steps": 3, "images_per_step": 5}
    alone = family_request(tmp_path, family, "alone", **settings)
    together = family_request(tmp_path, family, "together", processes=2, **settings)
    train(alone)
    train_on_two(together)
    one, two = (logged(Path(asked.run_directory)) for asked in (alone, together))
    assert len(one) == settings["steps"]
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, rel=DIGITS)
