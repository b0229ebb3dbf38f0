"""A folder of pictures, however deep. Formats are told by content; every other file is listed, none is opened twice.

Names are walked in byte order, so that ``limit`` means the same pictures everywhere. Nothing outside the folder is
ever read: links to folders are not followed (they can form loops), links to files only when the file lies inside.
Memory grows with the names of the largest single directory, not with the number of files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reca_core.contracts.errors import BadInput
from reca_core.contracts.records import QuarantineKind
from reca_core.data.entries import Entry, Found, Part, Refused, printable, stamp_of

HIDDEN = "."
"""Names that begin with it are ignored, files and folders alike."""
CONTAINERS = (".parquet", ".arrow", ".tar", ".tar.gz", ".tgz")
"""Suffixes of files that hold pictures but are not pictures."""


class Folder:
    """The pictures below a directory."""

    revision = ""

    def __init__(self, root: Path) -> None:
        """Raises BadInput if the directory cannot be listed or is empty."""
        self.root = Path(os.path.realpath(root))
        self.identity = f"folder {self.root}"
        try:
            empty = not any(not name.startswith(HIDDEN) for name in os.listdir(self.root))
        except OSError as error:
            fact = f"{root} cannot be listed: {error.strerror}"
            raise BadInput(fact, field="images.source", remedy="give this user read access to it") from error
        if empty:
            raise BadInput(f"{root} is an empty folder", field="images.source", remedy="put pictures into it")

    def expected(self) -> int:
        """Number of files, from one walk that opens none."""
        return sum(1 for _ in self._walk())

    def parts(self) -> Iterator[Part]:
        """One part per file."""
        for path in self._walk():
            entry, stamp = self._entry(path)
            yield Part(os.fsdecode(path.relative_to(self.root)), stamp, partial(_only, entry))

    def _walk(self) -> Iterator[Path]:
        """Files, links, and directories that cannot be listed: depth first, in byte order of their names."""
        levels = [self._listing(self.root)]
        while levels:
            path, folder = next(levels[-1], (None, False))
            if path is None:
                levels.pop()
            elif folder and os.access(path, os.R_OK | os.X_OK):
                levels.append(self._listing(path))
            else:
                yield path

    def _listing(self, directory: Path) -> Iterator[tuple[Path, bool]]:
        """The paths in one directory and whether each is a real folder. Only names are held."""
        with os.scandir(directory) as found:
            names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in found}
        for name in sorted(names, key=os.fsencode):
            if not name.startswith(HIDDEN):
                yield directory / name, names[name]

    def _entry(self, path: Path) -> tuple[Entry, str]:
        """What lies at the path, and its stamp; a refusal has none, because looking again costs nothing."""
        label = printable(str(path.relative_to(self.root)))
        try:
            fault = self._fault(path)
            stamp = "" if fault else stamp_of(path)
        except OSError as error:
            fault, stamp = ("unreadable", f"cannot be looked at: {error.strerror}"), ""
        return (Refused(label, *fault) if fault else Found(label, path)), stamp

    def _fault(self, path: Path) -> tuple[QuarantineKind, str] | None:
        """Why this path must not be opened, or None."""
        link = path.is_symlink()
        if link and not path.exists():
            return "missing", "is a link that leads nowhere"
        if link and not Path(os.path.realpath(path)).is_relative_to(self.root):
            return "unsafe_link", "is a link that leads out of the folder; not followed"
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            words = "is a link to a folder; not followed" if link else "is a folder that cannot be listed"
            return ("unsafe_link" if link else "unreadable"), words
        if not stat.S_ISREG(mode):
            return "not_a_file", "is a pipe, socket or device; not opened"
        if path.name.lower().endswith(CONTAINERS):
            return "not_a_picture", f"holds pictures inside: read it with images.source={printable(str(path))}"
        return None


def _only(entry: Entry, start: int) -> Iterator[Entry]:
    """The entries of a part that has a single one."""
    if start == 0:
        yield entry
