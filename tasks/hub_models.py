"""Models on the hub: downloaded at a commit, put together from several repositories where a family is published so.

``huggingface_hub`` fetches into its own cache, once and resumably. A model of several downloads gets a directory of
links into that cache, below ``cache/models``; the commits that were used stand in its ``downloads.json``, and are
remembered in ``cache/hub-pins.json``, so that a name means the same weights tomorrow. ``model.revision`` overrules.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.files import write_json
from reca_core.contracts.hashing import HASH_LENGTH, canonical_json, sha256_text
from reca_core.contracts.home import Home
from reca_core.contracts.hub_models import HUB_MODELS, Download, HubModel, models_of_repository
from reca_core.contracts.requests import ModelChoice

FIELD = "model.source"
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What a checkpoint of a repository that is not in the table consists of, weights in safetensors."""
HUB_PICKLES = ("*.bin", "*.pth", "*.ckpt")
"""Weights of repositories that publish no safetensors; the loaders read them with ``weights_only=True``."""
HUB_CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE")
ASKING_SECONDS = 5.0
"""How long the hub may take to say how large a model is."""
PINS, MODELS, DOWNLOADS = "hub-pins.json", "models", "downloads.json"


@dataclass(frozen=True)
class Fetched:
    """A model of the hub on this disk. ``revision``: the commit, or ``repository@commit`` of several."""

    directory: Path
    revision: str
    family: str


def fetch(choice: ModelChoice, home: Home) -> Fetched:
    """The model behind a hub id, all of its downloads; ``choice.weights`` says which of a repository's several models.

    Raises BadInput for an id that cannot be meant, PrerequisiteMissing where the hub does not give it.
    """
    known = known_model(choice)
    if known is None:
        directory = _unknown(choice, home)
        return Fetched(directory, directory.name, "")
    pins = Pins(home)
    first, *others = known.downloads
    snapshots = [(first, _snapshot(first, choice.revision or pins.of(first), home))]
    snapshots += [(download, _snapshot(download, pins.of(download), home)) for download in others]
    if not choice.revision:
        pins.remember(snapshots[0][1], first)
    for download, snapshot in snapshots[1:]:
        pins.remember(snapshot, download)
    if len(snapshots) == 1:
        return Fetched(snapshots[0][1], snapshots[0][1].name, known.family)
    commits = {download.repository: snapshot.name for download, snapshot in snapshots}
    directory = _joined(choice, snapshots, commits, home)
    return Fetched(directory, " ".join(f"{name}@{commit}" for name, commit in commits.items()), known.family)


def known_model(choice: ModelChoice) -> HubModel | None:
    """What the table says of a choice; None for a repository that is not in it.

    Raises BadInput for a repository of several models where none of them is chosen.
    """
    several = models_of_repository(choice.source)
    name = f"{choice.source}/{choice.weights}" if choice.weights else choice.source
    if several and name not in HUB_MODELS:
        files = tuple(each.removeprefix(f"{choice.source}/") for each in several)
        raise BadInput(f"{choice.source} holds several models", field="model.weights", choices=files)
    if name not in HUB_MODELS and choice.source in HUB_MODELS:
        raise BadInput(
            f"{choice.source} is published as one model, not with {choice.weights}",
            field="model.weights",
            remedy="leave it empty, or name a directory that holds the files",
        )
    return HUB_MODELS.get(name)


class Pins:
    """Which commit a repository of the table stands for: the table's, or that of the first download."""

    def __init__(self, home: Home) -> None:
        self._path = home.cache / PINS
        self._known: dict[str, str] = json.loads(self._path.read_text()) if self._path.is_file() else {}

    def of(self, download: Download) -> str:
        """Empty where neither says."""
        return download.revision or self._known.get(download.repository, "")

    def remember(self, snapshot: Path, download: Download) -> None:
        """A snapshot's folder is named by its commit."""
        if not self.of(download):
            self._known[download.repository] = snapshot.name
            write_json(self._path, self._known)


def hub_cache(home: Home) -> Path:
    """Where downloads go: the user's own hub cache if they have one, else below the home."""
    from huggingface_hub import constants

    theirs = any(os.environ.get(name) for name in HUB_CACHE_VARIABLES)
    return Path(constants.HF_HUB_CACHE) if theirs else home.cache / "hub"


