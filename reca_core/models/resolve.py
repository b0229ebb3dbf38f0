"""What a ModelChoice turns out to be: a directory, its family and the hash of its contents. Imports without torch.

A source is looked up as a bundled name, then a directory, then a hub id. Registered versions (``models:/...``) are the
tracking store's to find; they arrive here as directories.
"""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import reca_core
from reca_core.contracts.errors import BadInput, CheckpointRefused, PrerequisiteMissing
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import BUNDLED_MODELS, FAMILIES
from reca_core.contracts.requests import ModelChoice

PACKAGES = Path(reca_core.__file__).resolve().parents[1]
REGISTERED = "models:/"
DEFAULT_REVISION = "main"
WANTED_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors", "*.bin", "*.pth", "*.ckpt")
"""Of a hub repository: weights, settings and tokenizer, no pictures or code."""


def resolve_model(choice: ModelChoice, cache: Path) -> ResolvedModel:
    """Find a model; download it into ``cache`` if it is a hub id.

    Raises BadInput for a ``models:/`` source or a wrong family, PrerequisiteMissing if nothing is there.
    """
    if choice.source.startswith(REGISTERED):
        raise BadInput(
            f"{choice.source} is a registered version, not a directory",
            field="model.source",
            remedy="resolve it in the tracking store first",
        )
    if choice.source in BUNDLED_MODELS:
        return _described(choice, bundled_directory(choice.source), choice.source)
    directory = Path(choice.source).expanduser()
    if directory.is_dir():
        return _described(choice, directory.resolve(), directory.resolve().name)
    if _looks_like_path(choice.source):
        raise PrerequisiteMissing(
            "no such directory", field="model.source", choices=tuple(BUNDLED_MODELS), remedy=f"check {choice.source}"
        )
    return _from_hub(choice, cache)


def bundled_directory(name: str) -> Path:
    """Where a bundled model lies in the installed package. Raises PrerequisiteMissing if it is not installed."""
    directory = PACKAGES / BUNDLED_MODELS[name]
    if not (directory / "config.json").is_file():
        raise PrerequisiteMissing(
            f"the bundled model {name} is not at {directory}",
            field="model.source",
            remedy="reinstall the package, or make the model with its make_tiny command",
        )
    return directory


def family_of(directory: Path) -> str:
    """The family whose ``model_type`` config.json states. Raises CheckpointRefused with the known types."""
    path = directory / "config.json"
    if not path.is_file():
        raise PrerequisiteMissing("the directory holds no config.json", field=str(directory))
    try:
        model_type = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointRefused("states no model_type", field=str(path), remedy="set model.family") from error
    for family, entry in FAMILIES.items():
        if model_type in entry.model_types:
            return family
    known = tuple(known for entry in FAMILIES.values() for known in entry.model_types)
    raise CheckpointRefused(f"model_type {model_type!r} belongs to no family here", field=str(path), choices=known)


def _described(choice: ModelChoice, directory: Path, name: str, revision: str = "") -> ResolvedModel:
    family = family_of(directory) if choice.family == "auto" else choice.family
    return ResolvedModel(
        name=name,
        family=family,
        path=str(directory),
        sha256=sha256_tree(directory),
        source=choice.source,
        revision=revision,
    )


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") != 1


def _from_hub(choice: ModelChoice, cache: Path) -> ResolvedModel:
    """Download at the pinned revision; the snapshot directory is named by the commit."""
    try:
        snapshot = huggingface_hub.snapshot_download(
            choice.source,
            revision=choice.revision or DEFAULT_REVISION,
            cache_dir=cache / "hub",
            allow_patterns=list(WANTED_FILES),
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise PrerequisiteMissing(
            f"the hub has no {choice.source} at revision {choice.revision or DEFAULT_REVISION}, or it is not public",
            field="model.source",
            remedy="check the id; for a gated model log in with: hf auth login",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise PrerequisiteMissing(
            f"{choice.source} is not in the cache and the hub cannot be reached",
            field="model.source",
            remedy=f"download it where there is a network (hf download {choice.source}) and give the directory",
        ) from error
    directory = Path(snapshot)
    return _described(choice, directory, choice.source, revision=directory.name)
