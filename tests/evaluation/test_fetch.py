"""Fetching: what arrives is what was pinned, once, whoever else fetches; all else is an error that says what to do."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pytest
from PIL import Image

from evaluation import download, fetch_pictures
from evaluation import fetch as fetching
from evaluation.benchmark import PinnedFile
from evaluation.benchmarks.data import git_blob
from evaluation.download import Hosts
from evaluation.fetch import fetch, file_fault, natural_order, string_constants, texts_of_archive
from evaluation.pins import PICTURES, Origin, Pictures, files_of
from evaluation.registry import BENCHMARKS, card
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from tests.evaluation.serving import Request, Served, served

CONTENT = b"prompts\n"
PIN = PinnedFile("prompts.txt", sha256=hashlib.sha256(CONTENT).hexdigest())
COMMIT = "someone/something/0123456789abcdef"
ADDRESS = f"{COMMIT}/prompts.txt"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.01)


def hosts(server: Served) -> Hosts:
    return Hosts(server.url, server.url + "/archives", server.url)


def serving(files: dict[str, bytes]):
    def handle(request: Request) -> None:
        content = files.get(request.path)
        request.reply(404, b"not here") if content is None else request.reply(200, content, "text/plain")

    return handle


@pytest.fixture
def one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark of one file."""
    monkeypatch.setattr(fetching, "files_of", lambda name: iter([(PIN, Origin("file", (ADDRESS,)))]))


def archive(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.usefixtures("one_file")
def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    with served(serving({f"/{ADDRESS}": CONTENT})) as server:
        for _ in range(2):
            root = fetch("geneval", tmp_path, hosts=hosts(server))
            assert (root / "geneval" / PIN.path).read_bytes() == CONTENT
        assert server.paths == [f"/{ADDRESS}"]


@pytest.mark.usefixtures("one_file")
def test_another_content_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        served(serving({f"/{ADDRESS}": b"something else"})) as server,
        pytest.raises(PrerequisiteMissing) as error,
    ):
        fetch("geneval", tmp_path, hosts=hosts(server))
    found = hashlib.sha256(b"something else").hexdigest()
    assert all(part in str(error.value) for part in (PIN.path, PIN.sha256, found, "reca fetch geneval"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != fetching.LOCK_FILE]


@pytest.mark.usefixtures("one_file")
def test_an_altered_file_is_named_and_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / fetching.FOLDER / "geneval" / PIN.path
    target.parent.mkdir(parents=True)
    target.write_bytes(b"altered")
    with (
        served(serving({f"/{ADDRESS}": CONTENT})) as server,
        pytest.raises(PrerequisiteMissing, match="was altered: expected hash"),
    ):
        fetch("geneval", tmp_path, hosts=hosts(server))
    assert target.read_bytes() == b"altered"
    assert server.paths == []


@pytest.mark.usefixtures("one_file")
@pytest.mark.parametrize("status", [404, 403])
def test_an_origin_without_the_file_names_address_status_and_command(tmp_path: Path, status: int) -> None:
    with (
        served(lambda request: request.reply(status, b"")) as server,
        pytest.raises(PrerequisiteMissing) as error,
    ):
        fetch("geneval", tmp_path, hosts=hosts(server))
    assert ADDRESS in str(error.value)
    assert f"status {status}" in str(error.value)
    assert "--benchmark-data DIR" in str(error.value)
    assert len(server.paths) == 1


@pytest.mark.usefixtures("one_file")
def test_no_network_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match="--benchmark-data DIR"):
        fetch("geneval", tmp_path, hosts=Hosts("http://127.0.0.1:9", "http://127.0.0.1:9", "http://127.0.0.1:9"))


@pytest.mark.usefixtures("one_file")
def test_passing_faults_of_the_origin_are_tried_again(tmp_path: Path) -> None:
    answers = iter([(503, b""), (429, b""), (200, CONTENT)])
    with served(lambda request: request.reply(*next(answers))) as server:
        fetch("geneval", tmp_path, hosts=hosts(server))
    assert len(server.paths) == 3


