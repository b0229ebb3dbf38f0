"""A data set on the Hugging Face hub: ``datasets`` says which files a split has, the local readers read them.

The revision is turned into a commit first, and every file is fetched at that commit into ``cache/hub``, one at a time
and only once: a preparation that was killed goes on with the file it was at. A revision that is a commit already is
remembered, so that a machine without network can prepare again what it has. Data set scripts are never run.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NoReturn

import datasets
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from reca_core.contracts.base import Record
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.hashing import sha256_text
from reca_core.contracts.requests import ImageSource
from reca_core.data.archives import ARCHIVE_SUFFIXES, PICTURE_SUFFIXES, archive_part
from reca_core.data.entries import Companion, Entry, Found, Part, Refused
from reca_core.data.tables import TABLE_SUFFIXES, check_column, table_part

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT_SECONDS = 20.0
FILES_SHOWN = 20
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Captions beside the pictures of an image folder repository."""
UNREACHABLE = (OSError, HTTPError)
"""What the hub's client raises when there is no network, no such entry in the offline cache, or a server error."""


class HubFiles(Record):
    """The data files of one split at one commit."""

    commit: str
    files: list[str]
    """Paths inside the repository."""


class HubPictures:
    """The pictures of one split of a hub data set."""

    def __init__(self, source: ImageSource, cache: Path) -> None:
        """Raises BadInput for an id, revision, subset or split that is not there, PrerequisiteMissing without a hub."""
        self.source = source
        self.cache = cache / "hub"
        self.found = self._remembered() or self._resolve()
        self.revision = self.found.commit
        self.identity = f"hub {source.source} {self.revision} {source.subset} {source.split} {source.image_column}"
        self.identity += f" {source.files}" if source.files else ""

    def expected(self) -> int:
        """Unknown until the files are here."""
        return 0

    def parts(self) -> Iterator[Part]:
        """One part per file; the commit is the stamp, so a finished file is not needed again."""
        for name in self.found.files:
            yield Part(name, f"{self.revision} {self.source.image_column}", partial(self._entries, name))

    def _entries(self, name: str, start: int) -> Iterator[Entry]:
        if PurePosixPath(name).name in METADATA_NAMES:
            return iter([Companion(name)][start:])
        if not name.lower().endswith((*ARCHIVE_SUFFIXES, *TABLE_SUFFIXES, *PICTURE_SUFFIXES)):
            refusal = Refused(name, "unsupported", "files of this type are not read from the hub")
            return iter([refusal][start:])
        path = self._fetch(name)
        if name.lower().endswith(ARCHIVE_SUFFIXES):
            return archive_part(path).entries(start)
        if name.lower().endswith(TABLE_SUFFIXES):
            check_column([path], self.source.image_column)
            return table_part(path, self.source.image_column).entries(start)
        return iter([Found(name, path)][start:])

    def _fetch(self, name: str) -> Path:
        """The local copy of a file, downloaded if it is not there."""
        try:
            local = hf_hub_download(
                self.source.source, name, repo_type="dataset", revision=self.revision, cache_dir=self.cache
            )
        except UNREACHABLE as error:
            self._unreachable(error, name)
        return Path(local)

    def _resolve(self) -> HubFiles:
        commit = self._commit()
        if self.source.files:
            return self._remember(HubFiles(commit=commit, files=self._matching(commit)))
        builder = self._builder(commit)
        by_split = builder.config.data_files or {}
        if self.source.split not in by_split:
            fact = f"{self.source.source} has no split {self.source.split!r}"
            raise BadInput(fact, field="images.split", choices=[str(split) for split in by_split])
        prefix = f"hf://datasets/{self.source.source}@{commit}/"
        names = [str(url).removeprefix(prefix) for url in by_split[self.source.split]]
        return self._remember(HubFiles(commit=commit, files=names))

    def _matching(self, commit: str) -> list[str]:
        """The repository's files that the person's pattern names. Raises BadInput where there are none."""
        try:
            everything = HfApi().list_repo_files(self.source.source, revision=commit, repo_type="dataset")
        except UNREACHABLE as error:
            self._unreachable(error, self.source.source)
        found = sorted(fnmatch.filter(everything, self.source.files))
        if not found:
            fact = f"{self.source.source} has no file {self.source.files}"
            raise BadInput(fact, field="images.files", choices=sorted(everything)[:FILES_SHOWN])
        return found

    def _remember(self, found: HubFiles) -> HubFiles:
        if found.commit == self.source.revision:
            atomic_write_text(self._memory, found.model_dump_json(indent=2) + "\n")
        return found

    def _commit(self) -> str:
        """The commit that the revision stands for."""
        source, revision = self.source.source, self.source.revision or None
        try:
            facts = HfApi().dataset_info(source, revision=revision, timeout=TIMEOUT_SECONDS)
        except GatedRepoError as error:
            raise PrerequisiteMissing(
                f"{source} is gated and this machine's token has no access",
                field="images.source",
                remedy=f"ask for access on the data set's page, then: hf auth login ({error.response.status_code})",
            ) from error
        except RevisionNotFoundError as error:
            raise BadInput(f"{source} has no revision {revision!r}", field="images.revision") from error
        except RepositoryNotFoundError as error:
            fact = f"there is no folder or file {source!r} here, and no public data set of that name on the hub"
            remedy = "give an absolute path or an existing id; for a private one: hf auth login"
            raise BadInput(fact, field="images.source", remedy=remedy) from error
        except UNREACHABLE as error:
            self._unreachable(error, source)
        return str(facts.sha)

    def _builder(self, commit: str) -> datasets.DatasetBuilder:
        """What ``datasets`` makes of the repository: its subsets, splits and their files; nothing is built with it."""
        source, subset = self.source.source, self.source.subset or None
        address = f"hf://datasets/{source}"
        try:
            return datasets.load_dataset_builder(
                address, subset, revision=commit, cache_dir=str(self.cache / "datasets")
            )
        except ValueError as error:
            names = datasets.get_dataset_config_names(address, revision=commit)
            fact = f"{source}: subset {subset!r} cannot be used: {str(error).partition(chr(10))[0]}"
            raise BadInput(fact, field="images.subset", choices=names) from error
        except LocalEntryNotFoundError as error:
            self._unreachable(error, source)
        except FileNotFoundError as error:
            raise BadInput(f"{source} holds no data files: {error}", field="images.source") from error
        except UNREACHABLE as error:
            self._unreachable(error, source)

    def _unreachable(self, error: Exception, what: str) -> NoReturn:
        words = str(error).partition("\n")[0]
        raise PrerequisiteMissing(
            f"{what} of the hub data set {self.source.source!r} cannot be fetched: {words}"
            if what != self.source.source
            else f"the hub data set {what!r} cannot be reached: {words}",
            field="images.source",
            remedy="connect to the network (HF_HUB_OFFLINE unset), set HF_ENDPOINT to a mirror, or download it "
            f"elsewhere (hf download {self.source.source} --repo-type dataset --local-dir DIR) and name DIR's files",
        ) from error

    @property
    def _memory(self) -> Path:
        asked = (self.source.source, self.source.revision, self.source.subset, self.source.split, self.source.files)
        key = sha256_text(" ".join(asked).rstrip())
        return self.cache / "resolved" / f"{key}.json"

    def _remembered(self) -> HubFiles | None:
        if not (COMMIT.fullmatch(self.source.revision) and self._memory.is_file()):
            return None
        return HubFiles.model_validate_json(self._memory.read_text())
