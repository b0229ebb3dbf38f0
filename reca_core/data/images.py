"""One picture: its header judged before anything is decoded, then the pixels as upright 8-bit RGB.

``load_picture`` is what models are fed; ``inspect_picture`` is what preparation asks of every file. Both recognise
formats by content, never by suffix, and raise PictureUnusable with a kind and a reason in words, whatever the decoder
raised. The size rules are those of the published RecA loaders (shorter side at least 8 pixels, sides at most 1:10);
the pixel limit is where Pillow itself speaks of a decompression bomb. docs/data.md lists them for users.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.records import ManifestRow, QuarantineKind
from reca_core.data.colour import THUMBNAIL_SIDE, Colours, colours_of
from reca_core.data.pixels import PixelsUnusable, to_rgb

PictureStream = io.BufferedReader | io.BytesIO
"""A file opened for reading, or a picture in memory."""

MAXIMUM_PIXELS = 178_000_000
"""Larger pictures are refused by their header. Pillow's own limit is 2 x 89,478,485 pixels."""
MINIMUM_SIDE = 8
"""Shorter side of a picture worth training on."""
MAXIMUM_RATIO = 10
"""Longer side over shorter side: beyond it a square crop or squash keeps nothing of the picture."""
LARGE_PIXELS = 32_000_000
"""Pictures above are decoded one at a time, so that threads cannot add up to more memory than one bomb."""
HEADER_BYTES = 24
PNG_SIZE = slice(16, 24)
"""Width and height in a PNG's header (RFC 2083, 4.1.1)."""
TRANSPOSED_ORIENTATIONS = frozenset({5, 6, 7, 8})

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
"""How the formats we read begin. WebP, BMP and PPM need a look at more than the first bytes (``recognise``)."""
PLUGINS = {"JPEG": ("JPEG", "MPO")}
"""Pillow plugins of a format where there is more than one: phones write JPEG with a second picture behind it."""
SUFFIXES = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp",
    "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "PPM": ".ppm",
}  # fmt: skip
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM"

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.32, tag 0x0112: what makes a picture stored in each orientation upright."""

DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError,
    ArithmeticError, RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's decoders were seen or can be read to raise for broken files (tests/reca_core/test_images.py fuzzes)."""


class PictureUnusable(BadInput):
    """A file that is not a picture we can use.

    Attributes:
        kind: for counting.
        reason: for people.
    """

    def __init__(self, kind: QuarantineKind, reason: str, *, field: str = "") -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(reason, field=field, remedy="see docs/data.md for what is accepted")


class PictureChanged(StageFailed):
    """A picture file is no longer the one that was prepared."""


@dataclass(frozen=True)
class PictureFacts:
    """What preparation records of a usable picture. ``width`` and ``height`` in pixels, upright."""

    sha256: str
    width: int
    height: int
    bytes: int
    suffix: str
    colours: Colours


def load_picture(path: Path) -> Image.Image:
    """Decode one file: first frame, upright, RGB, of any size up to ``MAXIMUM_PIXELS``.

    Raises PictureUnusable naming the file for anything that is not a whole picture.
    """
    with open_regular(path) as stream, _named(path):
        return _decode(stream)


def check_header(path: Path) -> None:
    """Look at a file without decoding it. Raises PictureUnusable for what ``load_picture`` would refuse unread."""
    with open_regular(path) as stream, _named(path), _quiet_pillow(), _open(stream):
        pass


def load_verified(row: ManifestRow) -> Image.Image:
    """``load_picture`` of a prepared picture, provided that its bytes are still the prepared ones.

    Raises PictureChanged if they are not and PictureUnusable if the file is gone.
    """
    with open_regular(Path(row.file)) as stream, _named(Path(row.file)):
        if hashlib.file_digest(stream, "sha256").hexdigest() != row.sha256:
            raise PictureChanged("was changed after it was prepared", field=row.file, remedy="prepare again")
        return _decode(stream)


