"""Finds the model that a person named: a bundled one, a directory, a hub id, or a registered version.

The result names the weights by hash, so everything made from them is keyed by what they are and not by where they lie.
Nothing is loaded here; the family is read from the checkpoint's ``config.json``.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import reca_core
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.hashing import HASH_LENGTH, sha256_text, sha256_tree
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import BUNDLED_MODELS, FAMILIES
from reca_core.contracts.requests import ModelChoice
from tasks.home import current_home
from tasks.hub_models import fetch

FIELD = "model.source"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
CONFIG = "config.json"
PARTS = frozenset(part for entry in FAMILIES.values() for part in entry.parts)
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".ckpt")


def resolve_model(choice: ModelChoice) -> ResolvedModel:
    """The model behind a choice, its weights on this disk.

    Raises BadInput where the choice cannot be meant, PrerequisiteMissing where what it names is not there,
    CheckpointRefused where registered weights have changed.
    """
    source = choice.source
    if source.startswith("models:/"):
        from tasks.tracking_models import resolve_version

        found = resolve_version(source)
        return found.model_copy(update={"family": _family(choice, Path(found.path), found.family)})
    if source in BUNDLED_MODELS:
        directory = Path(reca_core.__file__).resolve().parents[1] / BUNDLED_MODELS[source]
        return _resolved(choice, directory, name=source)
    if os.path.isabs(source):
        return _resolved(choice, _chosen(choice, Path(source)), name=_name(choice, _directory_name(Path(source))))
    if HUB_ID.fullmatch(source):
        fetched = fetch(choice, current_home())
        name = _name(choice, source.rpartition("/")[2])
        directory = fetched.directory if fetched.family else _chosen(choice, fetched.directory)
        return _resolved(choice, directory, name=name, revision=fetched.revision, known=fetched.family)
    raise BadInput(
        f"{source!r} is no model",
        field=FIELD,
        choices=(*BUNDLED_MODELS, "/absolute/directory", "OWNER/NAME on the hub", "models:/NAME@ALIAS"),
    )


def _name(choice: ModelChoice, name: str) -> str:
    return Path(choice.weights).stem if choice.weights else name


def _chosen(choice: ModelChoice, directory: Path) -> Path:
    """The directory without the other models' weights: a folder of links in the cache, so that nothing is copied.

    Parts that every model of a family has (FamilyEntry.parts), and all that lies in other folders, stay.
    Raises BadInput with the choices where there is no such file.
    """
    if not choice.weights:
        return directory
    files = [path for path in directory.rglob("*") if path.is_file()]
    weights = {path.relative_to(directory).as_posix() for path in files if path.suffix in WEIGHTS_SUFFIXES}
    if choice.weights not in weights:
        raise BadInput(f"{directory} has no {choice.weights}", field="model.weights", choices=sorted(weights))
    links = current_home().cache / "chosen" / sha256_text(f"{directory} {choice.weights}")[:HASH_LENGTH]
    for path in files:
        name = path.relative_to(directory)
        other = path.suffix in WEIGHTS_SUFFIXES and name.parent == Path(choice.weights).parent
        if name.as_posix() == choice.weights or not other or path.name in PARTS:
            link = links / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(path.resolve())
    return links


def _resolved(choice: ModelChoice, directory: Path, name: str, revision: str = "", known: str = "") -> ResolvedModel:
    if not _is_checkpoint(directory):
        raise PrerequisiteMissing(
            f"{directory} is not a checkpoint: it has neither a {CONFIG} nor weights that a family's authors publish",
            field=FIELD,
            remedy="name the directory that save_pretrained wrote, or one with the published files",
        )
    return ResolvedModel(
        name=name,
        family=_family(choice, directory, known),
        path=str(directory),
        sha256=sha256_tree(directory),
        source=choice.source,
        revision=revision,
    )


def _is_checkpoint(directory: Path) -> bool:
    return (directory / CONFIG).is_file() or _by_files(directory) != ""


def _by_files(directory: Path) -> str:
    """The family whose authors' files lie there; empty if there is none."""
    for family, entry in FAMILIES.items():
        if any(path.exists() for pattern in entry.files for path in directory.glob(pattern)):
            return family
    return ""


def _family(choice: ModelChoice, directory: Path, known: str = "") -> str:
    """The family that was chosen, or the one that the checkpoint says it is."""
    if choice.family != "auto":
        return choice.family
    if known:
        return known
    settings = _settings(directory)
    model_type = settings.get("model_type", "")
    for family, entry in FAMILIES.items():
        if model_type in entry.model_types or settings.get("_class_name") in entry.class_names:
            return family
    if by_files := _by_files(directory):
        return by_files
    if not settings:
        raise PrerequisiteMissing(f"{choice.source} is not a checkpoint: it has no {CONFIG}", field=FIELD)
    raise BadInput(
        f"config.json says model_type {model_type!r}, which no family claims",
        field="model.family",
        choices=tuple(FAMILIES),
        remedy="choose the family yourself if you know that it fits",
    )


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON", field=FIELD) from error
    if not isinstance(settings, dict):
        raise BadInput(f"{path} holds no JSON object", field=FIELD)
    return settings


def _directory_name(directory: Path) -> str:
    """A name for tables: that of the directory, or of the run whose ``final`` it is."""
    return directory.parent.name if directory.name == "final" else directory.name
