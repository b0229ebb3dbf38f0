"""What every judge is opened with, and the suffix that its name gives to a benchmark's id. Torch-free.

A judge of the registry has the classmethod ``open(place, settings)``. It raises BadInput for settings that cannot be
meant and PrerequisiteMissing for what has to be there first, both before anything is asked.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from pathlib import Path

from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import sha256_file, sha256_tree
from reca_core.contracts.judging import JudgeSettings, SettledJudge

IDENTITY_FILE = "judge.json"
"""Written by the runner into the answers directory when a judging begins."""
NOT_IN_IDS = re.compile(r"[^a-z0-9.]+")
DEFAULT_PROTOCOL = "default"


@dataclass(frozen=True)
class JudgePlace:
    """Where a judge works."""

    benchmark: str
    """Name without suffix, such as gedit."""
    directory: Path
    """``answers/<hash>``."""
    cache: Path
    """``<home>/cache``: replies and converted weights that outlive one judging."""
    benchmark_data: Path | None = None
    """Folder with the benchmarks' own files."""
    occasion: str = ""
    """Kept replies of another occasion are not used."""


def judging_date(place: JudgePlace, settings: JudgeSettings) -> str:
    """The date of a judging: as set, else that of its beginning, which a resumed judging keeps; UTC."""
    if settings.date:
        return settings.date
    begun = place.directory / IDENTITY_FILE
    if begun.is_file():
        known: str = json.loads(begun.read_text(encoding="utf-8")).get("settings", {}).get("date", "")
        if known:
            return known
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def weights_sha256(path: str) -> str:
    """Hash of a weights file or folder; empty for none. Raises BadInput for a path that is not there."""
    if not path:
        return ""
    place = Path(path)
    if not place.exists():
        raise BadInput(f"{path} is not there", field="judge.weights")
    return sha256_file(place) if place.is_file() else sha256_tree(place)


def known_hash(settings: JudgeSettings) -> str:
    """Hash of a settled judge's weights; empty for a choice that is not settled yet."""
    return settings.weights_sha256 if isinstance(settings, SettledJudge) else ""


def check_weights(settings: JudgeSettings, found: str) -> None:
    """Refuse weights that changed after the request was made."""
    expected = known_hash(settings)
    if expected and expected != found:
        fact = f"{settings.weights} has hash {found}, the request was made for {expected}"
        raise BadInput(fact, field="judge.weights", remedy="make the request again")


def judge_suffix(settings: JudgeSettings) -> str:
    """The part of a benchmark's id after the dot: what judged, in lower case; empty for the published judge.

    ``--judge onnx --judge-weights yolov8m.onnx`` gives ``yolov8m``, ``--judge local --judge-model Qwen/Qwen3-VL-8B``
    gives ``qwen3-vl-8b``. The published protocol of an endpoint is the published judge; its other one is not.
    """
    if settings.judge == "published" or (settings.judge == "openai" and settings.protocol != DEFAULT_PROTOCOL):
        return ""
    if settings.judge == "shapeworld":
        return settings.judge
    given = Path(settings.weights).stem if settings.weights else settings.model.split("/")[-1]
    if not given:
        return "" if settings.judge in ("detector", "vqa") else settings.judge
    return NOT_IN_IDS.sub("-", given.lower()).strip("-.")
