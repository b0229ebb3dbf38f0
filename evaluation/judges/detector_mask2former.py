"""Mask2Former as GenEval's scorer runs it: pre- and post-processing of mmdetection 2.x around transformers' model.

transformers' own image processor stretches pictures to multiples of 32, mmdetection pads them; its post-processing
gives each query one class, mmdetection ranks (query, class) pairs. Both change scores, so both are done here as
upstream does. A batch holds only pictures of equal pre-processed size: padding to a common size changes answers.
Source: open-mmlab/mmdetection, configs/mask2former/mask2former_r50_lsj_8x2_50e_coco.py @ 71bfee9 (test pipeline) and
mmdet/models/seg_heads/panoptic_fusion_heads/maskformer_fusion_head.py @ 0c51592 (instance_postprocess).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from evaluation.judges.detector import DetectionJudge, check_benchmark, colour_settings, object_names, open_colours
from evaluation.judges.detector_convert import UNUSED_WEIGHTS, load_original
from evaluation.judges.detector_label import PUBLISHED_NAME, PUBLISHED_SHA256_PREFIX, conversion_label
from evaluation.judges.detector_masks import Detection, PackedMask
from evaluation.judges.detector_sanity import gate
from evaluation.judges.devices import pick_device, use_cpu_threads
from evaluation.judges.opening import JudgePlace, check_weights
from evaluation.judges.weights import load_folder, local_folder
from evaluation.records import Box, JudgeIdentity
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.hashing import sha256_file, sha256_tree
from reca_core.contracts.judging import JudgeSettings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Mask2FormerForUniversalSegmentation

SHORT_SIDE, LONG_SIDE = 800, 1333
MULTIPLE = 32
MEAN = (123.675, 116.28, 103.53)
STANDARD_DEVIATION = (58.395, 57.12, 57.375)
PAIRS = 100
"""(query, class) pairs kept per picture."""
LEAST_CLASS_SCORE = 0.1
"""A pair's score is at most its class score; the lowest threshold of the rules is 0.3, so masks below are not made."""
MASK_VALUES = 1 << 26
"""Most mask values made at once: 256 MiB."""
AREA_EPSILON = 1e-6
CLASSES = 80
OTHER_MODEL = "facebook/mask2former-swin-small-coco-instance"
"""The same network with its authors' weights, as transformers has it."""
RULES_VERSION = "1"
"""Raised by whoever changes what this file answers."""


