"""Loading and converting cost a checkpoint's own size once, in either layout (1 GiB, all families: docs/numbers.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

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
