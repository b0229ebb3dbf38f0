"""The conditions of the experiment are what it says they are, and reach the reconstruction term alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reca_core.contracts.errors import BadInput
from reca_core.contracts.records import ResolvedModel
from reca_core.models.showo.adapter import Showo
from tests.evaluation.coarser_condition import averaged, pooled, shuffled, train
from tests.reca_core.training_rig import ALONE, request

GRID = torch.arange(16.0).reshape(1, 16, 1)


def test_squares_say_their_mean_and_stay_where_they_are() -> None:
    rows = pooled(GRID)[0, :, 0].reshape(4, 4)
    assert rows[:2, :2].unique().tolist() == [(0 + 1 + 4 + 5) / 4]
    assert rows[2:, 2:].unique().tolist() == [(10 + 11 + 14 + 15) / 4]


def test_shuffled_patches_are_the_same_in_another_order_per_picture() -> None:
    torch.manual_seed(0)
    one, two = shuffled(GRID.expand(2, 16, 1))[..., 0]
    assert sorted(one.tolist()) == sorted(two.tolist()) == list(range(16))
    assert one.tolist() != two.tolist()


def test_an_average_is_the_same_everywhere() -> None:
    assert averaged(GRID).unique().tolist() == [7.5]


def test_it_trains_and_leaves_the_family_as_it_was(tmp_path: Path) -> None:
    honest = Showo.condition
    Showo.smallest().save(tmp_path / "showo")
    model = ResolvedModel(name="showo", family="showo", path=str(tmp_path / "showo"), sha256="0")
    train(request(tmp_path, losses=ALONE, steps=1).model_copy(update={"model": model}), tmp_path / "pooled", "pooled")
    assert (tmp_path / "pooled" / "final" / "model.safetensors").exists()
    assert Showo.condition is honest
    with pytest.raises(BadInput, match="is not empty"):
        train(request(tmp_path, losses=ALONE, steps=1), tmp_path / "pooled", "averaged")
