"""Colour statistics say what the pictures hold, and a tinted set is called tinted before anyone trains on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reca_core.contracts.home import Home
from reca_core.contracts.requests import ImageSource
from reca_core.data.colour import TINTED, ColourStatistics, colours_of, statistics_of
from reca_core.data.manifest import read_summary
from reca_core.data.prepare import prepare

Tint = tuple[float, float, float]


def pictures(count: int, tint: Tint = (1.0, 1.0, 1.0)) -> list[NDArray[np.uint8]]:
    draws = np.random.default_rng(3).integers(0, 256, (count, 40, 48, 3))
    return [(picture * np.array(tint)).astype(np.uint8) for picture in draws]


def prepared_colours(tmp_path: Path, values: list[NDArray[np.uint8]]) -> ColourStatistics:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(values):
        Image.fromarray(picture).save(folder / f"{number}.png")
    prepared = prepare(ImageSource(source=str(folder)), Home(tmp_path / "home"), lambda _: None)
    return read_summary(Path(prepared.directory)).colours


def test_statistics_are_those_of_the_pixels(tmp_path: Path) -> None:
    values = pictures(5, (0.9, 1.0, 0.4))
    colours = prepared_colours(tmp_path, values)
    pixels = np.stack(values).reshape(-1, 3) / 255
    assert colours.mean == pytest.approx(pixels.mean(axis=0), abs=1e-5)
    assert colours.deviation == pytest.approx(pixels.std(axis=0), abs=1e-5)


@pytest.mark.parametrize(
    "tint, direction",
    [
        ((1.0, 1.0, 1.0), ""),
        ((1.0, 0.97, 0.92), ""),
        ((1.0, 0.95, 0.5), "yellow"),
        ((1.0, 0.7, 0.5), "orange"),
        ((0.5, 0.6, 1.0), "blue"),
        ((0.5, 1.0, 0.5), "green"),
    ],
)
def test_a_tinted_set_is_called_so(
    tmp_path: Path, tint: Tint, direction: str, caplog: pytest.LogCaptureFixture
) -> None:
    colours = prepared_colours(tmp_path, pictures(4, tint))
    assert colours.direction == direction
    assert (colours.cast > TINTED) == bool(direction)
    assert ("are tinted" in caplog.text) == bool(direction)


def test_the_cast_is_that_of_the_cie_colour_space() -> None:
    # sRGB (0.5, 0.5, 0) is L*a*b* (51.87, -12.93, 56.67) by scikit-image's rgb2lab
    colours = statistics_of([colours_of(Image.new("RGB", (8, 8), (128, 128, 0)))])
    assert (colours.cast_a, colours.cast_b) == pytest.approx((-12.93, 56.67), abs=0.3)


def test_a_few_pictures_of_coloured_things_are_no_tinted_set() -> None:
    things = [(150, 60, 40), (160, 140, 60), (90, 70, 60), (60, 60, 70), (200, 120, 60), (120, 120, 120)]
    few = [colours_of(Image.new("RGB", (16, 16), colour)) for colour in things]
    assert statistics_of(few).cast > TINTED
    assert statistics_of(few).direction == ""
    assert statistics_of(few * 100).direction == "orange"


def test_a_picture_counts_once_whatever_its_size() -> None:
    small, large = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (900, 700), (0, 0, 255))
    assert statistics_of([colours_of(small), colours_of(large)]).mean == pytest.approx([0.5, 0, 0.5])


def test_no_picture_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="no picture"):
        statistics_of([])
