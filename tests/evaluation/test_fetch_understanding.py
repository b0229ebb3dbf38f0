"""Questions about given pictures and the pictures themselves: fetched once, recorded, and held against the record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation import download
from evaluation.benchmarks.data import git_blob
from evaluation.download import Hosts
from evaluation.fetch import check, fetch
from evaluation.pins import LISTED, PICTURES
from reca_core.contracts.errors import PrerequisiteMissing
from tests.evaluation.serving import Request, Served, served

REVISION = "0123456789abcdef"
JPEG = b"\xff\xd8 a picture"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.01)


def serving(files: dict[str, bytes]):
    def handle(request: Request) -> None:
        content = files.get(request.path)
        request.reply(404, b"not here") if content is None else request.reply(200, content, "text/plain")

    return handle


def fetched(benchmark: str, cache: Path, server: Served) -> Path:
    return fetch(benchmark, cache, hosts=Hosts(server.url, server.url, server.url, f"{server.url}/coco")) / benchmark


def pope_files(image: str = "COCO_val2014_000000000001.jpg") -> dict[str, bytes]:
    line = json.dumps({"question_id": 1, "image": image, "text": "Is there a cat in the image?", "label": "yes"})
    found = {f"/{address}": f"{line}\n".encode() for address in LISTED["pope"].questions}
    return found | {f"/coco/val2014/{image}": JPEG}


def test_popes_questions_come_with_the_pictures_they_name(tmp_path: Path) -> None:
    with served(serving(pope_files())) as server:
        folder = fetched("pope", tmp_path, server)
        assert len(server.paths) == 4
        fetched("pope", tmp_path, server)
        assert len(server.paths) == 4
    assert (folder / "val2014" / "COCO_val2014_000000000001.jpg").read_bytes() == JPEG
    assert (folder / "coco_pope_adversarial.json").is_file()
    check("pope", folder.parent)
    (folder / "coco_pope_popular.json").write_text("altered")
    with pytest.raises(PrerequisiteMissing, match=r"(?s)coco_pope_popular\.json: expected hash .*reca fetch pope"):
        check("pope", folder.parent)


def test_what_broke_off_goes_on_where_it_stood(tmp_path: Path) -> None:
    files = pope_files()
    picture = files.pop("/coco/val2014/COCO_val2014_000000000001.jpg")
    with served(serving(files)) as server, pytest.raises(PrerequisiteMissing, match="404"):
        fetched("pope", tmp_path, server)
    with served(serving({"/coco/val2014/COCO_val2014_000000000001.jpg": picture})) as server:
        fetched("pope", tmp_path, server)
        assert len(server.paths) == 1


@pytest.mark.parametrize("image", ["../../evil.jpg", "/etc/passwd", "a.jpg/../b.jpg", "a.png"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, image: str) -> None:
    with served(serving(pope_files(image))) as server, pytest.raises(PrerequisiteMissing, match="unsafe name"):
        fetched("pope", tmp_path, server)
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize("content", [b"<html>", b"[1]\n", b'{"text": "?"}\n'])
def test_questions_in_another_form_are_refused_and_not_kept(tmp_path: Path, content: bytes) -> None:
    files = pope_files() | {f"/{LISTED['pope'].questions[0]}": content}
    with served(serving(files)) as server, pytest.raises(PrerequisiteMissing, match="another form"):
        fetched("pope", tmp_path, server)
    with served(serving(pope_files())) as server:
        fetched("pope", tmp_path, server)


def test_a_page_in_place_of_a_picture_is_refused(tmp_path: Path) -> None:
    files = pope_files() | {"/coco/val2014/COCO_val2014_000000000001.jpg": b"<html>sign in</html>"}
    with served(serving(files)) as server, pytest.raises(PrerequisiteMissing, match="no JPEG"):
        fetched("pope", tmp_path, server)


def test_mmvp_comes_as_it_lies_on_the_hub_with_the_hashes_listed_there(tmp_path: Path) -> None:
    dataset, files = (
        PICTURES["mmvp"].dataset,
        {"Questions.csv": b"Index\n", "MMVP Images/1.jpg": JPEG, "README.md": b""},
    )
    listing = [{"path": path, "oid": git_blob(content)} for path, content in files.items()]
    answers = {
        f"/api/datasets/{dataset}/revision/main": json.dumps({"sha": REVISION}).encode(),
        f"/api/datasets/{dataset}/tree/{REVISION}?recursive=true": json.dumps(listing).encode(),
        f"/datasets/{dataset}/resolve/{REVISION}/Questions.csv": files["Questions.csv"],
        f"/datasets/{dataset}/resolve/{REVISION}/MMVP%20Images/1.jpg": JPEG,
    }
    with served(serving(answers)) as server:
        folder = fetched("mmvp", tmp_path, server)
    assert (folder / "MMVP Images" / "1.jpg").read_bytes() == JPEG
    assert not (folder / "README.md").exists()
    assert json.loads((folder / "origin.json").read_text())["revision"] == REVISION
    check("mmvp", folder.parent)
