"""Which reader a source needs: ``open_source`` turns what the user typed into something that yields pictures.

Paths must be absolute here: only the command line knows a current directory. A name that is no path is a hub id.
"""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import PIL

from reca_core.contracts.errors import BadInput
from reca_core.contracts.home import Home
from reca_core.contracts.requests import ImageSource
from reca_core.contracts.world import WORLD_VERSION
from reca_core.data.archives import ARCHIVE_SUFFIXES, Archives
from reca_core.data.entries import Entry, Found, Part, Source
from reca_core.data.folder import Folder
from reca_core.data.shapeworld import render, scene_from_seed
from reca_core.data.tables import TABLE_SUFFIXES, Tables, saved_tables

SHAPEWORLD = "shapeworld"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
SAVED_MARKS = ("dataset_dict.json", "state.json")
"""Files that tell a ``save_to_disk`` directory from a folder of pictures."""
ACCEPTED = ("shapeworld", "an absolute folder", ".parquet", ".arrow", ".tar", "OWNER/NAME on the hub")


class Scenes:
    """Pictures rendered from consecutive seeds."""

    revision = ""

    def __init__(self, source: ImageSource) -> None:
        self.first, self.count, self.size = source.scene_seed, source.scenes, source.scene_size_pixels
        self.identity = f"{SHAPEWORLD} from {self.first}, {self.size} pixels"

    def expected(self) -> int:
        """The number of scenes; some of them look the same."""
        return self.count

    def parts(self) -> Iterator[Part]:
        """One part: the world's version and the PNG encoder decide the bytes."""
        yield Part(SHAPEWORLD, f"{self.count} world {WORLD_VERSION} pillow {PIL.__version__}", self._entries)

    def _entries(self, start: int) -> Iterator[Entry]:
        for seed in range(self.first + start, self.first + self.count):
            stream = io.BytesIO()
            render(scene_from_seed(seed), self.size).save(stream, "PNG")
            yield Found(f"scene {seed}", stream.getvalue())


def open_source(source: ImageSource, home: Home) -> Source:
    """The reader for a source.

    Raises BadInput for a source that does not exist, is empty or is not of the kind it is said to be, and
    PrerequisiteMissing for a hub data set that cannot be reached.
    """
    readers: dict[str, Callable[[], Source]] = {
        "shapeworld": lambda: Scenes(source),
        "folder": lambda: Folder(_existing_folder(source.source)),
        "datasets": lambda: _tables_or_hub(source, home),
        "webdataset": lambda: Archives(_files(source.source, ARCHIVE_SUFFIXES)),
    }
    try:
        return readers[source.kind if source.kind != "auto" else _guess(source.source)]()
    except OSError as error:  # no right to look, or a name no file system takes
        fact = f"{source.source} cannot be looked at: {error.strerror or error}"
        raise BadInput(fact, field="images.source", choices=ACCEPTED) from error


def _guess(name: str) -> str:
    if name == SHAPEWORLD:
        return "shapeworld"
    path = Path(name)
    if path.is_dir() and path.is_absolute():
        return "datasets" if any((path / mark).is_file() for mark in SAVED_MARKS) else "folder"
    if name.lower().endswith(ARCHIVE_SUFFIXES):
        return "webdataset"
    if name.lower().endswith(TABLE_SUFFIXES) or not path.is_absolute():
        return "datasets"
    fact = f"{name} is one file, not a folder" if path.exists() else f"{name} does not exist"
    raise BadInput(fact, field="images.source", choices=ACCEPTED)


def _existing_folder(name: str) -> Path:
    path = _absolute(name)
    if not path.is_dir():
        fact = f"{name} is a file" if path.exists() else f"{name} does not exist"
        raise BadInput(fact, field="images.source", remedy="name an existing folder")
    return path


def _tables_or_hub(source: ImageSource, home: Home) -> Source:
    name = source.source
    if Path(name).is_absolute():
        path = Path(name)
        found = saved_tables(path) if path.is_dir() else _files(name, TABLE_SUFFIXES)
        return Tables(found, source.image_column, source.split)
    if name.lower().endswith(TABLE_SUFFIXES) or not HUB_ID.fullmatch(name):
        _absolute(name)
    from reca_core.data.hub import HubPictures  # ``datasets`` takes half a second to import: only where it is needed

    return HubPictures(source, home.cache)


def _files(pattern: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that a path or a glob names. Raises BadInput if there is none or one has another suffix."""
    literal = _absolute(pattern)
    found = [literal] if literal.exists() else [Path(name) for name in glob.glob(pattern, recursive=True)]
    if literal.is_dir():
        found = [path for path in literal.iterdir() if path.name.lower().endswith(suffixes)]
    if not found:
        fact = f"{pattern} holds nothing to read" if literal.exists() else f"{pattern} matches no file"
        raise BadInput(fact, field="images.source", choices=suffixes, remedy="globs such as DIR/*.tar are allowed")
    strange = [path for path in found if not path.name.lower().endswith(suffixes)]
    if strange:
        raise BadInput(f"{strange[0]} has the wrong suffix", field="images.source", choices=suffixes)
    return sorted(found)


def _absolute(name: str) -> Path:
    path = Path(name)
    if not path.is_absolute():
        raise BadInput(f"{name!r} is neither an absolute path nor a hub id", field="images.source", choices=ACCEPTED)
    return path
