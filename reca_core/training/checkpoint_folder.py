"""A checkpoint's folder: it appears whole or not at all, and is believed only when it is what was written.

``checkpoints/step-NNNNNNNN/`` is written under a temporary name, synced and renamed, so a kill leaves no half folder.
Written last, ``DONE.json`` has size and SHA-256 of every file. Which one is read on resume: the newest with
``DONE.json``. A folder without it was never finished (a power cut before the data reached the disk) and the one before
it is used, with a line in the log. A folder *with* it whose files do not match was finished and damaged later: that is
refused, because going back silently would hide a failing disk.

Ours are the folders named exactly so. Whatever else lies beside them, such as a copy or a damaged one under another
name, is neither read nor counted nor removed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
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
STEP_FOLDER, TEMPORARY_SUFFIX = re.compile(r"step-[0-9]{8}"), ".tmp"
TENSORS = "*.safetensors"
SPACE_MARGIN = 1.05
"""Free disk space asked for, relative to the tensors: headers, JSON and the file system's own blocks."""
FILE_BYTES, FILE_COPIES = 128 * 1024**2, 2
"""Of a checkpoint in parts: at most so much of a rank's state is in one file, unless one tensor has more, because torch
has the file so often in memory while it writes it."""
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
    return f"step-{step:08d}"


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
    kept = ["the base model", *(path.name for path in folders(directory) if is_finished(path))]
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
        if not is_finished(folder):
            log.warning("%s was never finished (it has no %s): it is passed over", folder, COMPLETE)
            continue
        verify(folder)
        found = _found(folder)
        if found.facts.get("request_hash") != request_hash:
            raise CheckpointRefused(
                f"is of request {found.facts.get('request_hash')}, this is request {request_hash}",
                field=str(folder),
                remedy="every request has a run directory of its own; move this folder away",
            )
        return found
    return None


def _found(folder: Path) -> Found:
    facts = read_facts(folder)
    return Found(folder, facts.pop("step"), facts)


def read_facts(folder: Path) -> dict[str, Any]:
    """``state.json``. Raises CheckpointRefused where it cannot be read or is not of the folder's step."""
    facts = _read_object(folder, FACTS)
    step, score = facts.get("step"), facts.get(SCORE)
    if not isinstance(step, int) or not isinstance(score, float | int | None):
        raise _damaged(folder, f"{FACTS} has step {step!r} and {SCORE} {score!r}")
    if step_name(step) != folder.name:
        raise CheckpointRefused(
            f"holds the state of step {step}: a copy, or renamed",
            field=str(folder),
            remedy=f"give it a name that is no checkpoint's, such as {folder.name}.copy",
        )
    return facts


def verify(folder: Path) -> None:
    """Compare every file with what ``DONE.json`` says of it. Raises CheckpointRefused."""
    expected = _read_object(folder, COMPLETE)
    needed = {FACTS, *(path.relative_to(folder).as_posix() for path in folder.rglob(TENSORS))}
    if unlisted := sorted(needed - expected.keys()):
        raise _damaged(folder, f"{COMPLETE} does not list {', '.join(unlisted)}")
    for name, facts in expected.items():
        if not isinstance(facts, dict) or not {"bytes", "sha256"} <= facts.keys():
            raise _damaged(folder, f"{COMPLETE} has no size and hash of {name}")
        try:
            _compare(folder, name, facts)
        except OSError as error:
            raise _damaged(folder, f"{name} cannot be read ({error.strerror})") from error


def _compare(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    path = folder / name
    if not path.exists():
        raise _damaged(folder, f"{name} is missing")
    if path.stat().st_size != facts["bytes"]:
        raise _damaged(folder, f"{name} has {path.stat().st_size} bytes, expected {facts['bytes']}")
    if sha256_file(path) != facts["sha256"]:
        raise _damaged(folder, f"{name} has changed since it was written")


def _read_object(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_bytes())
    except OSError as error:
        raise _damaged(folder, f"{name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _damaged(folder, f"{name} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise _damaged(folder, f"{name} holds no JSON object")
    return value


def _damaged(folder: Path, fact: str) -> CheckpointRefused:
    earlier = [path.name for path in folders(folder.parent) if path.name < folder.name and is_finished(path)]
    resume = f"resume from {earlier[-1]}" if earlier else "start from the base model"
    return CheckpointRefused(
        f"{fact}: the checkpoint was finished and damaged later",
        field=str(folder),
        remedy=f"check the disk and who may read it; move this folder away, or rename it, to {resume}",
    )


def prune(directory: Path, keep: int) -> None:
    """Remove what is older than the newest ``keep`` checkpoints, except the best.

    Only finished checkpoints whose facts can be read count, so nothing else makes a good one go. A finished one that
    cannot be read stays, with a warning; one that was never finished goes once there is a newer checkpoint. Raises
    StageFailed where one cannot be removed.
    """
    readable = _readable(directory)
    if not readable:
        return
    best, kept = _best(readable), {found.folder for found in readable[-keep:]}
    doomed = [found.folder for found in readable if found.folder not in kept and found.step != best]
    for folder in folders(directory):
        if not is_finished(folder) and folder.name < readable[-1].folder.name:
            log.warning("%s was never finished (it has no %s): it is removed", folder, COMPLETE)
            doomed.append(folder)
    try:
        for folder in doomed:
            remove(folder)
    except OSError as error:
        raise StageFailed(
            f"an old checkpoint cannot be removed: {error}",
            field=str(directory),
            remedy=f"make it writable, then run again: it resumes from {readable[-1].folder.name}",
        ) from error


def best_step(directory: Path) -> int:
    """Step of the finished checkpoint with the lowest score, the newest of equal ones; 0 where none has a score."""
    return _best(_readable(directory))


def _best(readable: Iterable[Found]) -> int:
    scored = [(float(found.facts[SCORE]), -found.step) for found in readable if found.facts.get(SCORE) is not None]
    return -min(scored)[1] if scored else 0


def _readable(directory: Path) -> list[Found]:
    """Finished checkpoints by step. One whose facts cannot be read is warned of: nobody needs it yet to go on."""
    readable = []
    for folder in filter(is_finished, folders(directory)):
        try:
            readable.append(_found(folder))
        except CheckpointRefused as error:
            log.warning("not counted among the checkpoints, and left as it is: %s", error)
    return readable


def folders(directory: Path) -> list[Path]:
    """Folders with the exact name of a checkpoint, by step, finished or not."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if STEP_FOLDER.fullmatch(path.name) and path.is_dir())


def is_finished(folder: Path) -> bool:
    """Whether the marker that is written last is there."""
    return (folder / COMPLETE).exists()


def remove(folder: Path) -> None:
    """The marker goes first, so that a kill in between leaves something that is visibly unfinished."""
    if folder.is_symlink():  # put there by a person: what it points to is theirs
        folder.unlink()
        return
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder)
