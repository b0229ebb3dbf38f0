"""Every kind of picture becomes upright 8-bit RGB, and everything else is refused with a kind and a reason."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from reca_core.contracts.records import ManifestRow
from reca_core.data import images
from reca_core.data.images import (
    MAXIMUM_PIXELS,
    PictureChanged,
    PictureUnusable,
    inspect_picture,
    load_picture,
    load_verified,
)

RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 160, 40), (30, 40, 190), (220, 210, 40)
HEIGHT, WIDTH = 32, 48
STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright[::-1].swapaxes(0, 1),
}
"""EXIF 2.32, orientation: which side of the upright picture the stored rows and columns are."""


def quadrants() -> NDArray[np.uint8]:
    """A picture no rotation or mirroring leaves as it is."""
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2] = RED
    picture[: HEIGHT // 2, WIDTH // 2 :] = GREEN
    picture[HEIGHT // 2 :, : WIDTH // 2] = BLUE
    picture[HEIGHT // 2 :, WIDTH // 2 :] = YELLOW
    return picture


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def loaded(tmp_path: Path, data: bytes) -> NDArray[np.uint8]:
    path = tmp_path / "picture"
    path.write_bytes(data)
    image = load_picture(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def kind_of(data: bytes) -> str:
    with pytest.raises(PictureUnusable) as refused:
        inspect_picture(io.BytesIO(data))
    assert refused.value.reason
    return refused.value.kind


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header is whole and whose data are a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "form, options, tolerance",
    [("JPEG", {"quality": 95}, 40), ("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("TIFF", {}, 0)],
)
def test_all_eight_orientations_come_out_upright(
    tmp_path: Path, orientation: int, form: str, options: dict[str, object], tolerance: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quadrants())))
    data = encoded(stored, form, exif=exif, **options)
    difference = np.abs(loaded(tmp_path, data).astype(int) - quadrants().astype(int))
    assert np.median(difference) <= tolerance / 10
    assert difference.max() <= tolerance or form == "JPEG"
    facts = inspect_picture(io.BytesIO(data))
    assert (facts.width, facts.height) == (WIDTH, HEIGHT)


def test_a_large_jpeg_keeps_its_size_in_the_facts_though_it_is_examined_small() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    facts = inspect_picture(io.BytesIO(encoded(Image.new("RGB", (1200, 900), RED), "JPEG", exif=exif)))
    assert (facts.width, facts.height) == (900, 1200)
    assert facts.colours.mean == pytest.approx([value / 255 for value in RED], abs=0.02)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "YCbCr"])
def test_plain_modes_keep_their_colours(tmp_path: Path, mode: str) -> None:
    form = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    grey = mode in ("1", "L")
    image = Image.fromarray(quadrants()).convert("L").convert("RGB") if grey else Image.fromarray(quadrants())
    if mode == "1":
        image = image.point(lambda value: 255 * (value > 100))
    result = loaded(
        tmp_path, encoded(image.convert(mode), form, quality=98) if form == "JPEG" else encoded(image, form)
    )
    assert np.median(np.abs(result.astype(int) - np.asarray(image).astype(int))) <= 3


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    result = loaded(tmp_path, encoded(Image.fromarray(values), "PNG"))
    assert np.array_equal(result[:, :, 0], np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(result[:, :, 0], result[:, :, 2])


def test_sixteen_bit_grey_in_either_byte_order_and_in_wide_integers_is_the_same_picture(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    expected = loaded(tmp_path, encoded(Image.fromarray(values), "PNG"))
    for image in (Image.fromarray(values.astype(">u2")), Image.fromarray(values.astype(np.int32))):
        assert np.array_equal(loaded(tmp_path, encoded(image, "TIFF")), expected)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.0, 255.0), (-3.0, 1e6)])
def test_float_pictures_use_the_whole_range(tmp_path: Path, low: float, high: float) -> None:
    values = np.linspace(low, high, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    result = loaded(tmp_path, encoded(Image.fromarray(values), "TIFF"))
    assert (result.min(), result.max()) == (0, 255)
    assert np.all(np.diff(result[:, :, 0].ravel().astype(int)) >= 0)


def test_a_float_picture_with_nan_is_refused() -> None:
    values = np.full((HEIGHT, WIDTH), np.nan, dtype=np.float32)
    assert kind_of(encoded(Image.fromarray(values), "TIFF")) == "damaged"


@pytest.mark.parametrize("form, mode", [("PNG", "RGBA"), ("WEBP", "RGBA"), ("PNG", "LA"), ("PNG", "PA")])
def test_transparent_pixels_are_laid_on_white(tmp_path: Path, form: str, mode: str) -> None:
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, WIDTH // 2, HEIGHT))
    stored = image.convert("LA" if mode == "LA" else "RGBA")
    stored = image.quantize(16) if mode == "PA" else stored
    options = {"lossless": True} if form == "WEBP" else {}
    result = loaded(tmp_path, encoded(stored, form, **options))
    assert np.all(result[:, : WIDTH // 2] == 0)
    assert np.all(result[:, WIDTH // 2 :] == 255)


def test_half_transparent_black_on_white_is_middle_grey(tmp_path: Path) -> None:
    result = loaded(tmp_path, encoded(Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 128)), "PNG"))
    assert np.all(np.abs(result.astype(int) - 127) <= 1)


def test_a_transparent_palette_colour_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(quadrants()).quantize(4)
    index = image.getpixel((0, 0))
    result = loaded(tmp_path, encoded(image, "PNG", transparency=index))
    assert np.all(result[0, 0] == 255)
    assert np.abs(result[-1, -1].astype(int) - YELLOW).max() <= 8


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP", "MPO"])
def test_of_several_frames_the_first_counts(tmp_path: Path, form: str) -> None:
    first, second = Image.new("RGB", (WIDTH, HEIGHT), RED), Image.new("RGB", (WIDTH, HEIGHT), BLUE)
    result = loaded(tmp_path, encoded(first, form, save_all=True, append_images=[second]))
    assert np.abs(result.astype(int) - RED).max() <= 8


def test_a_wide_and_a_tiny_picture_can_be_loaded_but_not_prepared(tmp_path: Path) -> None:
    for size, kind in (((5000, 3), "too_small"), ((1, 1), "too_small"), ((900, 89), "too_narrow")):
        data = encoded(Image.new("RGB", size, RED), "PNG")
        assert loaded(tmp_path, data).shape == (size[1], size[0], 3)
        assert kind_of(data) == kind


@pytest.mark.parametrize("size", [(8, 8), (8, 80), (900, 90)])
def test_the_size_bounds_are_inclusive(size: tuple[int, int]) -> None:
    facts = inspect_picture(io.BytesIO(encoded(Image.new("RGB", size, RED), "PNG")))
    assert (facts.width, facts.height) == size


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (178_001, 1000)])
def test_a_bomb_is_refused_undecoded(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(_: object) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(Image.Image, "load", decoded)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    assert kind_of(png_header(*size)) == "too_large"


def test_the_pixel_limit_does_not_depend_on_pillows_global_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert kind_of(png_header(178_001, 1000)) == "too_large"


def test_a_picture_between_pillows_warning_and_the_limit_is_decoded_without_a_warning() -> None:
    image = Image.new("L", (10_000, 9_500), 7)
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < image.width * image.height < MAXIMUM_PIXELS
    data = encoded(image, "PNG", compress_level=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inspect_picture(io.BytesIO(data)).width == 10_000


def test_warnings_of_others_pass_and_the_filters_are_restored() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with images._quiet_pillow(), images._quiet_pillow():
            warnings.warn("of ours", stacklevel=1)
        assert list(warnings.filters) == before
    assert [str(item.message) for item in caught] == ["of ours"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_half_a_file_is_refused(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    assert kind_of(data[: len(data) // 2]) in ("truncated", "damaged")


def test_a_truncated_jpeg_is_called_truncated() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    assert kind_of(data[: len(data) * 9 // 10]) == "truncated"


@pytest.mark.parametrize(
    "data, kind",
    [
        (b"", "empty"),
        (b"just text that someone named .jpg", "not_a_picture"),
        (b"BMW and P5 begin like pictures", "not_a_picture"),
        (b"P5 begins like one too", "damaged"),
        (b"%PDF-1.7\n", "not_a_picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not_a_picture"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "truncated"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_content(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


def test_a_broken_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(quadrants()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert loaded(tmp_path, data).shape == (HEIGHT, WIDTH, 3)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("no picture")
    for missing in (path, tmp_path / "absent.png"):
        with pytest.raises(PictureUnusable, match=missing.name):
            load_picture(missing)


def test_a_pipe_is_refused_unopened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(PictureUnusable) as refused:
        load_picture(pipe)
    assert refused.value.kind == "not_a_file"


def test_a_changed_file_is_not_taken_for_the_prepared_one(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(Image.new("RGB", (20, 20), RED), "PNG"))
    facts = inspect_picture(io.BytesIO(path.read_bytes()))
    row = ManifestRow(sha256=facts.sha256, file=str(path), width=20, height=20)
    assert load_verified(row).getpixel((0, 0)) == RED
    path.write_bytes(encoded(Image.new("RGB", (20, 20), BLUE), "PNG"))
    with pytest.raises(PictureChanged, match="prepare again"):
        load_verified(row)


def test_no_damage_escapes_as_anything_but_a_refusal() -> None:
    draw = random.Random(5)
    image = Image.fromarray(quadrants())
    originals = [encoded(image, form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]
    refused = 0
    for _ in range(700):
        data = bytearray(draw.choice(originals))
        for _ in range(draw.choice((1, 2, 8))):
            data[draw.randrange(min(len(data), 250))] = draw.randrange(256)
        try:
            inspect_picture(io.BytesIO(bytes(data)))
        except PictureUnusable:
            refused += 1
    assert 100 < refused < 700


def test_many_threads_decode_the_same_as_one(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(Image.fromarray(quadrants()), "PNG"))
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(load_picture(path).tobytes())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [quadrants().tobytes()] * 8


def test_nothing_of_pictures_in_loads_torch() -> None:
    code = (
        "import sys, reca_core.data.prepare, reca_core.data.hub; "
        "heavy = {'torch', 'transformers', 'diffusers', 'tensorflow', 'prefect', 'mlflow'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
