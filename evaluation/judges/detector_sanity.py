"""Does a detector see? Three known photographs before it judges, and a full check of mmdetection's original file.

A deformable-attention kernel that was not compiled for the GPU at hand returns rubbish without an error, and GenEval
scores of 0.03 to 0.44 were reported with it (djghosh13/geneval, issues 12 to 23). A detector that does not find the
person, the cat and the cup of ``sanity/`` judges nothing. The photographs are free of rights (sanity/README.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.judges.detector_label import MARKS, PUBLISHED_SHA256_PREFIX
from evaluation.judges.detector_masks import Detector
from evaluation.judges.detector_pictures import upright
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.files import write_json
from reca_core.contracts.hashing import sha256_file

FOLDER = Path(__file__).with_name("sanity")
COUNTED_SCORE = 0.3
"""As in GenEval's rules."""


@dataclass(frozen=True)
class Known:
    """A photograph and the COCO class of what is plainly on it."""

    file: str
    index: int
    name: str


PHOTOGRAPHS = (Known("person.jpg", 0, "person"), Known("cat.jpg", 15, "cat"), Known("cup.jpg", 41, "cup"))


def sanity_scores(detector: Detector) -> dict[str, float]:
    """Best score of the known object on each photograph; 0 where it is not found."""
    pictures = [np.asarray(upright(FOLDER / known.file)) for known in PHOTOGRAPHS]
    found = detector.detect(pictures, [frozenset([known.index]) for known in PHOTOGRAPHS])
    return {
        known.name: max((item.score for item in items), default=0.0)
        for known, items in zip(PHOTOGRAPHS, found, strict=True)
    }


def gate(detector: Detector, name: str) -> None:
    """Raises StageFailed for a detector that does not find what is on the known photographs."""
    unseen = {label: score for label, score in sanity_scores(detector).items() if score <= COUNTED_SCORE}
    if unseen:
        scores = ", ".join(f"{label} {score:.2f}" for label, score in unseen.items())
        raise StageFailed(
            f"{name} does not find what is on known photographs (needed above {COUNTED_SCORE}): {scores}",
            field="judge.weights",
            remedy="other weights, or --set judge.device=cpu if they are right",
        )


def check_original(path: Path, cache: Path, device: str) -> Sequence[str]:
    """``reca doctor --detector FILE``: is it the published file, does it convert, does it see?

    Returns: what was found, one line each. From then on results of this file say that it was checked.
    Raises: StageFailed for another file, one that does not convert, or a detector that does not see.
    """
    from evaluation.judges.detector_convert import load_original
    from evaluation.judges.detector_mask2former import Mask2FormerDetector

    sha256 = sha256_file(path)
    if not sha256.startswith(PUBLISHED_SHA256_PREFIX):
        fact = f"SHA-256 begins with {sha256[: len(PUBLISHED_SHA256_PREFIX)]}, not {PUBLISHED_SHA256_PREFIX}"
        raise StageFailed(fact, field=str(path), remedy="download mmdetection's file again")
    detector = Mask2FormerDetector(load_original(path).eval().to(device), pictures_per_batch=1)
    gate(detector, path.name)
    scores = sanity_scores(detector)
    write_json(cache / MARKS / f"{sha256}.json", {"file": path.name, "scores": scores})
    return [f"SHA-256 {sha256}", *(f"{name}: {score:.3f}" for name, score in scores.items())]
