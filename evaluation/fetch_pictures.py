"""Pictures that benchmarks start from: of the Hugging Face hub or of COCO's server, put into the benchmark's layout.

The hub lists a hash for every file of a commit (SHA-256 for large ones, git blob ids for others); a download that
differs is refused. ``origin.json`` records data set, commit and hashes, ``pictures.json`` the SHA-256 of every unpacked
file; an altered or missing picture is found again with it. COCO's server lists no hashes: what came first counts.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from evaluation.benchmarks.data import RECORD_FILE as PICTURES_FILE
from evaluation.benchmarks.gedit.benchmark import ITEMS_FILE
from evaluation.download import Hosts, get_bytes, get_file, get_json
from evaluation.pins import Listed, Pictures
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.files import atomic_write_bytes, write_json
from reca_core.contracts.hashing import sha256_file

ORIGIN_FILE = "origin.json"
DOWNLOADS = "downloads"
MAIN = "main"
FIELD = "source pictures"
SOURCE_SUFFIX = "_SRCIMG.png"
MEMBER_BYTES = 256 * 1024 * 1024
"""No picture is larger; a member that says so is refused."""
ITEM_COLUMNS = ("task_type", "instruction_language", "key", "instruction", "Intersection_exist")
PICTURE_COLUMN = "input_image"
SAFE_NAME = re.compile(r"[A-Za-z0-9_\-]+")
SAFE_PICTURE = re.compile(r"[A-Za-z0-9_\-]+\.jpg")
JPEG_START = b"\xff\xd8"


def fetch_pictures(pictures: Pictures, folder: Path, hosts: Hosts, remedy: str, report: Callable[[str], None]) -> None:
    """Download and unpack, unless the pictures are there. The caller holds the folder's lock.

    Raises: PrerequisiteMissing for no answer, another content, or an archive that leaves its folder.
    """
    if (folder / PICTURES_FILE).is_file():
        return
    origin = _origin(pictures, folder, hosts, remedy)
    as_it_is = pictures.unpack == "files"
    targets = {
        path: folder / (path if as_it_is else f"{DOWNLOADS}/{PurePosixPath(path).name}") for path in origin["files"]
    }
    for path, digest in origin["files"].items():
        if not targets[path].is_file():
            report(f"{pictures.dataset}: {path} at {origin['revision'][:12]}")
            url = f"{hosts.hub}/datasets/{pictures.dataset}/resolve/{origin['revision']}/{quote(path)}"
            get_file(url, targets[path], digest.get("sha256", ""), digest.get("git_blob", ""), remedy)
    if as_it_is:
        _record(folder, targets.values())
        return
    unpack = _unpack_tar if pictures.unpack == "tar" else _unpack_table
    _record(folder, [path for archive in targets.values() for path in unpack(archive, pictures.folder, folder)])
    for archive in targets.values():
        archive.unlink()


def fetch_listed(listed: Listed, folder: Path, hosts: Hosts, remedy: str, report: Callable[[str], None]) -> None:
    """Download files of questions and the pictures that they name, unless all are there. The caller holds the lock.

    Raises: PrerequisiteMissing for no answer, lines that name no picture, or something that is no picture.
    """
    if (folder / PICTURES_FILE).is_file():
        return
    written: list[Path] = []
    names: set[str] = set()
    for address in listed.questions:
        target = folder / PurePosixPath(address).name
        if not target.is_file():
            report(address)
            atomic_write_bytes(target, get_bytes([f"{hosts.files}/{address}"], remedy))
        names |= _named_pictures(target, remedy)
        written.append(target)
    report(f"{len(names)} pictures of {hosts.coco}/{listed.pictures}")
    for name in sorted(names):
        target = folder / listed.pictures / name
        if not target.is_file():
            content = get_bytes([f"{hosts.coco}/{listed.pictures}/{name}"], remedy)
            if not content.startswith(JPEG_START):
                raise PrerequisiteMissing(f"{name} came as something that is no JPEG", field=FIELD, remedy=remedy)
            atomic_write_bytes(target, content)
        written.append(target)
    _record(folder, written)


def _named_pictures(file: Path, remedy: str) -> set[str]:
    """Names in the field ``image`` of JSON lines."""
    try:
        names = {
            str(json.loads(line)["image"]) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()
        }
    except (ValueError, KeyError, TypeError) as error:
        file.unlink()
        raise PrerequisiteMissing(f"{file.name} came in another form: {error!r}", field=FIELD, remedy=remedy) from error
    if unsafe := sorted(name for name in names if not SAFE_PICTURE.fullmatch(name)):
        raise PrerequisiteMissing(f"{file.name} holds the unsafe name {unsafe[0]!r}", field=FIELD)
    return names


def _record(folder: Path, files: Iterable[Path]) -> None:
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    write_json(folder / PICTURES_FILE, dict(sorted(hashes.items())))


def pictures_fault(folder: Path) -> list[str]:
    """What is wrong with fetched pictures: everything missing or altered, at most the first few by name."""
    listing = folder / PICTURES_FILE
    if not listing.is_file():
        return [] if any(folder.rglob("*.png")) or any(folder.rglob("*.jpg")) else [f"{folder} has no source pictures"]
    faults = []
    for path, expected in json.loads(listing.read_text(encoding="utf-8")).items():
        found = sha256_file(folder / path) if (folder / path).is_file() else "no file"
        if found != expected:
            faults.append(f"{folder / path}: expected hash {expected}, found {found}")
    return faults


def _origin(pictures: Pictures, folder: Path, hosts: Hosts, remedy: str) -> dict[str, Any]:
    """The recorded origin, or the commit that ``main`` is now with its hashes, recorded at once."""
    record = folder / ORIGIN_FILE
    if record.is_file():
        known: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return known
    api = f"{hosts.hub}/api/datasets/{pictures.dataset}"
    try:
        revision = str(get_json(f"{api}/revision/{MAIN}", remedy)["sha"])
        listed = get_json(f"{api}/tree/{revision}?recursive=true", remedy)
        files = {row["path"]: _digest(row) for row in listed if re.fullmatch(pictures.files, row["path"])}
    except (KeyError, TypeError) as error:
        fact = f"the hub's answer about {pictures.dataset} has another form: {error!r}"
        raise PrerequisiteMissing(fact, field=FIELD, remedy=remedy) from error
    if not files:
        raise PrerequisiteMissing(f"{pictures.dataset} lists no such files", field=FIELD, remedy=remedy)
    origin = {"dataset": pictures.dataset, "revision": revision, "files": files}
    write_json(record, origin)
    return origin


def _digest(row: dict[str, Any]) -> dict[str, str]:
    large = row.get("lfs")
    return {"sha256": str(large["oid"])} if large else {"git_blob": str(row["oid"])}


def _unpack_tar(archive: Path, wanted: str, folder: Path) -> Iterator[Path]:
    """Regular files below ``wanted``, written under its last name. Names that leave the folder are refused."""
    root = PurePosixPath(wanted)
    with tarfile.open(archive) as opened:
        for member in opened:
            path = PurePosixPath(member.name)
            if not member.isreg() or not path.is_relative_to(root):
                continue
            if ".." in path.parts or "\0" in member.name or member.size > MEMBER_BYTES:
                raise PrerequisiteMissing(f"{archive.name} holds the unsafe member {member.name!r}", field=FIELD)
            stream = opened.extractfile(member)
            target = folder / root.name / path.relative_to(root)
            atomic_write_bytes(target, stream.read() if stream else b"")
            yield target


def _unpack_table(archive: Path, wanted: str, folder: Path) -> Iterator[Path]:
    """``<wanted>/<task>/<language>/<key>_SRCIMG.png`` of every row, and its words in ``items.jsonl``."""
    items = (folder / ITEMS_FILE).read_text(encoding="utf-8").splitlines() if (folder / ITEMS_FILE).is_file() else []
    for row in _rows(archive):
        names = [str(row[column]) for column in ITEM_COLUMNS[:3]]
        if not all(SAFE_NAME.fullmatch(name) for name in names):
            raise PrerequisiteMissing(f"{archive.name} holds the unsafe name {names}", field=FIELD)
        target = folder / wanted / names[0] / names[1] / f"{names[2]}{SOURCE_SUFFIX}"
        atomic_write_bytes(target, row[PICTURE_COLUMN]["bytes"])
        items.append(json.dumps({column: row[column] for column in ITEM_COLUMNS}, ensure_ascii=False))
        yield target
    items = list(dict.fromkeys(items))
    atomic_write_bytes(folder / ITEMS_FILE, ("\n".join(items) + "\n").encode())
    yield folder / ITEMS_FILE


def _rows(archive: Path) -> Iterator[dict[str, Any]]:
    """Rows of a parquet file or an Arrow stream, a few at a time."""
    import pyarrow
    import pyarrow.parquet

    columns = [*ITEM_COLUMNS, PICTURE_COLUMN]
    with pyarrow.OSFile(str(archive), "rb") as stream:
        if archive.suffix == ".parquet":
            batches = pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=16, columns=columns)
        else:
            batches = pyarrow.ipc.open_stream(stream)
        for batch in batches:
            yield from batch.select(columns).to_pylist()
