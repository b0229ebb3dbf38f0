"""What ``reca compare`` is asked to compare: any name of a model or of results, turned into folders of answers.

A side may be a folder of answers or of pictures, a training, the beginning of the hash of one of them, a registered
version (``models:/NAME@ALIAS``, ``NAME/3``), a bundled model, a checkpoint, or the id of a run in MLflow. A model
stands for everything that was judged of it below this home; what all sides were measured on alike is compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.context import Context
from deployments.environment import enter
from deployments.outcome import model_name
from evaluation.compare import RESULT_FILE, Measurement, read_measurement
from evaluation.records import Arithmetic, JudgeRequest
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.home import Home, beginning
from reca_core.contracts.registry import BUNDLED_MODELS

REQUEST = "request.json"
VERSION = re.compile(r"(models:/)?[^/:@]+(/\d+|@[^/:@]+)")
MLFLOW_RUN = re.compile(r"[0-9a-f]{32}")
KINDS = ("answers", "samples", "runs")
"""Folders below the home whose hash can name a side, the most exact first."""


@dataclass(frozen=True)
class Side:
    """One side, with everything that was judged of it."""

    typed: str
    name: str
    answers: tuple[Path, ...]


@dataclass(frozen=True)
class Contest:
    """What can be compared: one folder per side, all about the same benchmark."""

    benchmark: str
    names: tuple[str, ...]
    folders: tuple[Path, ...]
    measurements: tuple[Measurement, ...]


def contests(typed: Sequence[str], arithmetic: Arithmetic, context: Context) -> list[Contest]:
    """One contest per benchmark that all sides were measured on, with the newest folders that are alike.

    Where no two folders are alike the newest of each side are returned: comparing them says what differs.
    Raises BadInput for a side that means nothing, PrerequisiteMissing for one of which nothing was measured, or where
    the sides share no benchmark.
    """
    sides = [find_side(word, context) for word in typed]
    read = [[(path, read_measurement(path, arithmetic)) for path in side.answers] for side in sides]
    found: list[Contest] = []
    for benchmark in dict.fromkeys(measurement.table.benchmark for _, measurement in read[0]):
        mine = [[pair for pair in side if pair[1].table.benchmark == benchmark] for side in read]
        if all(mine):
            chosen = _alike(mine)
            folders, measurements = zip(*chosen, strict=True)
            found.append(Contest(benchmark, tuple(side.name for side in sides), folders, measurements))
    if not found:
        told = "; ".join(f"{side.name}: {', '.join(_ids(pairs))}" for side, pairs in zip(sides, read, strict=True))
        raise PrerequisiteMissing(
            f"there is no benchmark that all were measured on: {told}", field="compare", remedy="reca evaluate --help"
        )
    return found


def _ids(pairs: Sequence[tuple[Path, Measurement]]) -> list[str]:
    return sorted({measurement.table.benchmark for _, measurement in pairs})


def _alike(sides: Sequence[Sequence[tuple[Path, Measurement]]]) -> list[tuple[Path, Measurement]]:
    """The newest folder of the first side to which every other side has an equal, and those; else all the newest."""
    for first in sides[0]:
        equal = [next((pair for pair in side if _terms(pair[1]) == _terms(first[1])), None) for side in sides[1:]]
        if all(equal):
            return [first, *(pair for pair in equal if pair is not None)]
    return [side[0] for side in sides]


def _terms(measurement: Measurement) -> tuple[str, str, str, tuple[int, ...]]:
    table = measurement.table
    return table.benchmark, table.judge.model_dump_json(), table.prompts_sha256, tuple(table.seeds)


def find_side(typed: str, context: Context) -> Side:
    """Everything that was judged of what a person named."""
    home = context.surroundings.home
    path = context.path(typed)
    if (path / REQUEST).is_file() or (path / RESULT_FILE).is_file():
        return _directory(typed, path, home)
    if VERSION.fullmatch(typed):
        return _version(typed, context)
    if typed in BUNDLED_MODELS or (path / "config.json").is_file():
        return _checkpoint(typed, context)
    found = beginning(home, KINDS, typed)
    if len(found) == 1:
        return _directory(typed, found[0], home)
    if len(found) > 1:
        shown = [f"{folder.parent.name}/{folder.name}" for folder in found]
        raise BadInput(f"{len(found)} folders begin so", field=typed, choices=shown, remedy="type more of the hash")
    if MLFLOW_RUN.fullmatch(typed):
        return _mlflow_run(typed, context)
    raise BadInput(
        "names no results",
        field=typed,
        choices=[folder.parent.name for folder in sorted(home.root.glob(f"answers/*/{RESULT_FILE}"))],
        remedy="a folder or hash below the home (answers, samples, runs), models:/NAME@ALIAS, NAME/3, an MLflow run",
    )


def _directory(typed: str, path: Path, home: Home) -> Side:
    request = _json(path / REQUEST)
    if "samples_directory" in request:
        return _judged(typed, model_name(path), [path])
    if "output_directory" in request:  # pictures, by a model or from elsewhere
        return _judged(typed, _sampled_name(path, request), _answers(home, lambda samples: samples == path))
    if (path / RESULT_FILE).is_file() and "training" in request:
        sha256 = _json(path / RESULT_FILE)["checkpoint"]["sha256"]
        return _model(typed, f"the checkpoint of {path.name}", sha256, home)
    raise BadInput("is neither a folder of results nor a finished training", field=typed)


def _sampled_name(path: Path, request: dict[str, Any]) -> str:
    return str(request.get("model", {}).get("name") or path.name)


def _version(typed: str, context: Context) -> Side:
    from tasks.tracking_models import find_version

    enter(context.surroundings)
    version = find_version(typed if typed.startswith("models:/") else f"models:/{typed}")
    name = f"{version.name}/{version.version}"
    return _model(typed, name, version.tags.get("checkpoint_sha256", ""), context.surroundings.home)


def _checkpoint(typed: str, context: Context) -> Side:
    from reca_core.contracts.requests import ModelChoice
    from tasks.models import resolve_model

    enter(context.surroundings)
    found = resolve_model(ModelChoice(source=context.source(typed)))
    return _model(typed, found.name, found.sha256, context.surroundings.home)


def _mlflow_run(typed: str, context: Context) -> Side:
    from tasks.tracking_runs import judged_hashes, run_tags

    enter(context.surroundings)
    home, tags = context.surroundings.home, run_tags(typed)
    if tags.get("stage") == "train":
        return _directory(typed, home.run(tags["request_hash"]).path, home)
    hashes = judged_hashes(typed)
    folders = [home.answers(name).path for name in hashes]
    missing = [str(folder) for folder in folders if not (folder / RESULT_FILE).is_file()]
    if missing:
        raise PrerequisiteMissing(f"{missing[0]} is gone", field=typed, remedy=f"reca rerun {typed}")
    return _judged(typed, model_name(folders[0]) if folders else typed, folders)


def _model(typed: str, name: str, sha256: str, home: Home) -> Side:
    return _judged(typed, name, _answers(home, lambda samples: _weights(samples) == sha256))


def _judged(typed: str, name: str, folders: Sequence[Path]) -> Side:
    done = [folder for folder in folders if (folder / RESULT_FILE).is_file()]
    if not done:
        raise PrerequisiteMissing(
            f"nothing was measured of {name} below this home", field=typed, remedy="reca evaluate --model MODEL"
        )
    newest = sorted(done, key=lambda folder: (folder / RESULT_FILE).stat().st_mtime, reverse=True)
    return Side(typed, name, tuple(newest))


def _answers(home: Home, wanted: Callable[[Path], bool]) -> list[Path]:
    """Finished folders of answers whose samples directory is the wanted one."""
    return [folder for folder, samples in _finished(home) if wanted(samples)]


def _finished(home: Home) -> Iterator[tuple[Path, Path]]:
    for done in sorted(home.root.glob(f"answers/*/{RESULT_FILE}")):
        text = (done.parent / REQUEST).read_text(encoding="utf-8")
        yield done.parent, Path(JudgeRequest.model_validate_json(text).samples_directory)


def _weights(samples: Path) -> str:
    """SHA-256 of the model that drew; empty for pictures from elsewhere."""
    request = samples / REQUEST
    return str(_json(request).get("model", {}).get("sha256", "")) if request.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
