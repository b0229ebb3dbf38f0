"""A whole judging through an address that misbehaves: outages lower no score, nothing is paid for twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.compare import changed_verdicts, compare_over_time, read_measurement
from evaluation.judges import endpoint as endpoints
from evaluation.judges.vlm_endpoint import KEY_VARIABLE
from reca_core.contracts.errors import StageFailed
from tests.evaluation.endpoint_rig import Judging, answering, marks
from tests.evaluation.serving import Request, served


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "k")
    monkeypatch.setattr(endpoints, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def imgedit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judging:
    return Judging(tmp_path, "imgedit", monkeypatch)


def test_a_faithful_judge_scores_everything_once(imgedit: Judging) -> None:
    with served(answering(marks(4))) as server:
        result = imgedit.run(server)
        assert (result.judged, result.unscored) == (imgedit.count, 0)
        assert result.tables["corrected"].rows["overall_micro"].value == 4.0
        assert len(server.paths) == imgedit.count
        identity = result.tables["corrected"].judge
        assert (identity.model, identity.settings["date"]) == ("m", "2026-01-02")


def test_the_same_judging_elsewhere_costs_nothing(imgedit: Judging) -> None:
    with served(answering(marks(4))) as server:
        first = imgedit.run(server)
        imgedit.output = imgedit.folder / "answers again"
        second = imgedit.run(server)
        assert second.tables == first.tables
        assert len(server.paths) == imgedit.count


def test_an_outage_is_unscored_lowers_nothing_and_is_asked_again(imgedit: Judging) -> None:
    faithful, calls = answering(marks(4)), [0]

    def every_second(request: Request) -> None:
        text = json.loads(request.content)["messages"][0]["content"][0]["text"]
        broken = len(text) % 2 == 0
        calls[0] += broken
        request.reply(500, b"{}") if broken else faithful(request)

    with served(every_second) as server:
        result = imgedit.run(server)
    assert calls[0] > 0
    assert result.outages == result.unscored == calls[0] // 2
    row = result.tables["corrected"].rows["overall_micro"]
    assert (row.value, row.n_scored, row.n_expected) == (4.0, imgedit.count - result.unscored, imgedit.count)
    with served(faithful) as server:
        again = imgedit.run(server)
        assert len(server.paths) == result.unscored
    assert (again.judged, again.unscored) == (imgedit.count, 0)


def test_no_permission_half_way_keeps_what_was_answered(imgedit: Judging) -> None:
    faithful, count = answering(marks(4)), [0]

    def handle(request: Request) -> None:
        count[0] += 1
        faithful(request) if count[0] <= 3 else request.reply(401, b'{"error": {"message": "expired"}}')

    with served(handle) as server, pytest.raises(StageFailed, match="no permission"):
        imgedit.run(server, concurrency=1)
    assert not (imgedit.output / "DONE.json").exists()
    with served(faithful) as server:
        assert imgedit.run(server, concurrency=1).judged == imgedit.count
        assert len(server.paths) == imgedit.count - 3


def test_an_unreadable_reply_is_asked_for_again_and_not_served_from_the_kept_ones(imgedit: Judging) -> None:
    """ImgEdit asks three times; parity reads the first reply, corrected the last."""
    asked: dict[str, int] = {}

    def words(text: str) -> str:
        asked[text] = asked.get(text, 0) + 1
        return "I like it" if asked[text] < 3 else marks(5)(text)

    with served(answering(words)) as server:
        result = imgedit.run(server)
    assert set(asked.values()) == {3}
    assert result.tables["corrected"].rows["overall_micro"].value == 5.0
    assert result.tables["parity"].rows["overall_micro"].n_scored == 0
    assert {row["ask"] for row in imgedit.transcript()} == {0, 1, 2}


def test_refusals_are_unscored(imgedit: Judging) -> None:
    with served(answering(lambda text: "I'm sorry, I can't help with that.")) as server:
        result = imgedit.run(server)
    assert (result.judged, result.unscored, result.outages) == (0, imgedit.count, 0)
    assert result.tables["corrected"].rows["overall_micro"].value is None


def test_gedit_asks_two_calls_per_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gedit = Judging(tmp_path, "gedit", monkeypatch)
    with served(answering(lambda text: '{"score": [9, 4], "reasoning": "fine"}')) as server:
        result = gedit.run(server)
        pictures = [body.count(b"image_url") // 2 for body in server.bodies]
    assert result.judged == gedit.count
    assert sorted(pictures) == [1] * gedit.count + [2] * gedit.count
    names = [name for name in result.tables["corrected"].rows if name.endswith("O")]
    assert {result.tables["corrected"].rows[name].value for name in names} <= {4.0, None}


def test_a_judging_that_asks_anew_uses_no_kept_reply_and_finds_a_judge_that_changed(imgedit: Judging) -> None:
    """Same name, same date, same pictures: only asking again can tell. A resumed one does not ask a third time."""
    with served(answering(marks(4))) as server:
        imgedit.run(server)
        asked = len(server.paths)
    first = imgedit.output
    imgedit.output, imgedit.occasion = imgedit.folder / "anew", "tonight"
    with served(answering(marks(2))) as server:
        imgedit.run(server)
        assert len(server.paths) == asked
        (imgedit.output / "DONE.json").unlink()
        (imgedit.output / "transcript.jsonl").unlink()
        imgedit.run(server)
        assert len(server.paths) == asked
    before, now = (read_measurement(folder, "corrected") for folder in (first, imgedit.output))
    row = compare_over_time(before, now).rows["overall_micro"]
    assert (row.delta, row.low, row.high) == (-2.0, -2.0, -2.0)
    assert changed_verdicts(before, now) == imgedit.count
