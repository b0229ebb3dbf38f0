"""A judge elsewhere is asked while pictures are made; the judging afterwards is the same one and asks nothing again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from evaluation import ahead
from evaluation.judges import endpoint as endpoints
from evaluation.judges.vlm_endpoint import KEY_VARIABLE
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.files import append_jsonl
from tests.evaluation.endpoint_rig import Judging, answering, marks
from tests.evaluation.serving import Request, served

PATIENCE_SECONDS = 60


@pytest.fixture
def judging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judging:
    monkeypatch.setenv(KEY_VARIABLE, "k")
    monkeypatch.setattr(endpoints, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(ahead, "POLL_SECONDS", 0.01)
    made = Judging(tmp_path, "imgedit", monkeypatch)
    made.output = tmp_path / "asked"
    (made.samples / "samples.jsonl").unlink()
    return made


def sampling(judging: Judging, heard: threading.Event) -> threading.Thread:
    """Makes some pictures, the last row torn, and the others only after a question was heard."""

    def work() -> None:
        file = judging.samples / "samples.jsonl"
        rows = [row.model_dump() for row in judging.rows]
        append_jsonl(file, rows[:2])
        with file.open("a") as stream:
            stream.write(json.dumps(rows[2])[:20])
        assert heard.wait(PATIENCE_SECONDS)
        append_jsonl(file, rows[2:])
        (judging.samples / "DONE.json").write_text("{}")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_pictures_are_asked_about_while_others_are_made_and_the_judging_asks_nothing(judging: Judging) -> None:
    heard, faithful = threading.Event(), answering(marks(4))

    def handle(request: Request) -> None:
        heard.set()
        faithful(request)

    with served(handle) as server:
        request = judging.request(server)
        sampler = sampling(judging, heard)
        ahead.main(request)
        sampler.join()
        assert len(server.paths) == judging.count
        judging.output = judging.folder / "answers"
        result = judging.run(server)
        assert len(server.paths) == judging.count
    assert (result.judged, result.unscored) == (judging.count, 0)


def test_an_endpoint_without_permission_ends_it_and_what_was_answered_is_kept(judging: Judging) -> None:
    faithful, count, heard = answering(marks(4)), [0], threading.Event()

    def handle(request: Request) -> None:
        count[0] += 1
        heard.set()
        faithful(request) if count[0] <= 2 else request.reply(401, b'{"error": {"message": "expired"}}')

    with served(handle) as server:
        request = judging.request(server, concurrency=1)
        sampler = sampling(judging, heard)
        with pytest.raises(StageFailed, match="no permission"):
            ahead.main(request)
        sampler.join()
    judging.output = judging.folder / "answers"
    with served(faithful) as server:
        assert judging.run(server).judged == judging.count
        assert len(server.paths) == judging.count - 2


def test_a_second_start_asks_nothing_that_was_answered(judging: Judging) -> None:
    heard = threading.Event()
    heard.set()
    with served(answering(marks(3))) as server:
        request = judging.request(server)
        sampling(judging, heard).join()
        for _ in range(2):
            ahead.main(request)
        assert len(server.paths) == judging.count
