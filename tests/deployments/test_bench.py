"""`make bench`: every section says what it measured, each in a process of its own, and a failure hides no other."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from deployments import bench
from evaluation.bench_judging import judging
from evaluation.bench_rules import rules
from reca_core.bench_features import features
from reca_core.contracts.bench import BenchPlace, Figure
from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_PREREQUISITE


@pytest.mark.parametrize("target", bench.SECTIONS.values(), ids=list(bench.SECTIONS))
def test_every_section_is_there(target: str) -> None:
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_rules_of_all_four_benchmarks_are_measured(tmp_path: Path) -> None:
    figures = rules(BenchPlace(tmp_path, quick=True))
    assert {figure.what.split(",")[0] for figure in figures} == {"geneval", "dpg", "imgedit", "gedit"}
    assert all(figure.value > 0 and figure.unit == "answers/s" for figure in figures)


def test_judging_is_measured_one_at_a_time_and_batched_in_one_run(tmp_path: Path) -> None:
    judged = [figure for figure in judging(BenchPlace(tmp_path, quick=True)) if figure.what.startswith("judged")]
    assert ["batch 1," in judged[0].what, "batch 2," in judged[1].what] == [True, True]
    assert all(figure.value > 0 and figure.unit == "pictures/s" for figure in judged)


def test_a_step_is_measured_with_features_computed_and_kept(tmp_path: Path) -> None:
    computed, kept, ratio = features(BenchPlace(tmp_path, quick=True))
    assert (computed.unit, kept.unit, ratio.unit) == ("s", "s", "times")
    assert ratio.value == pytest.approx(computed.value / kept.value)
    assert len(list((tmp_path / "home/cache/features").glob("*/*.safetensors"))) == 2


def test_a_section_runs_apart_and_its_figures_come_back(capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["rules", "--quick", "--output", "-"]) == EXIT_DONE
    document = json.loads(capfd.readouterr().out)
    assert document["machine"]["cores"]
    (section,) = document["sections"]
    assert section["section"] == "rules"
    assert [Figure.model_validate(figure) for figure in section["figures"]]


def test_a_section_that_fails_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    figure = Figure(what="steps", value=2.0, unit="steps/s", how="here")
    said = {"first": EXIT_PREREQUISITE, "second": bench.Measured(section="second", figures=[figure])}
    monkeypatch.setattr(bench, "SECTIONS", dict.fromkeys(said, ""))
    monkeypatch.setattr(bench, "measure_apart", lambda name, quick: said[name])
    output = tmp_path / "deep" / "bench.json"
    assert bench.main(["--output", str(output)]) == EXIT_PREREQUISITE
    assert [section["section"] for section in json.loads(output.read_text())["sections"]] == ["second"]
    assert "first could not be measured" in capfd.readouterr().err


def test_an_unknown_section_is_bad_input() -> None:
    assert bench.main(["speed"]) == EXIT_BAD_INPUT
