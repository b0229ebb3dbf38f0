"""The judge ``onnx``: any YOLO-type COCO-80 file through onnxruntime, with letterboxing and non-maximum suppression.

Not GenEval's published detector: its numbers always carry the file's name as a suffix. Three output forms are known, by
their sizes: [84, boxes] (YOLOv8 and later), [boxes, 85] (YOLOv5 to v7, with a score for "anything"), and [boxes, 6]
(suppression inside the file). Boxes come without masks, so the colour classifier sees the background too.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from evaluation.judges.detector import DetectionJudge, check_benchmark, colour_settings, object_names, open_colours
from evaluation.judges.detector_masks import Detection
from evaluation.judges.detector_sanity import gate
from evaluation.judges.devices import cpu_threads
from evaluation.judges.opening import JudgePlace, check_weights, weights_sha256
from evaluation.records import Box, JudgeIdentity
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.judging import JudgeSettings

CLASSES = 80
BOX = 4
SUPPRESSED_COLUMNS = 6
DEFAULT_SIDE = 640
GREY = 114
"""What fills the letterbox in YOLO's own code."""
LEAST_SCORE = 0.1
"""The lowest threshold of the rules is 0.3."""
OVERLAP = 0.7
"""IoU from which the lower-scored of two boxes of one class is dropped: the default of Ultralytics' predict."""
FULL = 255.0
RULES_VERSION = "1"
"""Raised by whoever changes what this file answers."""
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Boxes = Float[np.ndarray, "boxes 4"]
"""x1, y1, x2, y2."""


class OnnxDetector:
    """One file."""

    def __init__(self, session: Any, pictures_per_batch: int) -> None:
        self._session = session
        self._input = session.get_inputs()[0]
        count, _, height, width = self._input.shape
        self._size = (_number(height, DEFAULT_SIDE), _number(width, DEFAULT_SIDE))
        self._batch = _number(count, pictures_per_batch)

    def detect(self, pictures: Sequence[np.ndarray], wanted: Sequence[frozenset[int]]) -> list[list[Detection]]:
        """Objects of the wanted classes in each picture (uint8, [height, width, 3], RGB)."""
        found: list[list[Detection]] = []
        for start in range(0, len(pictures), self._batch):
            part = list(pictures[start : start + self._batch])
            outputs = self._run(np.stack([letterbox(picture, self._size) for picture in part]))
            for picture, output, classes in zip(part, outputs, wanted[start:], strict=False):
                found.append(detections(output, picture.shape[:2], self._size, classes))
        return found

    def _run(self, shown: UInt8[np.ndarray, "pictures height width 3"]) -> np.ndarray:
        """The first output. A file for a fixed number of pictures gets empty ones added."""
        kind = TYPES[self._input.type]
        values = shown.transpose(0, 3, 1, 2).astype(np.float32) / FULL
        if isinstance(self._input.shape[0], int) and len(values) < self._batch:
            empty = np.zeros((self._batch - len(values), *values.shape[1:]), dtype=np.float32)
            values = np.concatenate([values, empty])
        (output, *_) = self._session.run(None, {self._input.name: values.astype(kind)})
        return np.asarray(output[: len(shown)], dtype=np.float32)


def _number(size: Any, otherwise: int) -> int:
    return size if isinstance(size, int) and size > 0 else otherwise


def scale_of(size: tuple[int, int], box: tuple[int, int]) -> float:
    """How much a picture of ``size`` (height, width) grows or shrinks to fit into ``box``."""
    return min(box[0] / size[0], box[1] / size[1])


