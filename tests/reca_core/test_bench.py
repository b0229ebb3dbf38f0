"""The sections training and data of `make bench`: what they time is a real step and a real feed."""

from __future__ import annotations

from pathlib import Path

import pytest

from reca_core import bench_training
from reca_core.bench_data import data, wait_seconds
from reca_core.bench_training import overhead, training
from reca_core.contracts.bench import BenchPlace
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.registry import BUNDLED_MODELS, FAMILIES


def test_a_step_of_every_family_is_measured_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {name: FAMILIES[name] for name in ("janus", "openuni")}
    bases = {f"tiny-{family}": BUNDLED_MODELS[f"tiny-{family}"] for family in few}
    monkeypatch.setattr(bench_training, "FAMILIES", few)
    monkeypatch.setattr(bench_training, "BUNDLED_MODELS", bases)
    found = training(BenchPlace(tmp_path, quick=True))
    names = [*(f"smallest {family}" for family in few), *bases]
    assert list(dict.fromkeys(figure.what.split(",")[0] for figure in found)) == names
    assert all(figure.value > 0 for figure in found if figure.unit == "ms")
    rows = list(read_jsonl(tmp_path / "runs" / "smallest janus" / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3], "the engine's step writes its metrics as always"
    assert "@progress" not in capsys.readouterr().out, "standard output belongs to the figures"


def test_overhead_is_in_per_cent_of_the_plain_step() -> None:
    assert overhead([1.0, 1.05, 9.0], [0.5, 1.0, 1.0]) == pytest.approx(5.0)


def test_the_feed_is_measured_against_raw_decoding(tmp_path: Path) -> None:
    raw, fed, share, wait = data(BenchPlace(tmp_path, quick=True))
    assert share.value == pytest.approx(100 * fed.value / raw.value)
    assert (raw.unit, fed.unit, wait.unit) == ("pictures/s", "pictures/s", "ms")
    assert wait.value >= 0


def test_a_step_that_finds_its_pictures_waiting_does_not_wait() -> None:
    assert len(wait_seconds(iter([1, 2, 3]), busy=0.001)) == 2
    assert max(wait_seconds(iter([1, 2, 3]), busy=0.05)) < 0.05
