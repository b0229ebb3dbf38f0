"""Finds the model that a person named: a bundled one, a directory, a hub id, or a registered version.

The result names the weights by hash, so everything made from them is keyed by what they are and not by where they lie.
Nothing is loaded here; the family is read from the checkpoint's ``config.json``.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import reca_core
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.hashing import HASH_LENGTH, sha256_text, sha256_tree
from reca_core.contracts.home import Home
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import BUNDLED_MODELS, FAMILIES
from reca_core.contracts.requests import ModelChoice
from tasks.home import current_home

FIELD = "model.source"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What a checkpoint consists of, weights in safetensors."""
HUB_PICKLES = ["*.bin", "*.pth", "*.ckpt"]
"""Weights of repositories that publish no safetensors; the loaders read them with ``weights_only=True``."""
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".ckpt")
HUB_CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE")


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
        directory = _fetch(choice, current_home())
        name = _name(choice, source.rpartition("/")[2])
        return _resolved(choice, _chosen(choice, directory), name=name, revision=directory.name)
    raise BadInput(
        f"{source!r} is no model",
        field=FIELD,
        choices=(*BUNDLED_MODELS, "/absolute/directory", "OWNER/NAME on the hub", "models:/NAME@ALIAS"),
    )


def _name(choice: ModelChoice, name: str) -> str:
    return Path(choice.weights).stem if choice.weights else name


def _chosen(choice: ModelChoice, directory: Path) -> Path:
    """The directory with one of its weights files alone: a folder of links in the cache, so that nothing is copied.

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
        if name.as_posix() == choice.weights or path.suffix not in WEIGHTS_SUFFIXES:
            link = links / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(path.resolve())
    return links


def _resolved(choice: ModelChoice, directory: Path, name: str, revision: str = "") -> ResolvedModel:
    if not (directory / "config.json").is_file():
        raise PrerequisiteMissing(
            f"{directory} is not a checkpoint: it has no config.json",
            field=FIELD,
            remedy="name the directory that save_pretrained wrote",
        )
    return ResolvedModel(
        name=name,
        family=_family(choice, directory),
        path=str(directory),
        sha256=sha256_tree(directory),
        source=choice.source,
        revision=revision,
    )


def _family(choice: ModelChoice, directory: Path, known: str = "") -> str:
    """The family that was chosen, or the one that the checkpoint says it is."""
    if choice.family != "auto":
        return choice.family
    if known:
        return known
    try:
        model_type = json.loads((directory / "config.json").read_text()).get("model_type", "")
    except FileNotFoundError as error:
        raise PrerequisiteMissing(f"{choice.source} is not a checkpoint: it has no config.json", field=FIELD) from error
    except ValueError as error:
        raise BadInput(f"{directory / 'config.json'} is not JSON", field=FIELD) from error
    for family, entry in FAMILIES.items():
        if model_type in entry.model_types:
            return family
    raise BadInput(
        f"config.json says model_type {model_type!r}, which no family claims",
        field="model.family",
        choices=tuple(FAMILIES),
        remedy="choose the family yourself if you know that it fits",
    )


def _directory_name(directory: Path) -> str:
    """A name for tables: that of the directory, or of the run whose ``final`` it is."""
    return directory.parent.name if directory.name == "final" else directory.name


def _fetch(choice: ModelChoice, home: Home) -> Path:
    """The hub's snapshot of a model, into the user's own hub cache if they have one, else below the home."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    theirs = any(os.environ.get(name) for name in HUB_CACHE_VARIABLES)
    cache = None if theirs else home.cache / "hub"

    def fetched(patterns: list[str]) -> Path:
        revision = choice.revision or None
        return Path(snapshot_download(choice.source, revision=revision, cache_dir=cache, allow_patterns=patterns))

    try:
        if choice.weights:
            return fetched([*(name for name in HUB_FILES if name != "*.safetensors"), choice.weights])
        snapshot = fetched(HUB_FILES)
        if not any(snapshot.rglob("*.safetensors")):
            snapshot = fetched(HUB_FILES + HUB_PICKLES)
    except HFValidationError as error:
        raise BadInput(f"{choice.source!r} cannot be a hub id", field=FIELD, remedy="OWNER/NAME") from error
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise PrerequisiteMissing(
            f"{choice.source} could not be fetched from the hub: {error}",
            field=FIELD,
            remedy="check the id, the revision and the network, or name a directory that holds the checkpoint",
        ) from error
    return snapshot
