"""Preparation survives ugly pictures, kills, company and repetition, and always says the same of the same pictures."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.home import Home
from reca_core.contracts.progress import Progress
from reca_core.contracts.records import PreparedData, QuarantineRow
from reca_core.contracts.requests import ImageSource, PrepareRequest, TrainRequest
from reca_core.data import examine
from reca_core.data.images import load_picture
from reca_core.data.manifest import MANIFEST, QUARANTINE, SUMMARY, read_manifest, read_summary
from reca_core.data.prepare import main, prepare


def noise(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def run(source: Path | str, home: Path, **options: object) -> PreparedData:
    choice = ImageSource.model_validate({"source": str(source), **options})
    return prepare(choice, Home(home), lambda _: None, workers=2)


def quarantine(prepared: PreparedData) -> dict[str, str]:
    rows = [QuarantineRow.model_validate(row) for row in read_jsonl(Path(prepared.directory) / QUARANTINE)]
    return {row.label: row.kind for row in rows}


def files_of(prepared: PreparedData) -> list[bytes]:
    return [(Path(prepared.directory) / name).read_bytes() for name in (MANIFEST, QUARANTINE, SUMMARY)]


def bomb() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    """A folder as people have them."""
    folder = tmp_path / "ugly"
    (folder / "holiday" / "day 1").mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise(1).save(folder / "holiday" / "day 1" / "turned.jpg", exif=exif)
    noise(2).convert("L").save(folder / "grey.jpg")
    noise(3).convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50).save(folder / "sixteen.png")
    noise(4).convert("RGBA").save(folder / "alpha.webp", lossless=True)
    noise(5).save(folder / "wrong-suffix.png", "JPEG")
    noise(6).quantize(8).save(folder / "palette.gif")
    noise(7, (400, 40)).save(folder / "panorama.jpg")
    noise(8).save(folder / "twice.png")
    shutil.copy(folder / "twice.png", folder / "holiday" / "copy.png")
    noise(9, (5000, 3)).save(folder / "line.png")
    noise(10, (1, 1)).save(folder / "dot.png")
    noise(11, (500, 40)).save(folder / "strip.png")
    whole = io.BytesIO()
    noise(12, (300, 200)).save(whole, "JPEG")
    (folder / "torn.jpg").write_bytes(whole.getvalue()[:-2000])
    (folder / "notes.jpg").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / ".DS_Store").write_bytes(b"hidden")
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as stream:
        noise(13).save(stream, "PNG")
    return folder


def test_an_ugly_folder_yields_what_is_usable_and_a_reason_for_the_rest(ugly: Path, tmp_path: Path) -> None:
    prepared = run(ugly, tmp_path / "home")
    assert quarantine(prepared) == {
        "bomb.png": "too_large",
        "dot.png": "too_small",
        "empty.png": "empty",
        "line.png": "too_small",
        "notes.jpg": "not_a_picture",
        "strip.png": "too_narrow",
        "torn.jpg": "truncated",
    }
    assert (prepared.pictures, prepared.quarantined, prepared.duplicates) == (10, 7, 1)
    rows = read_manifest(Path(prepared.directory))
    assert {row.label: (row.width, row.height) for row in rows}["holiday/day 1/turned.jpg"] == (30, 40)
    for row in rows:
        picture = load_picture(Path(row.file))
        assert (picture.mode, picture.size) == ("RGB", (row.width, row.height))
        assert hashlib.sha256(Path(row.file).read_bytes()).hexdigest() == row.sha256
    assert read_summary(Path(prepared.directory)).quarantine == dict(Counter(quarantine(prepared).values()))


def test_names_that_are_not_utf8_stop_no_preparation(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / os.fsdecode(b"\xfe.tar")).write_bytes(b"x")
    noise(1).save(folder / os.fsdecode(b"\xfd.png"))
    (tmp_path / "link").symlink_to(folder)
    prepared = run(tmp_path / "link", tmp_path / "home")
    assert prepared.pictures == 1
    assert quarantine(prepared) == {"\\xfe.tar": "not_a_picture"}
    assert run(tmp_path / "link", tmp_path / "home").reused


def test_an_unchanged_source_is_recognised_without_reading_a_picture(
    ugly: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = run(ugly, tmp_path / "home")
    content = files_of(first)

    def opened(*_: object) -> None:
        raise AssertionError("a known picture was read again")

    monkeypatch.setattr(examine, "examine", opened)
    second = run(ugly, tmp_path / "home")
    assert (first.reused, second.reused) == (False, True)
    assert second.model_copy(update={"reused": False}) == first
    assert files_of(second) == content
    assert "were prepared before and are reused" in caplog.text


def test_a_changed_picture_is_noticed_though_size_and_time_are_the_same(ugly: Path, tmp_path: Path) -> None:
    path = ugly / "twice.png"
    first = run(ugly, tmp_path / "home")
    before = path.stat()
    content = bytearray(path.read_bytes())
    picture = noise(8)
    picture.putpixel((0, 0), (1, 2, 3))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    padded = stream.getvalue()[: len(content)].ljust(len(content), b"\0")
    path.write_bytes(padded)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert run(ugly, tmp_path / "home").digest != first.digest


def test_the_identity_is_the_pictures_not_their_names_or_places(tmp_path: Path) -> None:
    content = []
    for seed in range(5):
        stream = io.BytesIO()
        noise(seed).save(stream, "PNG")
        content.append(stream.getvalue())
    for name, order in (("one", content), ("two", content[::-1])):
        (tmp_path / name).mkdir()
        for number, data in enumerate(order):
            (tmp_path / name / f"{number}.png").write_bytes(data)
    (tmp_path / "two" / "stray.txt").write_text("changes no training")
    pq.write_table(pa.table({"image": content}), tmp_path / "three.parquet")
    with tarfile.open(tmp_path / "four.tar", "w") as archive:
        for number, data in enumerate(content):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    sources = ["one", "two", "three.parquet", "four.tar"]
    prepared = [run(tmp_path / name, tmp_path / "home") for name in sources]
    assert len({item.digest for item in prepared}) == 1
    assert {Path(row.file).parent.name for row in read_manifest(Path(prepared[0].directory))} != {"one"}
    again = run(tmp_path / "one", tmp_path / "home")
    assert {Path(row.file).parent.name for row in read_manifest(Path(again.directory))} == {"one"}


def test_a_stray_file_does_not_change_the_hash_of_a_training(tmp_path: Path) -> None:
    from reca_core.contracts.hashing import hashed_part

    first = PreparedData(digest="d", directory="/a", pictures=3, quarantined=0)
    second = PreparedData(digest="d", directory="/b", pictures=3, quarantined=9, duplicates=2, reused=True)
    assert hashed_part(first) == hashed_part(second)
    assert TrainRequest.model_fields["data"].annotation is PreparedData


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_limit_takes_the_first_distinct_usable_pictures(ugly: Path, tmp_path: Path, limit: int) -> None:
    everything = run(ugly, tmp_path / "all")
    order = sorted(row.label for row in read_manifest(Path(everything.directory)))
    some = run(ugly, tmp_path / "some", limit=limit)
    assert sorted(row.label for row in read_manifest(Path(some.directory))) == order[:limit]
    assert run(ugly, tmp_path / "all", limit=limit).digest == some.digest
    assert run(ugly, tmp_path / "some").digest == everything.digest


def test_no_usable_picture_is_bad_input_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(8):
        (tmp_path / "texts" / f"{number}.jpg").write_text("no picture")
    with pytest.raises(BadInput) as refused:
        run(tmp_path / "texts", tmp_path / "home")
    assert "8 files quarantined" in refused.value.fact
    assert "0.jpg: is not one of JPEG" in refused.value.fact
    listing = next((tmp_path / "home").rglob(QUARANTINE))
    assert str(listing) in refused.value.remedy
    assert len(list(read_jsonl(listing))) == 8


class Interrupted(Exception):
    """A stand-in for the moment of a kill."""


@pytest.mark.parametrize("container", ["folder", "parquet", "tar"])
def test_what_was_examined_before_an_interruption_is_not_examined_again(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(tmp_path, container, 60)
    expected = run(source, tmp_path / "whole")
    calls: list[str] = []
    original = examine.examine

    def counted(found: object, store: object) -> object:
        calls.append(found.label)  # type: ignore[attr-defined]
        if len(calls) == 40:
            raise Interrupted
        return original(found, store)  # type: ignore[arg-type]

    monkeypatch.setattr(examine, "examine", counted)
    with pytest.raises(Interrupted):
        run(source, tmp_path / "home")
    finished = len(calls)
    prepared = run(source, tmp_path / "home")
    window = 2 * examine.WINDOW_PER_WORKER + 2
    assert len(calls) - finished <= 60 - 40 + window
    assert prepared.digest == expected.digest
    assert prepared.pictures == 60


def many(tmp_path: Path, container: str, count: int) -> Path:
    """``count`` different pictures in a folder, a table or a tar."""
    folder = tmp_path / "many"
    folder.mkdir()
    for seed in range(count):
        noise(seed).save(folder / f"{seed:04d}.png")
    paths = sorted(folder.iterdir())
    if container == "parquet":
        pq.write_table(
            pa.table({"image": [path.read_bytes() for path in paths]}), tmp_path / "m.parquet", row_group_size=7
        )
        return tmp_path / "m.parquet"
    if container == "tar":
        with tarfile.open(tmp_path / "m.tar", "w") as archive:
            for path in paths:
                archive.add(path, path.name)
        return tmp_path / "m.tar"
    return folder


def child(source: Path | str, home: Path, room: Path, **options: object) -> subprocess.Popen[str]:
    """A preparation in a process of its own."""
    request = PrepareRequest.model_validate(
        {"images": {"source": str(source), **options}, "home": str(home), "run_directory": str(room), "workers": 1}
    )
    room.mkdir(parents=True, exist_ok=True)
    (room / "request.json").write_text(request.model_dump_json())
    code = (
        "import sys; from reca_core.contracts.requests import PrepareRequest; from reca_core.data.prepare import main;"
        "main(PrepareRequest.model_validate_json(open(sys.argv[1]).read()))"
    )
    command = [sys.executable, "-c", code, str(room / "request.json")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_kill_nine_at_any_moment_and_again_gives_the_same_bytes(ugly: Path, tmp_path: Path) -> None:
    for seed in range(100, 400):
        noise(seed, (120, 120)).save(ugly / f"{seed}.png")
    expected = run(ugly, tmp_path / "home")
    content = files_of(expected)
    shutil.rmtree(tmp_path / "home")
    kills = 0
    for delay in (0.2, 0.35, 0.45, 0.55, 0.65, 0.8):
        process = child(ugly, tmp_path / "home", tmp_path / "room")
        time.sleep(delay)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert kills >= 2
    process = child(ugly, tmp_path / "home", tmp_path / "room")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    prepared = PreparedData.model_validate_json((tmp_path / "room" / "DONE.json").read_text())
    assert prepared.digest == expected.digest
    assert files_of(prepared) == content


def test_scenes_killed_while_they_are_stored_come_out_whole(tmp_path: Path) -> None:
    options = {"scenes": 1200, "scene_size_pixels": 32}
    expected = run("shapeworld", tmp_path / "whole", **options)
    process = child("shapeworld", tmp_path / "home", tmp_path / "room", **options)
    assert process.stdout is not None
    while "prepare" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for picture in list((tmp_path / "home").rglob("*.png"))[:3]:
        picture.write_bytes(b"")  # what a power cut leaves of a file that was not synced
    prepared = run("shapeworld", tmp_path / "home", **options)
    assert prepared.digest == expected.digest
    for row in read_manifest(Path(prepared.directory)):
        assert hashlib.sha256(Path(row.file).read_bytes()).hexdigest() == row.sha256


def test_the_picture_cache_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    first = run(many(tmp_path, "tar", 10), tmp_path / "home")
    rows = read_manifest(Path(first.directory))
    shutil.rmtree(tmp_path / "home" / "cache" / "pictures")
    second = run(tmp_path / "m.tar", tmp_path / "home")
    assert second.digest == first.digest
    assert all(Path(row.file).is_file() for row in rows)


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_ledger_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    first = run(many(tmp_path, "folder", 5), tmp_path / "home")
    next((tmp_path / "home").rglob("ledger.sqlite")).write_bytes(damage)
    assert run(tmp_path / "many", tmp_path / "home").digest == first.digest


def test_two_processes_at_once_come_to_one_result(tmp_path: Path) -> None:
    source = many(tmp_path, "tar", 80)
    rooms = [tmp_path / "room one", tmp_path / "room two", tmp_path / "room three"]
    processes = [child(source, tmp_path / "home", room) for room in rooms]
    outputs = [process.communicate(timeout=90)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    results = [PreparedData.model_validate_json((room / "DONE.json").read_text()) for room in rooms]
    assert len({result.digest for result in results}) == 1
    assert sorted(result.reused for result in results) == [False, True, True]
    assert len(read_manifest(Path(results[0].directory))) == 80


def test_a_torn_publication_is_mended(tmp_path: Path) -> None:
    prepared = run(many(tmp_path, "folder", 9), tmp_path / "home")
    content = files_of(prepared)
    directory = Path(prepared.directory)
    (directory / ".manifest.jsonl.1.tmp").write_bytes(b"torn")
    (directory / MANIFEST).write_bytes(content[0][:50])
    (directory / SUMMARY).unlink()
    again = run(tmp_path / "many", tmp_path / "home")
    assert not again.reused
    assert files_of(again) == content
    assert sorted(path.name for path in directory.iterdir()) == [MANIFEST, SUMMARY, QUARANTINE]


def test_progress_grows_to_its_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reca_core.data.prepare.PROGRESS_SECONDS", 0.0)
    points: list[Progress] = []
    source = ImageSource(source=str(many(tmp_path, "folder", 20)))
    prepare(source, Home(tmp_path / "home"), points.append)
    assert [point.done for point in points] == [*range(1, 21), 20]
    assert {point.total for point in points} == {20}
    assert {point.stage for point in points} == {"prepare"}


def test_a_home_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, not a directory")
    with pytest.raises(StageFailed, match="cannot be written"):
        run(many(tmp_path, "folder", 2), tmp_path / "home")


def test_main_writes_the_result_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = PrepareRequest(
        images=ImageSource(scenes=5), home=str(tmp_path / "home"), run_directory=str(tmp_path / "room")
    )
    prepared = main(request)
    assert json.loads((tmp_path / "room" / "DONE.json").read_text())["digest"] == prepared.digest
    assert "@progress" in capsys.readouterr().out


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        run("shapeworld", tmp_path / f"home {count}", scenes=count, scene_size_pixels=8)
        measured = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return measured

    peak(20)
    assert peak(400) < peak(100) + 100_000


def test_a_usual_set_of_scenes_takes_seconds(tmp_path: Path) -> None:
    began = time.process_time()
    run("shapeworld", tmp_path / "home", scenes=2048, scene_size_pixels=16)
    assert time.process_time() - began < 5.0
