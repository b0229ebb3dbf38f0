"""Judges that find objects and name their colours: what GenEval asks. Two detectors serve it, each with its own file.

The judge ``detector`` is Mask2Former (detector_mask2former.py), published or converted from mmdetection's file
(detector_convert.py); ``onnx`` is any YOLO file (onnx.py). Before it judges, a detector must find what is on three
known photographs (detector_sanity.py): broken kernels and wrong files were published as low scores.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from evaluation.benchmark import JudgeTask
from evaluation.benchmarks.data import read_pinned
from evaluation.benchmarks.geneval.crops import colour_crop
from evaluation.judges.colours import PUBLISHED_COLOUR_MODEL, ColourClassifier
from evaluation.judges.detector_masks import Detection, Detector, MaskMemory
from evaluation.judges.detector_pictures import PictureReader, Pixels
from evaluation.judges.devices import pick_device, use_cpu_threads
from evaluation.judges.opening import JudgePlace
from evaluation.pins import OBJECT_NAMES
from evaluation.records import Finding, JudgeIdentity, Question, Reply
from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.judging import JudgeSettings

BATCHES_PER_CALL = 4
BENCHMARK = "geneval"
NO_COLOURS = "no colour classifier was chosen: name CLIP weights with judge.colour_model"


class DetectionJudge:
    """Answers questions for objects and for colours with a detector and, where there is one, a colour classifier."""

    def __init__(
        self,
        detector: Detector,
        identity: JudgeIdentity,
        names: Sequence[str],
        colours: ColourClassifier | None,
        settings: JudgeSettings,
    ) -> None:
        self.identity = identity
        self.batch_size = BATCHES_PER_CALL * settings.pictures_per_batch
        self._detector = detector
        self._index = {name: at for at, name in enumerate(names)}
        self._names = list(names)
        self._colours = colours
        self._reader = PictureReader(settings.decoding_processes)
        self._memory = MaskMemory()

    def answer(self, tasks: Sequence[JudgeTask]) -> list[Reply]:
        """One reply per task. Raises StageFailed for a class that no COCO detector knows, or a question in words."""
        objects = [at for at, task in enumerate(tasks) if task.question.kind == "objects"]
        others = [at for at, task in enumerate(tasks) if task.question.kind != "objects"]
        looked = self._look([tasks[at] for at in objects])
        replies = dict(zip(objects, map(self._objects_reply, looked), strict=True))
        replies |= zip(others, self._colours_replies([tasks[at] for at in others]), strict=True)
        return [replies[at] for at in range(len(tasks))]

    def look_ahead(self, pictures: Sequence[Path]) -> None:
        """Begin to decode what will be asked about next."""
        self._reader.expect(pictures)

    def close(self) -> None:
        """End the helpers that decode."""
        self._reader.close()

    def _look(self, tasks: Sequence[JudgeTask]) -> list[list[Detection] | str]:
        """What is on each picture, or why it cannot be looked at."""
        pictures = self._reader.read([task.picture for task in tasks])
        readable = [at for at, picture in enumerate(pictures) if not isinstance(picture, str)]
        shown: list[Pixels] = [picture for picture in pictures if not isinstance(picture, str)]
        detections = self._detector.detect(shown, [self._wanted(tasks[at].question) for at in readable])
        by_place = dict(zip(readable, detections, strict=True))
        for at, items in by_place.items():
            self._memory.remember(tasks[at].picture, items)
        return [by_place.get(at, picture if isinstance(picture, str) else "") for at, picture in enumerate(pictures)]

    def _wanted(self, question: Question) -> frozenset[int]:
        labels = question.labels if question.kind == "objects" else [found.label for found in question.findings]
        unknown = [label for label in labels if label not in self._index]
        if unknown or question.kind == "text":
            fact = f"no COCO detector can answer {question.text or ', '.join(unknown)!r}"
            raise StageFailed(fact, field="question", choices=self._names)
        return frozenset(self._index[label] for label in labels)

    def _objects_reply(self, found: list[Detection] | str) -> Reply:
        if isinstance(found, str):
            return Reply(error=found)
        findings = [Finding(label=self._names[item.index], box=item.box, score=item.score) for item in found]
        return Reply(findings=sorted(findings, key=lambda finding: -finding.score))

    def _colours_replies(self, tasks: Sequence[JudgeTask]) -> list[Reply]:
        for task in tasks:
            self._wanted(task.question)
        if self._colours is None:
            return [Reply(error=NO_COLOURS) for _ in tasks]
        pictures = self._reader.read([task.picture for task in tasks])
        crops = [_crops(picture, items) for picture, items in zip(pictures, self._recalled(tasks), strict=True)]
        replies = {at: Reply(error=shown) for at, shown in enumerate(crops) if isinstance(shown, str)}
        cut = {at: shown for at, shown in enumerate(crops) if not isinstance(shown, str)}
        for candidates in {tuple(task.question.labels) for task in tasks}:
            places = [at for at in cut if tuple(tasks[at].question.labels) == candidates]
            labels = [finding.label for at in places for finding in tasks[at].question.findings]
            named = iter(self._colours.classify([crop for at in places for crop in cut[at]], labels, candidates))
            replies |= {at: Reply(labels=[next(named) for _ in cut[at]]) for at in places}
        return [replies[at] for at in range(len(tasks))]

    def _recalled(self, tasks: Sequence[JudgeTask]) -> list[list[Detection | None]]:
        """The detections that findings were made from; after a restart they are looked for again."""
        self._look([task for task in tasks if None in self._remembered(task)])
        return [self._remembered(task) for task in tasks]

    def _remembered(self, task: JudgeTask) -> list[Detection | None]:
        recall = functools.partial(self._memory.find, task.picture)
        return [recall(self._index[finding.label], finding) for finding in task.question.findings]


def _crops(picture: Pixels | str, items: Sequence[Detection | None]) -> list[Image.Image] | str:
    """What the classifier is shown of a picture, or why there is nothing to show."""
    known = [item for item in items if item is not None]
    if isinstance(picture, str):
        return picture
    if len(known) < len(items):
        return "the detector does not find the same objects again"
    shown = Image.fromarray(picture)
    return [colour_crop(shown, item.box, item.mask.unpack() if item.mask else None) for item in known]


def object_names(data: Path | None) -> list[str]:
    """GenEval's names of the COCO classes in index order. Raises PrerequisiteMissing where the file is not there."""
    return [line.strip() for line in read_pinned(data, BENCHMARK, OBJECT_NAMES).splitlines() if line.strip()]


def open_colours(settings: JudgeSettings, published: bool) -> ColourClassifier | None:
    """The classifier that the settings name; the published one where a judge has none of its own."""
    chosen = settings.colour_model or (PUBLISHED_COLOUR_MODEL if published else "")
    if not chosen:
        return None
    opened = ColourClassifier.open(chosen, pick_device(settings.device))
    use_cpu_threads(opened.model, settings, opened.name)
    return opened


def colour_settings(colours: ColourClassifier | None) -> dict[str, str]:
    """What of a classifier belongs into a judge's identity."""
    return {"colour_model": colours.name, "colour_sha256": colours.sha256} if colours else {"colour_model": "none"}


def check_benchmark(place: JudgePlace, judge: str) -> None:
    """Raises BadInput for a benchmark that asks for no objects."""
    if place.benchmark != BENCHMARK:
        fact = f"{judge} finds objects, {place.benchmark} asks in words"
        raise BadInput(fact, field="judge.judge", choices=("openai", "local", "vqa", "shapeworld"))
