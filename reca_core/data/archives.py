"""Webdataset tars, read member by member and never unpacked: a member's name is a label, never a path of ours.

Pictures are stored under their own hash, so no name can lead anywhere; names that try to (``..``, absolute, links,
devices, NUL, longer than a file system allows) are listed all the same, because whoever made the archive should know.
Captions and other members beside the pictures are companions: ignored and counted.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from reca_core.contracts.errors import BadInput
from reca_core.contracts.records import QuarantineKind
from reca_core.data.entries import MAXIMUM_HELD_BYTES, Companion, Entry, Found, Part, Refused, printable, stamp_of
from reca_core.data.images import HEADER_BYTES, recognise

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""A member with such a name that is no picture is refused, not taken for a companion."""
LONGEST_NAME_BYTES = 255
"""NAME_MAX of every common file system, for each piece of a path."""
SHOWN_NAME = 80
"""Longer names are cut in reasons and labels keep their beginning."""
ARCHIVE_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError)
"""What reading a torn or hand-made archive raises; tarfile lets number parsing through as ValueError."""


class Archives:
    """The pictures in a list of tar files."""

    revision = ""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises BadInput if there is no archive."""
        if not paths:
            raise BadInput("names no archive", field="images.source", remedy="name a .tar file; globs are allowed")
        self.paths = sorted(paths)
        self.identity = "archives " + "\n".join(str(path) for path in self.paths)

    def expected(self) -> int:
        """Unknown: an archive has no table of contents."""
        return 0

    def parts(self) -> Iterator[Part]:
        """One part per archive."""
        for path in self.paths:
            yield archive_part(path)


def archive_part(path: Path) -> Part:
    """The members of one tar file."""
    try:
        stamp = stamp_of(path)
    except OSError as error:
        refusal = Refused(printable(path.name), "unreadable", f"cannot be looked at: {error.strerror}")
        return Part(str(path), "", lambda start: iter([refusal][start:]))
    return Part(str(path), stamp, partial(_entries, path))


def _entries(path: Path, start: int) -> Iterator[Entry]:
    """Members from number ``start`` on, and a refusal of the archive where it breaks off. Folders are not counted."""
    archive_name = printable(path.name)
    number = 0
    try:
        with tarfile.open(path, "r:*") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it remembers every member: too many to hold
                if member.isdir():
                    continue
                if number >= start:
                    yield _entry(archive, member, archive_name)
                number += 1
            _check_end(archive)
    except ARCHIVE_ERRORS as error:
        if number >= start:
            yield _torn(archive_name, number, error)


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises ReadError unless an empty block closes the archive: tarfile takes a bad header for the end of it."""
    stream = archive.fileobj
    assert stream is not None  # it is open
    stream.seek(archive.offset)  # type: ignore[attr-defined]
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("unexpected end of data: no empty block closes it")
    if any(block):
        raise tarfile.ReadError("the next header is damaged, and nothing behind it can be found")


def _torn(archive_name: str, members: int, error: BaseException) -> Refused:
    words = str(error).partition("\n")[0] or type(error).__name__
    kind: QuarantineKind = "damaged"
    if isinstance(error, EOFError) or "unexpected end" in words or "end-of-stream" in words:
        kind = "truncated"
    return Refused(archive_name, kind, f"the archive breaks off after {members} members: {words}")


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, archive_name: str) -> Entry:
    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    label = f"{archive_name}/{name}" if len(name) <= LONGEST_NAME_BYTES else f"{archive_name}/{name[:SHOWN_NAME]}..."
    refusal = _kind_fault(member, label) or _name_fault(name, label)
    if refusal is not None:
        return refusal
    stream = archive.extractfile(member)
    if stream is None:
        return Refused(label, "not_a_file", "the member has no content")
    header = stream.read(HEADER_BYTES)
    if recognise(header) is None and PurePosixPath(name).suffix.lower() not in PICTURE_SUFFIXES:
        return Companion(label)
    if member.size > MAXIMUM_HELD_BYTES:
        return Refused(label, "too_large", f"{member.size:,} bytes are more than {MAXIMUM_HELD_BYTES:,}; not read")
    content = header + stream.read()
    if len(content) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return Found(label, content)


def _kind_fault(member: tarfile.TarInfo, label: str) -> Refused | None:
    if member.issym() or member.islnk():
        return Refused(label, "unsafe_link", f"is a link to {member.linkname[:SHOWN_NAME]!r}; not followed")
    if not member.isreg() or member.issparse():
        return Refused(label, "not_a_file", "is a device, pipe or sparse file; not read")
    return None


def _name_fault(name: str, label: str) -> Refused | None:
    pieces = name.replace("\\", "/").split("/")
    fault = ""
    if "\0" in name:
        fault = "holds a NUL byte"
    elif name.startswith(("/", "\\")) or PureWindowsPath(name).is_absolute():
        fault = "is absolute"
    elif ".." in pieces:
        fault = "climbs out of its folder"
    elif max(len(piece.encode()) for piece in pieces) > LONGEST_NAME_BYTES:
        fault = f"is longer than {LONGEST_NAME_BYTES} bytes"
    return Refused(label, "unsafe_name", f"the member's name {fault}; not read") if fault else None
