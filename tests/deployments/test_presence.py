"""A setting that names a file which is not there is a fault of the setting: said before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.presence import absent
from reca_core.contracts.requests import CaptionSource, FineTuning, ImageSource


def test_every_named_file_that_is_absent_is_a_fault_of_its_field(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    found = absent(
        {
            "images": ImageSource(source=gone),
            "captions": CaptionSource(source=f"{gone}.json"),
            "fine_tuning": FineTuning(captions=f"{gone}.json"),
        }
    )
    assert {fault.field: fault.fact for fault in found} == {
        "images.source": f"{gone} does not exist",
        "captions.source": f"{gone}.json does not exist",
        "fine_tuning.captions": f"{gone}.json does not exist",
    }


@pytest.mark.parametrize("name", ["pictures", "shards/*.tar", "strange [1] name"])
def test_what_is_there_is_no_fault(tmp_path: Path, name: str) -> None:
    place = tmp_path / name.replace("*", "0")
    place.mkdir(parents=True)
    assert not list(absent({"images": ImageSource(source=str(tmp_path / name))}))


@pytest.mark.parametrize("source", ["shapeworld", "OWNER/NAME"])
def test_what_is_no_path_is_not_looked_for(source: str) -> None:
    assert not list(absent({"images": ImageSource(source=source)}))


@pytest.mark.parametrize("name", ["*.tar", "a\0b", "a" * 300])
def test_a_pattern_or_a_name_without_file_is_a_fault(tmp_path: Path, name: str) -> None:
    (fault,) = absent({"images": ImageSource(source=f"{tmp_path}/{name}")})
    assert fault.field == "images.source"
