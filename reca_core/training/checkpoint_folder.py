"""A checkpoint's folder: it appears whole or not at all, and is believed only when it is what was written.

``checkpoints/step-NNNNNNNN/`` is written under a temporary name, synced and renamed, so a kill leaves no half folder.
Written last, ``DONE.json`` has size and SHA-256 of every file. Which one is read on resume: the newest with
``DONE.json``. A folder without it was never finished (a power cut before the data reached the disk) and the one before
it is used, with a line in the log. A folder *with* it whose files do not match was finished and damaged later: that is
refused, because going back silently would hide a failing disk.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reca_core.contracts.errors import CheckpointRefused, StageFailed
from reca_core.contracts.files import sync_directory, write_json
from reca_core.contracts.hashing import sha256_file

log = logging.getLogger(__name__)

FACTS, COMPLETE = "state.json", "DONE.json"
SHARDS = "shards"
"""Folder of a checkpoint whose processes wrote a part each."""
STEP_PREFIX, TEMPORARY_SUFFIX = "step-", ".tmp"
SPACE_MARGIN = 1.05
"""Free disk space asked for, relative to the tensors: headers, JSON and the file system's own blocks."""
SCORE = "score"
"""Fact by which checkpoints are compared, lower is better; None where they are not."""

Sizes = dict[str, dict[str, Any]]
"""File, relative to the folder -> ``bytes`` and ``sha256``."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that is whole and of the right request."""

    folder: Path
    step: int
    facts: dict[str, Any]


def step_name(step: int) -> str:
    """``step-00000050``: sorts as text in the order of the numbers."""
    return f"{STEP_PREFIX}{step:08d}"


def temporary_folder(directory: Path, step: int) -> Path:
    """Where a checkpoint grows until it is whole; what a kill leaves there is removed by the next attempt."""
    return directory / f".{step_name(step)}{TEMPORARY_SUFFIX}"


def publish(directory: Path, step: int, facts: Mapping[str, Any], fill: Callable[[Path], Sizes]) -> Path:
    """Make the checkpoint of a step appear.

    Args:
        fill: writes the tensors into the temporary folder and says what it wrote.

    Raises StageFailed if the disk is full or the folder cannot be written; earlier checkpoints stay untouched.
    """
    final, temporary = directory / step_name(step), temporary_folder(directory, step)
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        sizes = fill(temporary)
        write_json(temporary / FACTS, {"step": step, **facts})
        write_json(temporary / COMPLETE, sizes | sizes_of([temporary / FACTS], temporary))
        if final.exists():  # left unfinished by a power cut; a finished one would have been resumed from
            remove(final)
        os.replace(temporary, final)
        sync_directory(directory)
    except (OSError, SafetensorError) as error:
        raise cannot_be_written(directory, step, error) from error
    return final


def cannot_be_written(directory: Path, step: int, error: object) -> StageFailed:
    """The error of a checkpoint that could not be written; what was written of it is removed."""
    shutil.rmtree(temporary_folder(directory, step), ignore_errors=True)
    kept = ["the base model", *(path.name for path in folders(directory) if (path / COMPLETE).exists())]
    return StageFailed(
        f"checkpoint of step {step} cannot be written: {error}",
        field=str(directory),
        remedy=f"make room or make it writable, then run again: it resumes from {kept[-1]}",
    )


def check_space(directory: Path, tensor_bytes: int) -> None:
    """Raises OSError where the disk has no room for so many bytes of tensors."""
    directory.mkdir(parents=True, exist_ok=True)
    needed, free = int(tensor_bytes * SPACE_MARGIN), shutil.disk_usage(directory).free
    if needed > free:
        raise OSError(f"{needed} bytes needed, {free} free")


def sizes_of(files: list[Path], folder: Path) -> Sizes:
    """Size and SHA-256 of files, after they have reached the disk."""
    for path in files:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(files)
    }


def newest(directory: Path, request_hash: str) -> Found | None:
    """The checkpoint to resume from, or None where nothing was saved yet.

    Raises CheckpointRefused for a damaged checkpoint and for one of another request.
    """
    for folder in reversed(folders(directory)):
        if not (folder / COMPLETE).exists():
            log.warning("%s was never finished (it has no %s): using the one before it", folder, COMPLETE)
            continue
        verify(folder)
        facts = read_facts(folder)
        if facts["request_hash"] != request_hash:
            raise CheckpointRefused(
                f"is of request {facts['request_hash']}, this is request {request_hash}",
                field=str(folder),
                remedy="every request has a run directory of its own; move this folder away",
            )
        return Found(folder, facts.pop("step"), facts)
    return None


def read_facts(folder: Path) -> dict[str, Any]:
    """``state.json``."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return facts


def verify(folder: Path) -> None:
    """Compare every file with what ``DONE.json`` says of it. Raises CheckpointRefused."""
    try:
        expected = json.loads((folder / COMPLETE).read_text())
    except ValueError as error:
        raise _damaged(folder, f"{COMPLETE} is no JSON ({error})") from error
    for name, facts in expected.items():
        path = folder / name
        if not path.exists():
            raise _damaged(folder, f"{name} is missing")
        if path.stat().st_size != facts["bytes"]:
            raise _damaged(folder, f"{name} has {path.stat().st_size} bytes, expected {facts['bytes']}")
        if sha256_file(path) != facts["sha256"]:
            raise _damaged(folder, f"{name} has changed since it was written")


def _damaged(folder: Path, fact: str) -> CheckpointRefused:
    earlier = [path.name for path in folders(folder.parent) if path.name < folder.name]
    resume = f"resume from {earlier[-1]}" if earlier else "start from the base model"
    return CheckpointRefused(
        f"{fact}: the checkpoint was finished and damaged later",
        field=str(folder),
        remedy=f"check the disk; move this folder away to {resume}",
    )


def prune(directory: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` and the best. Raises StageFailed where they cannot be removed."""
    best = best_step(directory)
    try:
        for old in folders(directory)[:-keep]:
            if old.name != step_name(best):
                remove(old)
    except OSError as error:
        raise StageFailed(f"an old checkpoint cannot be removed: {error}", field=str(directory)) from error


def best_step(directory: Path) -> int:
    """Step of the finished checkpoint with the lowest score, the newest of equal ones; 0 where none has a score."""
    facts = [read_facts(folder) for folder in folders(directory) if (folder / COMPLETE).exists()]
    scored = [(float(fact[SCORE]), -int(fact["step"])) for fact in facts if fact.get(SCORE) is not None]
    return -min(scored)[1] if scored else 0


def folders(directory: Path) -> list[Path]:
    """Checkpoints by step, finished or not."""
    return sorted(directory.glob(f"{STEP_PREFIX}*")) if directory.is_dir() else []


def remove(folder: Path) -> None:
    """The marker goes first, so that a kill in between leaves something that is visibly unfinished."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder)