def download_bytes(choice: ModelChoice, home: Home) -> int | None:
    """What is still to be downloaded of a model, as the hub says now; None where it does not say.

    Raises BadInput for an id that cannot be meant.
    """
    known = known_model(choice)
    first = Download(choice.source, HUB_FILES)
    downloads = known.downloads if known else (first,)
    revisions = [choice.revision if each is downloads[0] else "" for each in downloads]
    sizes = [_bytes_on_the_hub(*each, hub_cache(home)) for each in zip(downloads, revisions, strict=True)]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _bytes_on_the_hub(download: Download, revision: str, cache: Path) -> int | None:
    """Of the files that are not in the cache; the client names them there by what they contain."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.file_download import repo_folder_name

    try:
        found = HfApi().model_info(
            download.repository,
            revision=revision or download.revision or None,
            files_metadata=True,
            timeout=ASKING_SECONDS,
        )
    except HFValidationError as error:
        raise BadInput(f"{download.repository!r} cannot be a hub id", field=FIELD, remedy="OWNER/NAME") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError):
        return None
    files = [each for each in found.siblings or () if any(fnmatch(each.rfilename, name) for name in download.files)]
    blobs = cache / repo_folder_name(repo_id=download.repository, repo_type="model") / "blobs"
    contents = {(each.lfs.sha256 if each.lfs else each.blob_id) or each.rfilename: each.size or 0 for each in files}
    return sum(size for content, size in contents.items() if not (blobs / content).is_file())


def _joined(
    choice: ModelChoice, snapshots: Sequence[tuple[Download, Path]], commits: Mapping[str, str], home: Home
) -> Path:
    """One directory with links to the files of all downloads, made whole or not at all."""
    named = f"{choice.source}/{choice.weights}".rstrip("/")
    identity = sha256_text(canonical_json({"source": named, "commits": dict(commits)}))[:HASH_LENGTH]
    directory = home.cache / MODELS / f"{named.replace('/', '--')}-{identity}"
    if (directory / DOWNLOADS).is_file():
        return directory
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    for download, snapshot in snapshots:
        _link(snapshot, scratch / download.place, download.files)
    write_json(scratch / DOWNLOADS, dict(commits))
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(scratch, directory)
    return directory


def _link(snapshot: Path, place: Path, patterns: tuple[str, ...]) -> None:
    """Links to the files that were asked for; of two downloads in one place the first keeps a name."""
    for file in sorted({path for pattern in patterns for path in snapshot.rglob(pattern) if path.is_file()}):
        link = place / file.relative_to(snapshot)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(file.resolve())


def _snapshot(download: Download, revision: str, home: Home) -> Path:
    """A repository's files at a commit, in the hub's own cache."""
    snapshot = download_files(download.repository, revision, download.files, home)
    if not any(path.is_file() for pattern in download.files for path in snapshot.rglob(pattern)):
        raise PrerequisiteMissing(
            f"{download.repository} holds no {', '.join(download.files)}",
            field=FIELD,
            remedy="check the revision",
        )
    return snapshot


def _unknown(choice: ModelChoice, home: Home) -> Path:
    """A repository that is not in the table: one complete checkpoint, pickles only where there is nothing else."""
    if choice.weights:
        settings = tuple(name for name in HUB_FILES if name != "*.safetensors")
        return download_files(choice.source, choice.revision, (*settings, choice.weights), home)
    snapshot = download_files(choice.source, choice.revision, HUB_FILES, home)
    if not any(snapshot.rglob("*.safetensors")):
        snapshot = download_files(choice.source, choice.revision, HUB_FILES + HUB_PICKLES, home)
    return snapshot


def download_files(repository: str, revision: str, patterns: tuple[str, ...], home: Home) -> Path:
    """The hub's snapshot, into the user's own hub cache if they have one, else below the home.

    Raises BadInput for an id that cannot be, PrerequisiteMissing where the hub does not give it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    cache, wanted = hub_cache(home), list(patterns)
    try:
        found = snapshot_download(repository, revision=revision or None, cache_dir=cache, allow_patterns=wanted)
    except HFValidationError as error:
        raise BadInput(f"{repository!r} cannot be a hub id", field=FIELD, remedy="OWNER/NAME") from error
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise PrerequisiteMissing(
            f"{repository} could not be fetched from the hub: {error}",
            field=FIELD,
            remedy="check the id, the revision and the network, or name a directory that holds the checkpoint",
        ) from error
    return Path(found)
