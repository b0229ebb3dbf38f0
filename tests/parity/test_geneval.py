"""GenEval's rules reproduce every recorded verdict of the upstream scorer, whichever set of cases is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.aggregate import score_rows
from evaluation.benchmarks.geneval import recorded, summary
from evaluation.benchmarks.geneval.crops import GREY, colour_crop
from evaluation.benchmarks.geneval.geometry import DEFAULT_POSITION_MARGIN, iou, relative_position
from evaluation.benchmarks.geneval.requirement import TAGS
from evaluation.records import Judgment, Scored
from tests.parity.golden_cases import (
    ABSOLUTE_TOLERANCE,
    document_of,
    lines_of,
    raw_count,
    report,
    skip_module_without_goldens,
)

skip_module_without_goldens()
pytestmark = pytest.mark.goldens


@pytest.fixture(scope="module")
def folder(goldens: Path) -> Path:
    return goldens / "geneval"


def test_every_picture_gets_upstreams_verdict_reason_and_colour_queries(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "image_cases.jsonl"
    cases = lines_of(path)
    for case in cases:
        expected, found = case["expected"], recorded.judgment(case).outcome.evidence
        assert found["reason"] in expected.get("reason_alternatives", [expected["reason"]]), case["id"]
        assert {name: found[name] for name in ("correct", "kept", "color_queries")} == {
            name: expected[name] for name in ("correct", "kept", "color_queries")
        }, case["id"]
    report(capsys, path.name, len(cases), raw_count(path))


def test_boxes_overlap_as_upstream_measures_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "iou.jsonl"
    cases = lines_of(path)
    for case in cases:
        found = iou(tuple(case["box_a"]), tuple(case["box_b"]))
        assert found == pytest.approx(case["expected_iou"], rel=0, abs=ABSOLUTE_TOLERANCE), case
    report(capsys, path.name, len(cases), raw_count(path))


def test_boxes_stand_to_each_other_as_upstream_sees_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "relative_position.jsonl"
    cases = lines_of(path)
    for case in cases:
        found = relative_position(
            tuple(case["box_a"]), tuple(case["box_b"]), case.get("position_threshold", DEFAULT_POSITION_MARGIN)
        )
        assert found == sorted(case["expected_relations_of_a_to_b"]), case
    report(capsys, path.name, len(cases), raw_count(path))


def test_the_colour_classifier_is_shown_upstreams_pixels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "color_crops.jsonl"
    cases = lines_of(path)
    for case in cases:
        crop = _crop_of(case)
        assert list(crop.size) == case["expected"]["size"], case["box"]
        assert np.asarray(crop).reshape(-1, 3).tolist() == case["expected"]["pixels"], case["box"]
    report(capsys, path.name, len(cases), raw_count(path))


def _crop_of(case: dict[str, Any]) -> Image.Image:
    height, width = case["image_hw"]
    picture = Image.fromarray(np.array(case["image"], dtype=np.uint8).reshape(height, width, 3))
    mask = None if case.get("mask") is None else np.array(case["mask"], dtype=bool).reshape(height, width)
    options = case.get("options", {})
    background, crop = options.get("bgcolor", GREY), options.get("crop", "1") != "0"
    return colour_crop(picture, tuple(case["box"]), mask, background, crop)


def _recorded_result(row: dict[str, Any]) -> Judgment:
    """One line of upstream's results file; upstream counts prompts by their metadata."""
    outcome = Scored(values={"correct": float(row["correct"])})
    return Judgment(id=row["filename"], prompt_id=row["metadata"], tag=row["tag"], outcome=outcome)


def test_the_table_has_upstreams_numbers_in_both_orders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "summary_results.jsonl"
    rows, expected = lines_of(path), document_of(folder / "summary_expected.json")
    if not rows or expected is None:
        report(capsys, path.name, 0, 0)
        return
    judgments = [_recorded_result(row) for row in rows]
    parity = score_rows(summary.rows(judgments, "parity"))
    corrected = score_rows(summary.rows(judgments, "corrected"))
    assert {name: row.value for name, row in parity.items()} == {name: row.value for name, row in corrected.items()}

    totals = {"images": expected["frac_correct_images"], "prompts": expected["frac_correct_prompts"]}
    values = {"overall": expected["overall"], **totals, **{k: v["mean"] for k, v in expected["tasks"].items()}}
    for name, value in values.items():
        assert parity[name].value == pytest.approx(value, rel=0, abs=ABSOLUTE_TOLERANCE), name
    assert parity["images"].n_scored == expected["total_images"]
    assert parity["prompts"].n_scored == expected["total_prompts"]
    for tag, task in expected["tasks"].items():
        assert parity[tag].n_scored == parity[tag].n_expected == task["total"]

    tags = [name for name in parity if name in expected["tasks"]]
    assert tags == expected["task_order"]
    assert [name for name in corrected if name in TAGS] == [tag for tag in TAGS if tag in expected["tasks"]]
    report(capsys, path.name, len(judgments), raw_count(path))
