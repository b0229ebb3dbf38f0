"""Hub data sets, against a small hub on this machine: commits, splits, subsets, and every way to be missing."""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.hub_protocol import HubHandler, entry

COMMIT = "c0ffee" + "0" * 34
REPOSITORY = "someone/pictures"


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (value, 0, 90)).save(stream, "PNG")
    return stream.getvalue()


def parquet(values: list[int], column: str = "image") -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({column: pa.array([png(value) for value in values])}), stream)
    return stream.getvalue()


def tar(values: list[int]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for value in values:
            info = tarfile.TarInfo(f"{value}.png")
            info.size = len(png(value))
            archive.addfile(info, io.BytesIO(png(value)))
    return stream.getvalue()


class Hub(http.server.ThreadingHTTPServer):
    """As much of the hub's protocol as reading one public repository needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.downloads: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(HubHandler):
    server: Hub

    def get(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        api, resolve = f"/api/datasets/{REPOSITORY}", f"/datasets/{REPOSITORY}/resolve/"
        if path.startswith(resolve):
            self.file(*path.removeprefix(resolve).split("/", 1))
        elif not path.startswith(api):
            self.fail("RepoNotFound")
        elif path.removeprefix(api).split("/")[2:3] not in ([], ["main"], [COMMIT]):
            self.fail("RevisionNotFound")
        elif "/tree/" in path:
            self.json(self.tree(path.partition("/tree/")[2].partition("/")[2], "recursive=true" in self.path.lower()))
        else:
            self.json({"id": REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": n} for n in self.server.files]})

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else urllib.parse.parse_qs(body)["paths"]
        self.json([self.entry(name) for name in asked if name in self.server.files])

    def tree(self, folder: str, recursive: bool) -> list[dict[str, object]]:
        """The files of a folder, and the folders in it."""
        prefix = f"{folder}/" if folder else ""
        below = [name for name in self.server.files if name.startswith(prefix)]
        folders = {prefix + name.removeprefix(prefix).split("/")[0] for name in below if "/" in name[len(prefix) :]}
        files = [name for name in below if recursive or "/" not in name[len(prefix) :]]
        listed: list[dict[str, object]] = [{"type": "directory", "path": name, "oid": "0"} for name in sorted(folders)]
        return listed + [self.entry(name) for name in files]

    def entry(self, name: str) -> dict[str, object]:
        return entry(name, self.server.files[name])

    def file(self, revision: str, name: str) -> None:
        if revision not in ("main", COMMIT) or name not in self.server.files:
            self.fail("EntryNotFound" if revision in ("main", COMMIT) else "RevisionNotFound")
            return
        content = self.server.files[name]
        if self.command == "GET":
            self.server.downloads.append(name)
        self.content(content, COMMIT)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


CODE = """
import json, sys
from pathlib import Path
from reca_core.contracts.errors import RecaError
from reca_core.contracts.home import Home
from reca_core.contracts.requests import ImageSource
from reca_core.data.manifest import read_manifest, read_summary
from reca_core.data.prepare import prepare

def outcome(source):
    try:
        prepared = prepare(ImageSource(**source), Home(Path(sys.argv[1])), lambda _: None)
    except RecaError as error:
        return {"error": type(error).__name__, "text": str(error), "choices": error.choices}
    directory = Path(prepared.directory)
    return {
        "pictures": prepared.pictures, "quarantined": prepared.quarantined, "reused": prepared.reused,
        "revision": read_summary(directory).revision, "companions": read_summary(directory).companions,
        "labels": sorted(row.label for row in read_manifest(directory)),
    }

print(json.dumps([outcome(source) for source in json.loads(sys.argv[2])]))
"""


def run(tmp_path: Path, endpoint: str, *sources: dict[str, str], offline: bool = False) -> list[dict[str, object]]:
    """Prepare in a process of its own: the hub's client reads its settings when it is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "huggingface"),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "NO_PROXY": "127.0.0.1",
    }
    asked = json.dumps([{"source": REPOSITORY, **source} for source in sources])
    command = [sys.executable, "-c", CODE, str(tmp_path / "home"), asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    results: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return results


def test_the_split_of_a_hub_data_set_is_read_at_its_commit(tmp_path: Path, hub: Hub) -> None:
    hub.files = {
        "README.md": b"# pictures\n",
        "data/train-00000-of-00002.parquet": parquet([1, 2, 3]),
        "data/train-00001-of-00002.parquet": parquet([3, 4]),
        "data/test-00000-of-00001.parquet": parquet([5]),
    }
    choices = [{}, {"split": "test"}, {"split": "dev"}, {"image_column": "picture"}]
    train, test, no_split, no_column = run(tmp_path, hub.address, *choices)
    assert (train["pictures"], train["revision"]) == (4, COMMIT)
    assert test["labels"] == ["test-00000-of-00001.parquet row 0"]
    assert (no_split["error"], no_split["choices"]) == ("BadInput", ["train", "test"])
    assert (no_column["error"], no_column["choices"]) == ("BadInput", ["image"])


def test_a_pinned_commit_is_prepared_again_without_a_network(tmp_path: Path, hub: Hub) -> None:
    hub.files = {"data/train-00000-of-00001.parquet": parquet([1, 2, 3])}
    [first] = run(tmp_path, hub.address, {"revision": COMMIT})
    assert hub.downloads.count("data/train-00000-of-00001.parquet") == 1
    again, unpinned = run(tmp_path, "http://127.0.0.1:9", {"revision": COMMIT}, {}, offline=True)
    assert again == {**first, "reused": True}
    assert unpinned["error"] == "PrerequisiteMissing"


def test_tars_on_the_hub_are_read(tmp_path: Path, hub: Hub) -> None:
    hub.files = {"a.tar": tar([1, 2]), "b.tar": tar([3])}
    [found] = run(tmp_path, hub.address, {})
    assert found["labels"] == ["a.tar/1.png", "a.tar/2.png", "b.tar/3.png"]


def test_loose_pictures_on_the_hub_are_read(tmp_path: Path, hub: Hub) -> None:
    hub.files = {
        "train/x.png": png(9),
        "train/y.jpg": b"no picture",
        "train/metadata.csv": b"file_name,text\nx.png,x\n",
    }
    [found] = run(tmp_path, hub.address, {})
    assert (found["labels"], found["quarantined"], found["companions"]) == (["train/x.png"], 1, 1)


def test_a_data_set_with_subsets_asks_which(tmp_path: Path, hub: Hub) -> None:
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.parquet\n"
        for name in ("cats", "dogs")
    )
    hub.files = {"README.md": (card + "---\n").encode(), "cats.parquet": parquet([1]), "dogs.parquet": parquet([2, 3])}
    unsaid, dogs = run(tmp_path, hub.address, {}, {"subset": "dogs"})
    assert (unsaid["error"], unsaid["choices"]) == ("BadInput", ["cats", "dogs"])
    assert dogs["pictures"] == 2


def test_what_is_not_on_the_hub_is_bad_input(tmp_path: Path, hub: Hub) -> None:
    hub.files = {"README.md": b"# nothing yet\n"}
    choices = [{"source": "nobody/nothing"}, {"revision": "v9"}, {}]
    results = run(tmp_path, hub.address, *choices)
    words = ["no public data set of that name", "has no revision 'v9'", "holds no data files"]
    for result, expected in zip(results, words, strict=True):
        assert result["error"] == "BadInput"
        assert expected in str(result["text"])


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_hub_the_id_and_the_remedy_are_named(tmp_path: Path, offline: bool) -> None:
    [result] = run(tmp_path, "http://127.0.0.1:9", {}, offline=offline)
    assert result["error"] == "PrerequisiteMissing"
    assert REPOSITORY in str(result["text"])
    assert "hf download" in str(result["text"])
