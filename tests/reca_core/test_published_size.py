"""The measurement of a published size runs the production path, and the sizes are the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reca_core.models import published_size
from reca_core.models.published_sizes import PUBLISHED

BILLIONS = {
    "janus": (1.9, 2.3),
    "showo": (1.6, 2.1),
    "harmon": (2.3, 3.2),
    "openuni": (1.6, 2.2),
    "bagel": (14.0, 15.0),
}
"""Parameters, autoencoders and encoders included."""


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_tiny_measurement_takes_a_step_and_draws(family: str, tmp_path: Path) -> None:
    file = tmp_path / "numbers.jsonl"
    words = ["--family", family, "--tiny", "--device", "cpu", "--output", str(file)]
    assert published_size.main(words) == 0
    record = json.loads(file.read_text())
    assert record["trained"] < record["parameters"]
    assert min(record["step_seconds"], record["draw_seconds"], record["peak_gib"]) > 0
    assert f"--family {family}" in record["command"]


@pytest.mark.parametrize("family", PUBLISHED)
def test_the_published_sizes_have_the_published_numbers_of_parameters(family: str) -> None:
    with torch.device("meta"):
        adapter = PUBLISHED[family]()
    low, high = BILLIONS[family]
    assert low < sum(parameter.numel() for parameter in adapter.network.parameters()) / 1e9 < high