def letterbox(picture: np.ndarray, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """The picture in the middle of a grey rectangle, ratio kept."""
    height, width = inner_size(picture.shape[:2], size)
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    canvas = np.full((*size, 3), GREY, dtype=np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(resized)
    return canvas


def inner_size(picture: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a picture inside its letterbox."""
    scale = scale_of((picture[0], picture[1]), size)
    return max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))


def detections(
    output: np.ndarray, picture: tuple[int, ...], size: tuple[int, int], wanted: frozenset[int]
) -> list[Detection]:
    """What one picture's raw output says, in pixels of the picture."""
    boxes, scores, kinds = read_output(output)
    found: list[Detection] = []
    for index in sorted(wanted):
        mine = (kinds == index) & (scores > LEAST_SCORE)
        kept = suppress(boxes[mine], scores[mine])
        in_picture = to_picture(boxes[mine][kept], picture, size)
        for box, score in zip(in_picture, scores[mine][kept], strict=True):
            x1, y1, x2, y2 = (float(corner) for corner in box)
            whole: Box = (x1, y1, x2, y2)
            if round(x2) > round(x1) and round(y2) > round(y1):  # less than a pixel cannot be shown to anybody
                found.append(Detection(index, whole, float(score)))
    return found


def read_output(
    output: np.ndarray,
) -> tuple[Boxes, Float[np.ndarray, " boxes"], Int[np.ndarray, " boxes"]]:
    """Boxes in pixels of the letterbox, with the best class of each. Raises BadInput for another form."""
    rows = output.T if output.ndim == 2 and output.shape[0] == BOX + CLASSES else output
    columns = rows.shape[1] if rows.ndim == 2 else 0
    if columns == SUPPRESSED_COLUMNS:
        return rows[:, :BOX], rows[:, BOX], rows[:, BOX + 1].astype(np.int64)
    if columns not in (BOX + CLASSES, BOX + 1 + CLASSES):
        raise BadInput(f"an output of size {list(output.shape)} is no COCO-80 YOLO", field="judge.weights")
    per_class = rows[:, -CLASSES:] * (rows[:, BOX : BOX + 1] if columns == BOX + 1 + CLASSES else 1.0)
    centres, sides = rows[:, :2], rows[:, 2:BOX]
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    return boxes, per_class.max(axis=1), per_class.argmax(axis=1)


def suppress(boxes: Boxes, scores: Float[np.ndarray, " boxes"], overlap: float = OVERLAP) -> list[int]:
    """Places of the boxes to keep, best first."""
    order = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while order:
        best = order.pop(0)
        kept.append(int(best))
        order = [at for at in order if _iou(boxes[best], boxes[at]) < overlap]
    return kept


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    shared = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    total = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared
    return float(shared / total) if total > 0 else 0.0


def to_picture(boxes: Boxes, picture: tuple[int, ...], size: tuple[int, int]) -> Boxes:
    """From the letterbox to the picture, cut at its edges."""
    height, width = inner_size(picture, size)
    offset = np.array([(size[1] - width) // 2, (size[0] - height) // 2] * 2)
    scale = np.array([width / picture[1], height / picture[0]] * 2)
    return np.clip((boxes - offset) / scale, 0, [picture[1], picture[0]] * 2)


class OnnxJudge(DetectionJudge):
    """The judge ``onnx``."""

    @classmethod
    def open(cls, place: JudgePlace, settings: JudgeSettings) -> OnnxJudge:
        """Load the file, and make sure that the detector sees.

        Raises: BadInput for a benchmark without objects or a file of another kind; PrerequisiteMissing for a missing
            package or the names of the classes; StageFailed for a detector that does not see.
        """
        check_benchmark(place, "onnx")
        names = object_names(place.benchmark_data)
        sha256 = weights_sha256(settings.weights)
        check_weights(settings, sha256)
        detector = OnnxDetector(open_session(settings.weights, settings), settings.pictures_per_batch)
        colours = open_colours(settings, published=False)
        name = Path(settings.weights).name
        gate(detector, name)
        own = {"rules_version": RULES_VERSION, "overlap": str(OVERLAP), **colour_settings(colours)}
        identity = JudgeIdentity(name="onnx", model=name, sha256=sha256, settings=own)
        return cls(detector, identity, names, colours, settings)


def open_session(weights: str, settings: JudgeSettings = JudgeSettings()) -> Any:
    """An inference session, checked to be of the known kind. Raises BadInput or PrerequisiteMissing."""
    if importlib.util.find_spec("onnxruntime") is None:
        remedy = 'pip install "reca-pipeline[judges]"'
        raise PrerequisiteMissing("onnxruntime is not installed", field="judge.judge", remedy=remedy)
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import (
        Fail,
        InvalidArgument,
        InvalidGraph,
        InvalidProtobuf,
        NoSuchFile,
    )

    if not weights:
        raise BadInput("needs a file", field="judge.weights", remedy="--judge-weights FILE.onnx")
    options = onnxruntime.SessionOptions()
    size = Path(weights).stat().st_size if Path(weights).is_file() else 0
    options.intra_op_num_threads = cpu_threads(settings, size)
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=onnxruntime.get_available_providers())
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile) as error:
        raise BadInput(f"{weights} cannot be loaded: {error}", field="judge.weights") from error
    _check_form(session, weights)
    return session


def _check_form(session: Any, weights: str) -> None:
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != BOX or inputs[0].type not in TYPES:
        found = [(item.shape, item.type) for item in inputs]
        raise BadInput(f"{weights} takes {found}, not one picture tensor", field="judge.weights")
    named = session.get_modelmeta().custom_metadata_map.get("names", "")
    try:
        names = ast.literal_eval(named) if named else {}
    except (ValueError, SyntaxError):
        names = {}
    if names and len(names) != CLASSES:
        raise BadInput(f"{weights} knows {len(names)} classes, not the {CLASSES} of COCO", field="judge.weights")