def inspect_picture(stream: PictureStream) -> PictureFacts:
    """Judge and fully decode one picture, JPEG at reduced scale: every byte is read, a fraction of the memory is used.

    Raises PictureUnusable, for pictures that are too large before anything is decoded.
    """
    with _quiet_pillow(), _open(stream) as image:
        header_size = image.size
        _check_shape(*header_size)
        suffix = SUFFIXES[image.format or ""]
        with _one_large_at_a_time(header_size):
            image.draft(None, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            pixels, orientation = _pixels(image)
            colours = colours_of(pixels)
    # Only JPEG is examined small; TIFF is turned by Pillow while it loads, and then says nothing of turning.
    width, height = header_size if suffix == SUFFIXES["JPEG"] else pixels.size
    size = (height, width) if orientation in TRANSPOSED_ORIENTATIONS else (width, height)
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    count = stream.seek(0, os.SEEK_END)
    return PictureFacts(digest, *size, bytes=count, suffix=suffix, colours=colours)


def recognise(header: bytes) -> str | None:
    """The format that a file's first ``HEADER_BYTES`` announce, or None."""
    if header[:4] == b"RIFF" and header[8:12] == b"WEBP":
        return "WEBP"
    if header[:2] == b"BM" and not any(header[6:10]):  # two letters alone would take "BMW" for a picture
        return "BMP"
    if header[:2] in (b"P5", b"P6") and header[2:3].isspace():
        return "PPM"
    return next((name for magic, name in MAGIC if header.startswith(magic)), None)


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[PictureStream]:
    """Open a regular file; a pipe or device, which could block or never end, is refused unopened.

    Raises PictureUnusable.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureUnusable("not_a_file", "is not a regular file", field=str(path))
        stream = path.open("rb")
    except FileNotFoundError:
        raise PictureUnusable("missing", "is not there", field=str(path)) from None
    except OSError as error:
        raise PictureUnusable("unreadable", f"cannot be opened: {error.strerror}", field=str(path)) from error
    with stream:
        yield stream


def _decode(stream: PictureStream) -> Image.Image:
    with _quiet_pillow(), _open(stream) as image, _one_large_at_a_time(image.size):
        pixels, orientation = _pixels(image)
        return pixels.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else pixels


@contextlib.contextmanager
def _open(stream: PictureStream) -> Iterator[Image.Image]:
    """The picture with its header read and nothing decoded; decoder errors inside the block become PictureUnusable."""
    stream.seek(0)
    header = stream.read(HEADER_BYTES)
    if not header:
        raise PictureUnusable("empty", "the file is empty")
    name = recognise(header)
    if name is None:
        raise PictureUnusable("not_a_picture", f"is not one of {READABLE}")
    if name == "PNG" and len(header) == HEADER_BYTES:  # Pillow looks for the data before it looks at the size
        _check_pixels(*struct.unpack(">II", header[PNG_SIZE]))
    stream.seek(0)
    try:
        with Image.open(stream, formats=PLUGINS.get(name, (name,))) as image:
            _check_pixels(*image.size)
            yield image
    except PixelsUnusable as unusable:
        raise PictureUnusable(unusable.kind, unusable.reason) from unusable
    except DECODER_ERRORS as error:
        raise _unusable(error, name) from error


def _unusable(error: BaseException, name: str) -> PictureUnusable:
    """The kind and the words for what a decoder raised."""
    if isinstance(error, Image.DecompressionBombError):
        return PictureUnusable("too_large", f"its {name} header announces a decompression bomb: {error}")
    if isinstance(error, OSError) and error.errno:
        return PictureUnusable("unreadable", f"cannot be read: {error.strerror}")
    if isinstance(error, MemoryError):
        return PictureUnusable("too_large", "there is not enough memory to decode it")
    if isinstance(error, UnidentifiedImageError):  # its words name our stream, not the fault
        return PictureUnusable("damaged", f"begins as {name}, but its header is damaged or of an unusual kind")
    kind: QuarantineKind = "truncated" if "truncated" in str(error).lower() else "damaged"
    words = str(error) or type(error).__name__
    return PictureUnusable(kind, f"begins as {name} but does not decode: {words}")


def _pixels(image: Image.Image) -> tuple[Image.Image, int]:
    """All pixels as RGB, not yet turned, and the orientation. Some formats keep EXIF behind the pixels: load first."""
    image.load()
    return to_rgb(image), _orientation(image)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 if there is none. A broken EXIF block says nothing about an otherwise whole picture."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DECODER_ERRORS:
        return 1


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAXIMUM_PIXELS:
        fact = f"{width} x {height} pixels are more than {MAXIMUM_PIXELS:,}; not decoded"
        raise PictureUnusable("too_large", fact)


def _check_shape(width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short < MINIMUM_SIDE:
        raise PictureUnusable("too_small", f"{width} x {height}: a side is below {MINIMUM_SIDE} pixels")
    if long > MAXIMUM_RATIO * short:
        raise PictureUnusable("too_narrow", f"{width} x {height}: sides differ by more than {MAXIMUM_RATIO}:1")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file's name into the error."""
    try:
        yield
    except PictureUnusable as unusable:
        raise PictureUnusable(unusable.kind, unusable.reason, field=str(path)) from unusable


_large_decode = threading.Lock()


def _one_large_at_a_time(size: tuple[int, int]) -> contextlib.AbstractContextManager[object]:
    return _large_decode if size[0] * size[1] > LARGE_PIXELS else contextlib.nullcontext()


class _Quiet:
    """Silences Pillow's warnings while any thread decodes.

    They are about files we accept on purpose (89 to 178 M pixels, odd EXIF); under ``-W error`` one would otherwise
    end a training. ``warnings.catch_warnings`` alone is not safe in threads: the last one out must restore.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._filters = warnings.catch_warnings()

    def enter(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._depth += 1

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._filters.__exit__(None, None, None)


_quiet = _Quiet()


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    _quiet.enter()
    try:
        yield
    finally:
        _quiet.leave()