def test_a_copy_serves_where_the_first_address_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = "copier/copy/1/p.txt"
    monkeypatch.setattr(fetching, "files_of", lambda name: iter([(PIN, Origin("file", (ADDRESS, copy)))]))
    with served(serving({f"/{copy}": CONTENT})) as server:
        root = fetch("geneval", tmp_path, hosts=hosts(server))
    assert (root / "geneval" / PIN.path).read_bytes() == CONTENT


@pytest.mark.usefixtures("one_file")
def test_two_at_once_fetch_once(tmp_path: Path) -> None:
    with served(serving({f"/{ADDRESS}": CONTENT})) as server:
        threads = [
            threading.Thread(target=fetch, args=("geneval", tmp_path), kwargs={"hosts": hosts(server)})
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.paths == [f"/{ADDRESS}"]


@pytest.mark.usefixtures("one_file")
def test_another_process_at_work_is_waited_for_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / fetching.FOLDER / "geneval" / fetching.LOCK_FILE
    holder = (
        "import sys\nfrom pathlib import Path\nfrom reca_core.contracts.files import run_lock\n"
        "with run_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", holder, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        monkeypatch.setattr(fetching, "LOCK_WAIT_SECONDS", 0.3)
        with pytest.raises(Exception, match=f"process {process.pid} is working here"):
            fetch("geneval", tmp_path, hosts=Hosts("http://127.0.0.1:9", "", ""))
        process.communicate("")
    assert os.path.exists(lock)


def test_an_unknown_benchmark_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="imgedit"):
        fetch("imagenet", tmp_path)


def test_a_benchmark_without_a_pinned_origin_says_where_it_comes_from(tmp_path: Path) -> None:
    unpinned = [name for name in BENCHMARKS if not card(name).files and name not in fetching.WITH_PICTURES]
    assert unpinned
    for name in unpinned:
        with pytest.raises(PrerequisiteMissing, match="no pinned origin") as error:
            fetch(name, tmp_path)
        assert card(name).data_origin in str(error.value)


def test_every_file_of_every_card_has_an_origin() -> None:
    for name in BENCHMARKS:
        pinned = {pin.path for pin, _ in files_of(name)}
        assert pinned >= {pin.path for pin in card(name).files}


@pytest.mark.benchmark_data
def test_the_local_copies_are_the_pinned_files(benchmark_data: Path) -> None:
    """dpg_bench.csv is not among the small files; everything else is."""
    faults = {
        (name, pin.path): file_fault(benchmark_data / name / pin.path, pin)
        for name in BENCHMARKS
        for pin, _ in files_of(name)
    }
    wrong = {key: fault for key, fault in faults.items() if fault and "is missing" not in fault}
    assert wrong == {}
    assert {key for key, fault in faults.items() if fault} <= {("dpg", "dpg_bench.csv")}


@pytest.mark.benchmark_data
@pytest.mark.usefixtures("tmp_path")
def test_a_local_folder_is_checked_and_not_written_to(benchmark_data: Path, tmp_path: Path) -> None:
    before = sorted(benchmark_data.rglob("*"))
    assert fetch("geneval", tmp_path, local=benchmark_data) == benchmark_data
    assert sorted(benchmark_data.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PrerequisiteMissing, match=r"dpg_bench\.csv is missing, expected hash 98457fc"):
        fetch("dpg", tmp_path, local=tmp_path / "absent")


@pytest.mark.benchmark_data
def test_the_prompts_of_dpg_are_remade_byte_for_byte_from_an_archive_of_texts(benchmark_data: Path) -> None:
    expected = (benchmark_data / "dpg" / "dpg_prompts.jsonl").read_bytes()
    rows = [json.loads(line) for line in expected.decode().split("\n") if line]
    files = {f"ELLA-3c/dpg_bench/prompts/{row['item_id']}.txt": row["text"].encode() for row in rows}
    files |= {"ELLA-3c/dpg_bench/prompts/more/9.txt": b"deeper", "ELLA-3c/readme.txt": b"elsewhere"}
    packed = archive(dict(sorted(files.items(), reverse=True)))
    origin = next(origin for pin, origin in files_of("dpg") if pin.path == "dpg_prompts.jsonl")
    owner, name, commit = origin.addresses[0].split("/")
    with served(serving({f"/archives/{owner}/{name}/tar.gz/{commit}": packed})) as server:
        made = fetching._RECIPES["texts"](origin, hosts(server), "")
    assert made == expected


@pytest.mark.benchmark_data
def test_judge_texts_are_joined_from_constants_without_running_the_module(benchmark_data: Path) -> None:
    """The three parts of the consistency text are recovered from both pinned texts, then joined again."""
    sc = (benchmark_data / "gedit" / "judge_sc_template.txt").read_text(encoding="utf-8")
    at, then = sc.index("RULES:"), sc.index("From scale")
    parts = (sc[: at - 1], sc[at : then - 1], sc[then:])
    by_path = {pin.path: origin for pin, origin in files_of("gedit")}
    origin = by_path["judge_sc_template.txt"]
    module = "raise SystemExit\n" + "".join(
        f"{name} = {text!r}\n" for name, text in zip(origin.parts, parts, strict=True)
    )
    with served(serving({f"/{origin.addresses[0]}": module.encode()})) as server:
        made = fetching._RECIPES["constants"](origin, hosts(server), "")
    assert made.decode() == sc


def test_only_texts_directly_in_the_folder_are_taken() -> None:
    packed = archive({"r/p/a.txt": b"A", "r/p/q/b.txt": b"B", "r/a.txt": b"C", "r/p/a.md": b"D"})
    assert texts_of_archive(packed, PurePosixPath("p")) == {"a": "A"}


CUT = archive({"r/p/a.txt": b"A" * 5000})[:-40]


@pytest.mark.parametrize("damage", [b"", b"<html>", CUT], ids=["empty", "a page", "cut"])
def test_a_damaged_archive_is_an_error(damage: bytes) -> None:
    with pytest.raises(PrerequisiteMissing, match="cannot be read"):
        texts_of_archive(damage, PurePosixPath("p"))


def test_names_sort_by_their_numbers() -> None:
    names = ["whoops10", "10", "COCOval2", "9", "whoops9"]
    assert sorted(names, key=natural_order) == ["9", "10", "COCOval2", "whoops9", "whoops10"]


def test_a_module_that_does_not_parse_is_an_error() -> None:
    assert string_constants(b"a = 'x'\nb = 1\nc = d = 'y'\n") == {"a": "x", "c": "y", "d": "y"}
    with pytest.raises(PrerequisiteMissing, match="no Python module"):
        string_constants(b"<html>")


# --- source pictures --------------------------------------------------------------------------------------------------

REVISION = "f" * 40


def picture(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(stream, "PNG")
    return stream.getvalue()


def hub(pictures: Pictures, files: dict[str, bytes], large: bool = True) -> dict[str, bytes]:
    """Paths and answers of a hub that has one data set."""
    rows = [
        {
            "type": "file",
            "path": path,
            "oid": git_blob(content),
            **({"lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}} if large else {}),
        }
        for path, content in files.items()
    ]
    api = f"/api/datasets/{pictures.dataset}"
    listing = {f"{api}/revision/main": {"sha": REVISION}, f"{api}/tree/{REVISION}?recursive=true": rows}
    found = {path: json.dumps(value).encode() for path, value in listing.items()}
    return found | {f"/datasets/{pictures.dataset}/resolve/{REVISION}/{path}": files[path] for path in files}


def fetched(pictures: Pictures, folder: Path, server: Served) -> None:
    fetch_pictures.fetch_pictures(pictures, folder, hosts(server), "reca fetch X", lambda line: None)


@pytest.mark.parametrize("large", [True, False])
def test_a_tar_of_pictures_is_unpacked_once_into_the_layout(tmp_path: Path, large: bool) -> None:
    pictures = PICTURES["imgedit"]
    members = {
        "Benchmark/singleturn/daily object/1.jpg": b"one",
        "Benchmark/singleturn/animal/2.jpg": b"two",
        "Benchmark/multiturn/3.jpg": b"other suite",
    }
    answers = hub(pictures, {"Benchmark.tar": archive(members, "w"), "README.md": b"card"}, large)
    with served(serving(answers)) as server:
        fetched(pictures, tmp_path, server)
        asked = len(server.paths)
        fetched(pictures, tmp_path, server)
        assert len(server.paths) == asked == 3
    assert (tmp_path / "singleturn" / "daily object" / "1.jpg").read_bytes() == b"one"
    assert not (tmp_path / "multiturn").exists()
    assert fetch_pictures.pictures_fault(tmp_path) == []
    assert json.loads((tmp_path / fetch_pictures.ORIGIN_FILE).read_text())["revision"] == REVISION
    (tmp_path / "singleturn" / "animal" / "2.jpg").write_bytes(b"altered")
    assert "2.jpg: expected hash" in fetch_pictures.pictures_fault(tmp_path)[0]


def test_a_table_of_pictures_is_unpacked_into_the_layout_with_its_items(tmp_path: Path) -> None:
    pictures = PICTURES["gedit"]
    rows = [
        {
            "task_type": "subject-remove",
            "instruction_language": language,
            "key": "ae3b",
            "instruction": f"remove it ({language})",
            "Intersection_exist": language == "en",
            "input_image": {"bytes": picture("red"), "path": "x.png"},
            "unused": 1,
        }
        for language in ("en", "cn")
    ]
    table = pa.Table.from_pylist(rows)
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    with served(serving(hub(pictures, {"data/a.arrow": stream.getvalue()}))) as server:
        fetched(pictures, tmp_path, server)
    assert (tmp_path / "fullset/subject-remove/cn/ae3b_SRCIMG.png").read_bytes() == picture("red")
    items = [json.loads(line) for line in (tmp_path / fetch_pictures.ITEMS_FILE).read_text().splitlines()]
    assert [item["Intersection_exist"] for item in items] == [True, False]


def test_a_download_that_is_not_what_the_hub_listed_is_refused(tmp_path: Path) -> None:
    pictures = PICTURES["imgedit"]
    answers = hub(pictures, {"Benchmark.tar": archive({"Benchmark/singleturn/a/1.jpg": b"one"}, "w")})
    answers[f"/datasets/{pictures.dataset}/resolve/{REVISION}/Benchmark.tar"] = b"something else"
    with served(serving(answers)) as server, pytest.raises(PrerequisiteMissing, match="expected hash"):
        fetched(pictures, tmp_path, server)
    assert not (tmp_path / "singleturn").exists()
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["Benchmark/singleturn/../../../evil.jpg", "Benchmark/singleturn/a/../../../x.jpg"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    pictures = PICTURES["imgedit"]
    with (
        served(serving(hub(pictures, {"Benchmark.tar": archive({name: b"x"}, "w")}))) as server,
        pytest.raises(PrerequisiteMissing, match="unsafe member"),
    ):
        fetched(pictures, tmp_path / "inside", server)
    assert not list(tmp_path.rglob("*.jpg"))


def test_an_unsafe_key_of_a_table_is_refused(tmp_path: Path) -> None:
    pictures = PICTURES["gedit"]
    row = dict.fromkeys(("task_type", "instruction_language", "instruction"), "en")
    table = pa.Table.from_pylist(
        [{**row, "key": "../../evil", "Intersection_exist": True, "input_image": {"bytes": b"", "path": ""}}]
    )
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    with (
        served(serving(hub(pictures, {"data/a.arrow": stream.getvalue()}))) as server,
        pytest.raises(PrerequisiteMissing, match="unsafe name"),
    ):
        fetched(pictures, tmp_path, server)


@pytest.mark.parametrize("answer", [b"[]", b"{}", b"null", b"<html>", b'{"sha": 3}'])
def test_a_hub_that_answers_in_another_form_is_an_error(tmp_path: Path, answer: bytes) -> None:
    with served(lambda request: request.reply(200, answer)) as server, pytest.raises(PrerequisiteMissing):
        fetched(PICTURES["imgedit"], tmp_path, server)


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    assert "no source pictures" in fetch_pictures.pictures_fault(tmp_path)[0]
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert fetch_pictures.pictures_fault(tmp_path) == []
