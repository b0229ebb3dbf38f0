"""Loading and converting cost a checkpoint's own size once, in either layout (1 GiB, all families: docs/numbers.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reca_core import converting_memory
from tests.reca_core.loading_memory import HALF, MIB, make, measure, size_of

MOST = 1.2
SIZE = 200 * MIB


@pytest.mark.parametrize("folder", ["whole", HALF])
def test_memory_stays_within_a_fifth_of_the_checkpoint(tmp_path: Path, folder: str) -> None:
    for directory in make("harmon", tmp_path / folder, SIZE):
        size = size_of(directory)
        assert size > SIZE
        for task, cost in measure("harmon", directory).items():
            assert cost <= MOST * size, f"{directory.name}, {task}: {cost / size:.2f} of the checkpoint"


def test_completing_trained_weights_costs_base_and_trained_once(tmp_path: Path) -> None:
    found = converting_memory.measure("harmon", "zero-3", tmp_path, SIZE // 2)  # the dearest form: nothing stays mapped
    assert min(found.base, found.trained) > 0.9 * SIZE / 2
    assert found.ratio <= MOST, f"{found.ratio:.2f} of what is read"
