"""``reca fetch BENCHMARK``: prompts, tables, judge texts and source pictures from their origins, each checked by hash.

Into ``<cache>/benchmark_data/<benchmark>/...``, the layout that ``--benchmark-data DIR`` also has. Fetched once; a lock
keeps two processes from fetching the same at once; a file appears complete and right or not at all. A file that is
there and wrong is an error, never replaced in silence: somebody may have meant it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from evaluation.benchmark import PinnedFile
from evaluation.benchmarks.data import DATA_FIELD, git_blob
from evaluation.download import Hosts, get_bytes
from evaluation.fetch_pictures import fetch_listed, fetch_pictures, pictures_fault
from evaluation.pins import LISTED, PICTURES, Origin, files_of
from evaluation.registry import card
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.files import atomic_write_bytes, run_lock

FOLDER = "benchmark_data"
LOCK_FILE = ".fetch.lock"
LOCK_WAIT_SECONDS = 3600.0
"""Another process may be downloading gigabytes."""
GITHUB = Hosts()
WITH_PICTURES = (*PICTURES, *LISTED)
Report = Callable[[str], None]


def fetch(
    benchmark: str,
    cache: Path,
    *,
    local: Path | None = None,
    pictures: bool = True,
    hosts: Hosts = GITHUB,
    report: Report = lambda line: None,
) -> Path:
    """Make a benchmark's files present and right.

    Args:
        cache: ``<home>/cache``.
        local: a folder that already has them (``--benchmark-data``); it is checked and never written to.
        pictures: whether the pictures that prompts start from are wanted too, with the questions about them.
        report: told one line per file that is fetched.
    Returns: the folder to read from, which holds ``<benchmark>/...``.
    Raises: PrerequisiteMissing naming the file, expected and found hash, and the command, or for a benchmark whose
        origin is not pinned here; BadInput for no benchmark.
    """
    pins = list(files_of(benchmark))
    if not pins and benchmark not in WITH_PICTURES:
        raise PrerequisiteMissing(
            f"no pinned origin of {benchmark} is known here",
            field="BENCHMARK",
            remedy=f"get it from {card(benchmark).data_origin} and name the folder with --benchmark-data DIR",
        )
    if local is not None:
        check(benchmark, local, pictures=pictures)
        return local
    root = cache / FOLDER
    with run_lock(root / benchmark / LOCK_FILE, LOCK_WAIT_SECONDS):
        for pin, origin in pins:
            _had(root, benchmark, pin, origin, hosts, report)
        if pictures and benchmark in PICTURES:
            fetch_pictures(PICTURES[benchmark], root / benchmark, hosts, command(benchmark), report)
        if pictures and benchmark in LISTED:
            fetch_listed(LISTED[benchmark], root / benchmark, hosts, command(benchmark), report)
    check(benchmark, root, pictures=pictures)
    return root


def check(benchmark: str, folder: Path, *, pictures: bool = True) -> None:
    """Whether every file is there and right. Raises PrerequisiteMissing listing all that are not."""
    faults = [fault for pin, _ in files_of(benchmark) if (fault := file_fault(folder / benchmark / pin.path, pin))]
    if pictures and benchmark in WITH_PICTURES:
        faults += pictures_fault(folder / benchmark)
    if faults:
        raise PrerequisiteMissing("; ".join(faults), field=DATA_FIELD, remedy=command(benchmark))


def command(benchmark: str) -> str:
    """What to do about a file that is missing or altered."""
    return f"reca fetch {benchmark}, or name a folder that has it with --benchmark-data DIR"


def file_fault(path: Path, pin: PinnedFile) -> str:
    """What is wrong with a file; empty where nothing is."""
    if not path.is_file():
        return f"{path} is missing, expected hash {pin.sha256 or pin.git_blob}"
    return _hash_fault(str(path), path.read_bytes(), pin)


def _hash_fault(name: str, content: bytes, pin: PinnedFile) -> str:
    found = hashlib.sha256(content).hexdigest() if pin.sha256 else git_blob(content)
    expected = pin.sha256 or pin.git_blob
    return "" if found == expected else f"{name} was altered: expected hash {expected}, found {found}"


def _had(root: Path, benchmark: str, pin: PinnedFile, origin: Origin, hosts: Hosts, report: Report) -> None:
    target = root / benchmark / pin.path
    if target.exists():
        if fault := file_fault(target, pin):
            remedy = f"remove it, then {command(benchmark)}"
            raise PrerequisiteMissing(fault, field=DATA_FIELD, remedy=remedy)
        return
    report(f"{benchmark}: {pin.path} from {origin.addresses[0]}")
    content = _RECIPES[origin.recipe](origin, hosts, command(benchmark))
    if fault := _hash_fault(f"{pin.path}, fetched from {origin.addresses[0]},", content, pin):
        raise PrerequisiteMissing(fault, field=DATA_FIELD, remedy=command(benchmark))
    atomic_write_bytes(target, content)


def _file(origin: Origin, hosts: Hosts, remedy: str) -> bytes:
    return get_bytes([f"{hosts.files}/{address}" for address in origin.addresses], remedy)


def _texts(origin: Origin, hosts: Hosts, remedy: str) -> bytes:
    """The text files of one folder of a repository, read from its archive and never unpacked."""
    urls = []
    for address in origin.addresses:
        owner, name, commit = address.split("/")
        urls.append(f"{hosts.archives}/{owner}/{name}/tar.gz/{commit}")
    texts = texts_of_archive(get_bytes(urls, remedy), PurePosixPath(origin.parts[0]))
    lines = [{"item_id": name, "text": texts[name]} for name in sorted(texts, key=natural_order)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def texts_of_archive(archive: bytes, folder: PurePosixPath) -> dict[str, str]:
    """Stem -> text of every ``*.txt`` directly in ``folder`` of a repository's archive (which adds one folder)."""
    texts: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
            for member in opened:
                path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
                stream = opened.extractfile(member) if member.isreg() else None
                if stream is not None and path.parent == folder and path.suffix == ".txt":
                    texts[path.stem] = stream.read().decode()
    except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as error:
        raise PrerequisiteMissing(f"the archive cannot be read: {error}", field=str(folder)) from error
    return texts


def natural_order(name: str) -> list[tuple[int, str]]:
    """Key that sorts item2 before item10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if at % 2 else (-1, part) for at, part in enumerate(parts)]


def _constants(origin: Origin, hosts: Hosts, remedy: str) -> bytes:
    constants = string_constants(_file(origin, hosts, remedy))
    missing = [name for name in origin.parts if name not in constants]
    if missing:
        raise PrerequisiteMissing(
            f"holds no text called {', '.join(missing)}", field=origin.addresses[0], remedy=remedy
        )
    return "\n".join(constants[name] for name in origin.parts).encode()


def string_constants(module: bytes) -> dict[str, str]:
    """Top-level ``NAME = "text"`` of a Python module, which is parsed and never run."""
    try:
        body = ast.parse(module).body
    except (SyntaxError, ValueError) as error:
        raise PrerequisiteMissing(f"is no Python module: {error}", field="judge texts") from error
    return {
        target.id: node.value.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


_RECIPES: Mapping[str, Callable[[Origin, Hosts, str], bytes]] = {
    "file": _file,
    "texts": _texts,
    "constants": _constants,
}