class Mask2FormerDetector:
    """The model with upstream's arithmetic around it."""

    def __init__(self, model: Mask2FormerForUniversalSegmentation, pictures_per_batch: int) -> None:
        self._model = model
        self._device = model.device
        self._batch = pictures_per_batch

    def detect(self, pictures: Sequence[np.ndarray], wanted: Sequence[frozenset[int]]) -> list[list[Detection]]:
        """Objects of the wanted classes in each picture (uint8, [height, width, 3], RGB)."""
        import torch

        found: dict[int, list[Detection]] = {}
        for places in batches([resized_size(picture.shape[:2]) for picture in pictures], self._batch):
            inputs = torch.stack([self._prepared(pictures[at]) for at in places])
            with torch.inference_mode():
                outputs = self._model(pixel_values=inputs)
            for row, at in enumerate(places):
                classes, masks = outputs.class_queries_logits[row], outputs.masks_queries_logits[row]
                found[at] = self._found(classes, masks, pictures[at].shape[:2], wanted[at])
        return [found[at] for at in range(len(pictures))]

    def _prepared(self, picture: np.ndarray) -> Float[Tensor, "3 height width"]:
        """Resized without anti-aliasing to whole grey levels, as cv2 does; normalised; padded below and right."""
        import torch
        import torch.nn.functional as F

        values = torch.from_numpy(np.array(picture)).to(self._device).permute(2, 0, 1).float()
        size = resized_size(picture.shape[:2])
        resized = F.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0].round()
        mean, deviation = (resized.new_tensor(part)[:, None, None] for part in (MEAN, STANDARD_DEVIATION))
        height, width = padded_size(size)
        return F.pad((resized - mean) / deviation, (0, width - size[1], 0, height - size[0]))

    def _found(
        self,
        classes: Float[Tensor, "queries classes_and_void"],
        masks: Float[Tensor, "queries rows columns"],
        size: tuple[int, int],
        wanted: frozenset[int],
    ) -> list[Detection]:
        """The best pairs of one picture, those of other classes left out."""
        scores = classes.softmax(dim=-1)[:, :-1].flatten()
        best = scores.topk(min(PAIRS, scores.numel())).indices
        kinds = classes.shape[-1] - 1
        pairs = [(int(at) // kinds, int(at) % kinds, float(scores[at])) for at in best]
        pairs = [pair for pair in pairs if pair[1] in wanted and pair[2] > LEAST_CLASS_SCORE]
        queries = sorted({query for query, _, _ in pairs})
        seen = dict(self._masks(masks, queries, size))
        found: list[Detection] = []
        for query, index, score in pairs:
            mask, mean = seen[query]
            if (box := tight_box(mask)) is not None:
                found.append(Detection(index, box, score * mean, PackedMask.pack(mask, box)))
        return found

    def _masks(
        self, masks: Float[Tensor, "queries rows columns"], queries: Sequence[int], size: tuple[int, int]
    ) -> Iterator[tuple[int, tuple[Bool[np.ndarray, "height width"], float]]]:
        """Per query: its mask in the picture's size, and the mean probability inside it."""
        import torch.nn.functional as F

        resized = resized_size(size)
        at_once = max(1, MASK_VALUES // max(size[0] * size[1], LONG_SIDE * LONG_SIDE))
        for start in range(0, len(queries), at_once):
            chosen = list(queries[start : start + at_once])
            padded = F.interpolate(masks[None, chosen], size=padded_size(resized), mode="bilinear", align_corners=False)
            cut = padded[:, :, : resized[0], : resized[1]]
            logits = F.interpolate(cut, size=size, mode="bilinear", align_corners=False)[0]
            inside = logits > 0
            total = (logits.sigmoid() * inside).flatten(1).sum(1)
            means = total / (inside.flatten(1).sum(1) + AREA_EPSILON)
            yield from zip(chosen, zip(inside.cpu().numpy(), means.tolist(), strict=True), strict=True)


def resized_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that fit into 1333 x 800 whichever way round, ratio kept; halves round up as in mmcv."""
    height, width = size
    scale = min(LONG_SIDE / max(height, width), SHORT_SIDE / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """The next multiples of 32."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    return height, width


def tight_box(mask: Bool[np.ndarray, "height width"]) -> Box | None:
    """Bounds of a mask, the far corner exclusive; None for an empty one, whose score is zero."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def batches(sizes: Sequence[tuple[int, int]], most: int) -> Iterator[list[int]]:
    """Places of equal sizes, at most ``most`` together."""
    for size in dict.fromkeys(sizes):
        places = [at for at, other in enumerate(sizes) if other == size]
        yield from (places[start : start + most] for start in range(0, len(places), most))


class DetectorJudge(DetectionJudge):
    """The judge ``detector``."""

    @classmethod
    def open(cls, place: JudgePlace, settings: JudgeSettings) -> DetectorJudge:
        """Load detector and colour classifier, and make sure that the detector sees.

        Raises: BadInput for a benchmark without objects or weights of another kind; PrerequisiteMissing for weights or
            names that are not there; StageFailed for a detector that does not find what is on known photographs.
        """
        check_benchmark(place, "detector")
        names = object_names(place.benchmark_data)
        model, name, sha256, conversion = load(settings, place.cache)
        model.eval().to(pick_device(settings.device))
        use_cpu_threads(model, settings, name)
        colours = open_colours(settings, published=True)
        detector = Mask2FormerDetector(model, settings.pictures_per_batch)
        gate(detector, name)
        identity = JudgeIdentity(
            name="detector",
            model=name,
            sha256=sha256,
            settings={"rules_version": RULES_VERSION, "conversion": conversion, **colour_settings(colours)},
        )
        return cls(detector, identity, names, colours, settings)


def load(settings: JudgeSettings, cache: Path) -> tuple[Any, str, str, str]:
    """Model, name, hash of its weights, and what is to be said about their conversion."""
    from transformers import Mask2FormerForUniversalSegmentation

    chosen = settings.weights or settings.model
    if not chosen:
        raise PrerequisiteMissing(
            f"the published detector needs its weights, {PUBLISHED_NAME}-{PUBLISHED_SHA256_PREFIX}.pth of mmdetection",
            field="judge.weights",
            remedy=f"--judge-weights FILE, or other numbers with --judge-model {OTHER_MODEL}",
        )
    if Path(chosen).is_file():
        sha256 = sha256_file(Path(chosen))
        check_weights(settings, sha256)
        return load_original(Path(chosen)), PUBLISHED_NAME, sha256, conversion_label(cache, sha256)
    folder = local_folder(chosen, "judge.model")
    sha256 = sha256_tree(folder)
    check_weights(settings, sha256)
    model = load_folder(Mask2FormerForUniversalSegmentation, folder, "judge.model", UNUSED_WEIGHTS)
    if model.config.num_labels != CLASSES:
        fact = f"{folder} knows {model.config.num_labels} classes, not the {CLASSES} of COCO"
        raise BadInput(fact, field="judge.model")
    return model, settings.model or Path(settings.weights).name, sha256, "none"
