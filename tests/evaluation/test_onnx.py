"""Any YOLO-type file: boxes come out where they were put in, whatever the picture's size and the output's form.

With ``RECA_YOLO_ONNX=FILE`` a real detector is tried on real photographs as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.judges import onnx as onnx_judge
from evaluation.judges.detector_sanity import PHOTOGRAPHS, sanity_scores
from evaluation.judges.onnx import OnnxDetector, OnnxJudge, letterbox, open_session, read_output, suppress, to_picture
from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.judging import place

SIDE = 64
CUP, CAT = 41, 15
EVERYTHING = frozenset(range(80))
Planted = tuple[float, float, float, float, int, float]
"""x1, y1, x2, y2 in the letterbox, class, score."""


def raw(planted: Sequence[Planted], form: str) -> np.ndarray:
    """What a network of that form would answer."""
    if form == "suppressed":
        return np.array([[*box, score, index] for *box, index, score in planted], dtype=np.float32)
    rows = []
    for x1, y1, x2, y2, index, score in planted:
        classes = np.zeros(80)
        classes[index] = 1.0 if form == "v5" else score
        anything = [score] if form == "v5" else []
        rows.append([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, *anything, *classes])
    found = np.array(rows, dtype=np.float32)
    return found.T if form == "v8" else found


def network(
    path: Path, answer: np.ndarray, batch: int | str = 1, kind: int = TensorProto.FLOAT, names: str = ""
) -> Path:
    """A file that takes pictures and answers the same for each, plus nothing of their content."""
    count = [batch, 3, SIDE, SIDE]
    constant = numpy_helper.from_array(answer[None].astype(helper.tensor_dtype_to_np_dtype(kind)), "answer")
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Flatten", ["means"], ["column"], axis=1),
        helper.make_node("Unsqueeze", ["column"], ["lifted"], axes=[2]),
        helper.make_node("Sub", ["lifted", "lifted"], ["zeros"]),
        helper.make_node("Add", ["zeros", "answer"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", kind, count)],
        [helper.make_tensor_value_info("output0", kind, [batch, *answer.shape])],
        [constant],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    if names:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, str(path))
    return path


def picture(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


PLANTED: list[Planted] = [(8, 16, 24, 48, CUP, 0.8), (9, 16, 25, 48, CUP, 0.6), (40, 16, 56, 32, CAT, 0.5)]


@pytest.mark.parametrize("form", ["v8", "v8 transposed", "v5", "suppressed"])
@pytest.mark.parametrize("batch", [1, 3, "batch"])
def test_boxes_come_out_where_they_were_put_in(tmp_path: Path, form: str, batch: int | str) -> None:
    """A wide picture lies in rows 16 to 48 of its letterbox, twice as large as there."""
    detector = OnnxDetector(open_session(str(network(tmp_path / "m.onnx", raw(PLANTED, form), batch))), 2)
    found = detector.detect([picture(64, 128)] * 4, [EVERYTHING, frozenset([CAT]), frozenset([1]), EVERYTHING])
    assert [len(items) for items in found] == [2, 1, 0, 2]
    by_class = {item.index: item for item in found[0]}
    assert by_class[CUP].box == (16.0, 0.0, 48.0, 64.0)
    assert by_class[CUP].score == pytest.approx(0.8)
    assert by_class[CAT].box == (80.0, 0.0, 112.0, 32.0)


def test_half_precision_files_are_fed_half_precision(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", raw(PLANTED, "v8"), kind=TensorProto.FLOAT16)
    (found,) = OnnxDetector(open_session(str(path)), 1).detect([picture(32, 32)], [frozenset([CAT])])
    assert found[0].score == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("size", [(64, 64), (30, 90), (90, 30), (1, 500), (333, 77)])
def test_to_the_letterbox_and_back_is_the_same_place(size: tuple[int, int]) -> None:
    shown = picture(*size)
    shown[:] = 255
    boxed = letterbox(shown, (SIDE, SIDE))
    inside = np.argwhere((boxed == 255).all(-1))
    (top, left), (bottom, right) = inside.min(0), inside.max(0) + 1
    whole = to_picture(np.array([[left, top, right, bottom]], dtype=float), size, (SIDE, SIDE))
    assert np.allclose(whole, [[0, 0, size[1], size[0]]])
    assert boxed[0, 0].tolist() in ([255] * 3, [onnx_judge.GREY] * 3)


def test_boxes_are_cut_at_the_edge_and_those_below_a_pixel_dropped(tmp_path: Path) -> None:
    planted: list[Planted] = [(-20, -20, 90, 90, CUP, 0.9), (5, 5, 5.2, 9, CAT, 0.9), (70, 70, 80, 80, CAT, 0.9)]
    path = network(tmp_path / "m.onnx", raw(planted, "v8"))
    (found,) = OnnxDetector(open_session(str(path)), 1).detect([picture(64, 64)], [EVERYTHING])
    assert [(item.index, item.box) for item in found] == [(CUP, (0.0, 0.0, 64.0, 64.0))]


def test_of_overlapping_boxes_the_best_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 6], [20, 20, 30, 30]], dtype=float)
    assert suppress(boxes, np.array([0.5, 0.9, 0.4, 0.6])) == [1, 3, 2]
    assert suppress(np.zeros((0, 4)), np.zeros(0)) == []


@pytest.mark.parametrize("shape", [(85,), (8400, 91), (3, 4, 5), (25, 7)])
def test_an_output_of_another_form_is_bad_input(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="no COCO-80 YOLO"):
        read_output(np.zeros(shape))


@pytest.mark.benchmark_data
def test_a_detector_that_sees_nothing_is_refused(tmp_path: Path, benchmark_data: Path) -> None:
    path = network(tmp_path / "blind.onnx", raw([(1, 1, 9, 9, CUP, 0.2)], "v8"))
    settings = JudgeSettings(judge="onnx", weights=str(path))
    with pytest.raises(StageFailed, match=r"blind\.onnx does not find"):
        OnnxJudge.open(place(tmp_path, "geneval", benchmark_data), settings)


@pytest.mark.benchmark_data
def test_the_file_is_part_of_the_identity(tmp_path: Path, benchmark_data: Path) -> None:
    seen: list[Planted] = [(1, 1, 60, 60, known.index, 0.9) for known in PHOTOGRAPHS]
    path = network(tmp_path / "sees.onnx", raw(seen, "v8"))
    opened = OnnxJudge.open(place(tmp_path, "geneval", benchmark_data), JudgeSettings(judge="onnx", weights=str(path)))
    assert opened.identity.model == "sees.onnx"
    assert len(opened.identity.sha256) == 64
    assert opened.identity.settings["colour_model"] == "none"


@pytest.mark.benchmark_data
def test_what_cannot_be_opened_says_why(tmp_path: Path, benchmark_data: Path) -> None:
    here = place(tmp_path, "geneval", benchmark_data)
    (tmp_path / "text.onnx").write_text("not a network")
    few = network(tmp_path / "few.onnx", raw(PLANTED, "v8"), names="{0: 'cat', 1: 'dog'}")
    cases = {"": "needs a file", "/absent.onnx": "not there", str(tmp_path / "text.onnx"): "cannot be loaded"}
    for weights, said in {**cases, str(few): "knows 2 classes"}.items():
        with pytest.raises(BadInput, match=said):
            OnnxJudge.open(here, JudgeSettings(judge="onnx", weights=weights))
    with pytest.raises(BadInput, match="asks in words"):
        OnnxJudge.open(place(tmp_path, "dpg"), JudgeSettings(judge="onnx"))
    with pytest.raises(PrerequisiteMissing, match=r"object_names\.txt"):
        OnnxJudge.open(place(tmp_path, "geneval"), JudgeSettings(judge="onnx", weights=str(few)))


if REAL := os.environ.get("RECA_YOLO_ONNX", ""):

    def test_a_real_detector_sees_real_photographs() -> None:
        scores = sanity_scores(OnnxDetector(open_session(REAL), 1))
        assert min(scores.values()) > 0.6, scores
