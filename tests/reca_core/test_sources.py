"""What folders, tars and tables yield: in a fixed order, nothing from outside, every refusal with its reason."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from reca_core.contracts.errors import BadInput
from reca_core.contracts.home import Home
from reca_core.contracts.requests import ImageSource
from reca_core.data import archives, tables
from reca_core.data.entries import Companion, Entry, Found, Refused, Source
from reca_core.data.sources import open_source


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (value, 255 - value, 90)).save(stream, "PNG")
    return stream.getvalue()


def opened(tmp_path: Path, source: Path | str, **options: object) -> Source:
    return open_source(ImageSource.model_validate({"source": str(source), **options}), Home(tmp_path / "home"))


def entries(source: Source) -> list[Entry]:
    return [entry for part in source.parts() for entry in part.entries(0)]


def refusals(found: list[Entry]) -> dict[str, str]:
    return {entry.label: entry.kind for entry in found if isinstance(entry, Refused)}


def labels(found: list[Entry]) -> list[str]:
    return [entry.label for entry in found if isinstance(entry, Found)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "b" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for number, name in enumerate(["z.png", "a.png", "b/deep/c.png", "b/d.txt", ".hidden/e.png", ".f.png"]):
        (folder / name).write_bytes(png(number))
    return folder


def test_a_folder_is_walked_in_byte_order_without_hidden_names(tmp_path: Path, pictures: Path) -> None:
    source = opened(tmp_path, pictures)
    assert labels(entries(source)) == ["a.png", "b/d.txt", "b/deep/c.png", "z.png"]
    assert source.expected() == 4


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path, pictures: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(png(9))
    (tmp_path / "elsewhere").mkdir()
    (pictures / "out.png").symlink_to(outside)
    (pictures / "up").symlink_to(tmp_path / "elsewhere")
    (pictures / "loop").symlink_to(pictures)
    (pictures / "self.png").symlink_to("self.png")
    (pictures / "inside.png").symlink_to(pictures / ".hidden" / "e.png")
    (pictures / "nowhere.png").symlink_to("absent.png")
    found = entries(opened(tmp_path, pictures))
    assert refusals(found) == {
        "out.png": "unsafe_link",
        "up": "unsafe_link",
        "loop": "unsafe_link",
        "self.png": "missing",
        "nowhere.png": "missing",
    }
    assert "inside.png" in labels(found)


def test_a_link_to_the_folder_itself_may_be_named(tmp_path: Path, pictures: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(pictures)
    assert len(labels(entries(opened(tmp_path, link)))) == 4


def test_pipes_and_sockets_are_refused_unopened(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(pictures / "pipe.png")
    monkeypatch.chdir(pictures)  # the path of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert refusals(entries(opened(tmp_path, pictures))) == {
            "pipe.png": "not_a_file",
            "socket.png": "not_a_file",
        }


def test_a_container_in_a_folder_is_refused_with_the_way_to_read_it(tmp_path: Path, pictures: Path) -> None:
    (pictures / "more.tar").write_bytes(b"")
    [refusal] = [entry for entry in entries(opened(tmp_path, pictures)) if isinstance(entry, Refused)]
    assert f"images.source={pictures / 'more.tar'}" in refusal.reason


def test_names_that_are_not_utf8_are_shown_as_escapes(tmp_path: Path, pictures: Path) -> None:
    with open(os.fsencode(pictures) + b"/caf\xe9.png", "wb") as stream:
        stream.write(png(77))
    assert "caf\\xe9.png" in labels(entries(opened(tmp_path, pictures)))


@pytest.mark.parametrize("name", ["absent", "absent.parquet", "absent-*.tar", "picture.png", "x" * 300, "nul\0"])
def test_a_source_that_is_not_there_is_bad_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "picture.png").write_bytes(png(1))
    with pytest.raises(BadInput, match=r"images\.source"):
        opened(tmp_path, tmp_path / name)


def test_an_empty_folder_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "nothing" / ".git").mkdir(parents=True)
    with pytest.raises(BadInput, match="empty folder"):
        opened(tmp_path, tmp_path / "nothing")


def test_a_relative_path_is_never_looked_up_in_the_current_directory(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    for name, kind in (("./pictures", "auto"), ("pictures", "folder"), ("a.tar", "auto"), ("a.parquet", "auto")):
        with pytest.raises(BadInput, match="absolute"):
            opened(tmp_path, name, kind=kind)


def tar_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, target, pax
    return info


def malicious() -> list[tuple[tarfile.TarInfo, bytes]]:
    return [
        (member("good/0001.png"), png(1)),
        (member("good/0001.txt"), b"a caption"),
        (member("../escape.png"), png(2)),
        (member("a/../../escape.png"), png(3)),
        (member("/etc/absolute.png"), png(4)),
        (member("C:\\windows.png"), png(5)),
        (member("..\\backslash.png"), png(6)),
        (member("nul.png", path="nul.png\0../../x"), png(7)),
        (member("n" * 300 + ".png"), png(8)),
        (member("soft.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (member("hard.png", tarfile.LNKTYPE, "good/0001.png"), b""),
        (member("device.png", tarfile.CHRTYPE), b""),
        (member("pipe.png", tarfile.FIFOTYPE), b""),
        (member("folder", tarfile.DIRTYPE), b""),
        (member("broken.jpg"), b"no picture at all"),
        (member("good/0001.png"), png(9)),
    ]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_members_of_a_tar_are_read_and_tricks_are_refused(tmp_path: Path, mode: str) -> None:
    suffix = ".tar" if mode == "w" else ".tar." + mode[2:]
    path = tar_of(tmp_path / f"set{suffix}", malicious(), mode)
    before = set(tmp_path.rglob("*"))
    found = entries(opened(tmp_path, path))
    kinds = [entry.kind if isinstance(entry, Refused) else type(entry).__name__ for entry in found]
    assert kinds == [
        "Found", "Companion", *["unsafe_name"] * 7, "unsafe_link", "unsafe_link", "not_a_file", "not_a_file",
        "Found", "Found",
    ]  # fmt: skip
    assert [entry.content for entry in found if isinstance(entry, Found)] == [png(1), b"no picture at all", png(9)]
    assert all(len(entry.label) < 300 and "\0" not in entry.label.split("/", 1)[0] for entry in found)
    assert set(tmp_path.rglob("*")) == before, "nothing is written by reading"


def test_a_torn_tar_keeps_what_came_before_the_tear(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "whole.tar", [(member(f"{number}.png"), os.urandom(5000)) for number in range(4)])
    for suffix, data in ((".tar", whole.read_bytes()[:13_000]), (".tar.gz", gzip.compress(whole.read_bytes())[:9000])):
        torn = tmp_path / f"torn{suffix}"
        torn.write_bytes(data)
        found = entries(opened(tmp_path, torn))
        assert len(found) >= 2
        assert isinstance(found[-1], Refused)
        assert found[-1].kind == "truncated"
        assert "breaks off after" in found[-1].reason


@pytest.mark.parametrize(
    ("fault", "kind"), [("header", "damaged"), ("in_header", "truncated"), ("at_border", "truncated")]
)
def test_members_behind_a_bad_header_do_not_vanish_without_a_word(tmp_path: Path, fault: str, kind: str) -> None:
    path = tar_of(tmp_path / "set.tar", [(member(f"{number}.png"), png(number)) for number in range(4)])
    with tarfile.open(path) as archive:
        start = archive.getmembers()[2].offset
    data = bytearray(path.read_bytes())
    data[start + 150] ^= 0xFF
    path.write_bytes({"header": data, "in_header": data[: start + 100], "at_border": data[:start]}[fault])
    found = entries(opened(tmp_path, path))
    assert labels(found) == ["set.tar/0.png", "set.tar/1.png"]
    assert refusals(found) == {"set.tar": kind}


def test_a_file_that_is_no_tar_is_refused_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"x" * 4096)
    tar_of(tmp_path / "good.tar", [(member("a.png"), png(1))])
    found = entries(opened(tmp_path, tmp_path / "*.tar"))
    assert refusals(found) == {"bad.tar": "damaged"}
    assert labels(found) == ["good.tar/a.png"]


def test_a_member_too_large_to_hold_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAXIMUM_HELD_BYTES", 50)
    path = tar_of(tmp_path / "set.tar", [(member("a.png"), png(1))])
    assert refusals(entries(opened(tmp_path, path))) == {"set.tar/a.png": "too_large"}


def table(path: Path, cells: Sequence[object], kind: pa.DataType, column: str = "image") -> Path:
    content = pa.table({"caption": pa.array([str(n) for n in range(len(cells))]), column: pa.array(cells, kind)})
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=2)
    elif "file" in path.name:
        pyarrow.feather.write_feather(content, path, compression="uncompressed")
    else:
        with pa.ipc.new_stream(str(path), content.schema) as writer:
            writer.write_table(content, max_chunksize=2)
    return path


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "file.arrow"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), STRUCT])
def test_rows_of_a_table_hold_pictures(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    wrap = (lambda data: {"bytes": data, "path": "x.png"}) if kind == STRUCT else (lambda data: data)
    path = table(tmp_path / name, [wrap(png(n)) for n in range(5)], kind)
    found = entries(opened(tmp_path, path))
    assert [entry.content for entry in found if isinstance(entry, Found)] == [png(n) for n in range(5)]
    assert labels(found)[3] == f"{name} row 3"


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "file.arrow"])
def test_a_table_can_be_entered_at_any_row(tmp_path: Path, name: str) -> None:
    path = table(tmp_path / name, [png(n) for n in range(7)], pa.binary())
    [part] = opened(tmp_path, path).parts()
    everything = list(part.entries(0))
    for start in range(8):
        assert list(part.entries(start)) == everything[start:]


def test_a_row_that_names_a_file_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(3))
    cells = [{"bytes": None, "path": str(secret)}, {"bytes": None, "path": "http://host/x.png"}, None]
    path = table(tmp_path / "a.parquet", cells, STRUCT)
    found = entries(opened(tmp_path, path))
    assert list(refusals(found).values()) == ["missing"] * 3
    assert isinstance(found[0], Refused)
    assert str(secret) in found[0].reason


def test_a_wrong_column_is_bad_input_with_the_choices(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [png(1)], pa.binary(), column="picture")
    with pytest.raises(BadInput) as missing:
        opened(tmp_path, path)
    assert (missing.value.field, missing.value.choices) == ("images.image_column", ("picture",))
    with pytest.raises(BadInput, match="not the bytes of pictures"):
        opened(tmp_path, path, image_column="caption")


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.list_(pa.int64())])
def test_a_field_called_bytes_that_holds_none_is_no_column_of_pictures(tmp_path: Path, kind: pa.DataType) -> None:
    path = table(tmp_path / "a.parquet", [None], pa.struct([("bytes", kind)]))
    with pytest.raises(BadInput, match="not the bytes of pictures"):
        opened(tmp_path, path)


def test_a_table_whose_column_has_another_type_is_refused_row_by_row(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", [png(1)], pa.binary())
    table(tmp_path / "b.parquet", ["x.png", None], pa.string())
    table(tmp_path / "c.parquet", [{"bytes": "x"}], pa.struct([("bytes", pa.string())]))
    found = entries(opened(tmp_path, tmp_path / "*.parquet"))
    assert labels(found) == ["a.parquet row 0"]
    refused = {"b.parquet row 0": "not_a_picture", "b.parquet row 1": "missing", "c.parquet row 0": "not_a_picture"}
    assert refusals(found) == refused


def test_a_path_beside_the_bytes_need_not_be_utf8(tmp_path: Path) -> None:
    offsets_and_text = pa.array([b"\xff\xfe", b"\xfd", b"ok"]).buffers()
    paths = pa.Array.from_buffers(pa.string(), 3, offsets_and_text)
    rows = pa.StructArray.from_arrays([pa.array([png(1), None, png(2)], pa.binary()), paths], ["bytes", "path"])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": rows}), path)
    found = entries(opened(tmp_path, path))
    assert labels(found) == ["a.parquet row 0", "a.parquet row 2"]
    assert refusals(found) == {"a.parquet row 1": "missing"}


@pytest.mark.parametrize("said", ["{nope", "[]", "{}", '{"splits": "train"}', '{"splits": [1]}'])
def test_a_list_of_splits_that_is_none_is_bad_input(tmp_path: Path, said: str) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text(said)
    with pytest.raises(BadInput, match="does not name the splits"):
        opened(tmp_path, tmp_path / "saved")


def test_splits_are_told_by_the_file_names_as_on_the_hub(tmp_path: Path) -> None:
    for number, name in enumerate(["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"]):
        table(tmp_path / name, [png(number)], pa.binary())
    assert labels(entries(opened(tmp_path, tmp_path / "*.parquet"))) == ["train-00000-of-00001.parquet row 0"]
    assert len(entries(opened(tmp_path, tmp_path / "*.parquet", split="test"))) == 1
    with pytest.raises(BadInput) as wrong:
        opened(tmp_path, tmp_path / "*.parquet", split="validation")
    assert (wrong.value.field, wrong.value.choices) == ("images.split", ("test", "train"))


def test_what_datasets_saves_to_disk_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict, Features, Image

    one = Dataset.from_dict({"image": [{"bytes": png(n), "path": None} for n in range(3)]}, Features(image=Image()))
    one.save_to_disk(str(tmp_path / "one"))
    DatasetDict(train=one, test=one.select([0])).save_to_disk(str(tmp_path / "two"))
    assert len(labels(entries(opened(tmp_path, tmp_path / "one")))) == 3
    assert len(labels(entries(opened(tmp_path, tmp_path / "two", split="test")))) == 1
    with pytest.raises(BadInput, match="choices: test, train"):
        opened(tmp_path, tmp_path / "two", split="other")


def test_a_broken_table_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    table(tmp_path / "good.parquet", [png(1)], pa.binary())
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
    found = entries(opened(tmp_path, tmp_path / "*.parquet"))
    assert refusals(found) == {"bad.parquet": "damaged"}
    assert labels(found) == ["good.parquet row 0"]


def test_a_cell_too_large_to_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAXIMUM_HELD_BYTES", 50)
    path = table(tmp_path / "a.parquet", [png(1)], pa.binary())
    assert refusals(entries(opened(tmp_path, path))) == {"a.parquet row 0": "too_large"}


def test_scenes_depend_on_their_seed_alone(tmp_path: Path) -> None:
    def scenes(first: int, count: int) -> Iterator[bytes]:
        source = opened(tmp_path, "shapeworld", scene_seed=first, scenes=count)
        return (entry.content for entry in entries(source) if isinstance(entry, Found))  # type: ignore[misc]

    assert list(scenes(5, 4))[2:] == list(scenes(7, 2))


def test_a_companion_is_counted_not_quarantined(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "set.tar", [(member("a.json"), b"{}"), (member("a.png"), png(1))])
    assert [type(entry) for entry in entries(opened(tmp_path, path))] == [Companion, Found]
