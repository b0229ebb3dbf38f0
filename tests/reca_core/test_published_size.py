"""The measurement of a published size runs the production path, and the sizes are the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reca_core.contracts.estimate import EstimateRequest
from reca_core.contracts.hub_models import HUB_MODELS, OF_PUBLISHED_SIZE
from reca_core.contracts.requests import CaptionSource, LossTerms, TrainingPlan
from reca_core.models import published_size
from reca_core.models.published_sizes import PUBLISHED, family_of
from reca_core.training.needs import measure

FAMILY_SIZES = tuple({family_of(size): size for size in PUBLISHED}.values())
BILLIONS = {
    "janus-1.3b": (1.9, 2.3),
    "janus-pro-1b": (1.9, 2.3),
    "janus-pro-7b": (7.2, 7.6),
    "showo-256-clip": (1.6, 2.1),
    "showo-512-clip": (1.6, 2.1),
    "showo-256-vq": (1.4, 1.7),
    "showo-512-vq": (1.4, 1.7),
    "harmon-0.5b": (0.6, 1.0),
    "harmon-1.5b": (2.3, 3.2),
    "openuni-b": (1.6, 2.2),
    "openuni-l": (3.6, 4.4),
    "bagel-7b-mot": (14.0, 15.0),
}
"""Parameters, autoencoders and encoders included."""


@pytest.mark.parametrize("size", FAMILY_SIZES)
def test_a_tiny_measurement_takes_a_step_and_draws(size: str, tmp_path: Path) -> None:
    file = tmp_path / "numbers.jsonl"
    words = ["--size", size, "--tiny", "--device", "cpu", "--output", str(file)]
    assert published_size.main(words) == 0
    record = json.loads(file.read_text())
    assert record["trained"] < record["parameters"]
    assert min(record["step_seconds"], record["draw_seconds"], record["peak_gib"]) > 0
    assert f"--size {size}" in record["command"]


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_sizes_have_the_published_numbers_of_parameters(size: str) -> None:
    with torch.device("meta"):
        adapter = PUBLISHED[size]()
    low, high = BILLIONS[size]
    assert low < sum(parameter.numel() for parameter in adapter.network.parameters()) / 1e9 < high


def test_models_of_the_hub_that_have_a_published_size_are_in_both_tables() -> None:
    assert OF_PUBLISHED_SIZE.keys() == PUBLISHED.keys()
    for size, names in OF_PUBLISHED_SIZE.items():
        assert {HUB_MODELS[name].family for name in names} == {family_of(size)}


@pytest.mark.parametrize(("path", "size"), [("", ""), ("/model", "harmon-1.5b")])
def test_an_estimate_is_of_a_directory_or_of_a_published_size(path: str, size: str) -> None:
    with pytest.raises(ValueError, match="exactly one is needed"):
        EstimateRequest(
            family="harmon",
            path=path,
            size=size,
            losses=LossTerms(),
            captions=CaptionSource(),
            training=TrainingPlan(),
            directory="/",
            answer="/answer.json",
        )


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_published_size_takes_a_reconstruction_step_by_its_shapes(size: str, tmp_path: Path) -> None:
    """Sequence, masks, positions, loss and backward at the real sizes; nothing is allocated."""
    request = EstimateRequest(
        family=family_of(size),
        size=size,
        losses=LossTerms(reconstruction=1.0, image_to_text=0.0, text_to_image=0.0, text=0.0),
        captions=CaptionSource(),
        training=TrainingPlan(images_per_step=1),
        directory=str(tmp_path),
        answer=str(tmp_path / "answer.json"),
    )
    found = measure(request, "cpu")
    held = found.need.process
    assert held["weights"] >= 4 * sum(found.parameters.values())
    assert held["optimizer"] == 2 * held["gradients"] == 8 * found.trained
