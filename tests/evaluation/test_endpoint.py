"""A judge behind an address that misbehaves: every fault is a retry, a clear stop, or no reply; never a reply."""

from __future__ import annotations

import datetime
import json
import logging
import time
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from evaluation.judges import endpoint as endpoints
from evaluation.judges.endpoint import retry_after
from evaluation.judges.vlm_endpoint import KEY_VARIABLE
from evaluation.records import Reply
from reca_core.contracts.errors import EXIT_STAGE_FAILED, StageFailed
from tests.evaluation.endpoint_asking import (
    BOMB,
    TIMEOUT_SECONDS,
    Handle,
    ask,
    closes_at_once,
    closes_mid_reply,
    completion,
    drips,
    hangs,
    in_turn,
    judge,
    raw,
    says,
)
from tests.evaluation.judging import save_picture, task, text_question
from tests.evaluation.serving import Request, served

KEY = "sk-secret-0123456789abcdef"


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setattr(endpoints, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    return save_picture(tmp_path / "sample.png"), save_picture(tmp_path / "source.png", "blue")


PASSING: dict[str, tuple[Handle, str]] = {
    "429": (says({"error": {"message": "slow down"}}, 429), "status 429: "),
    "500": (says({"error": {"message": "oops"}}, 500), "status 500: "),
    "502 as a page": (says(b"<html>bad gateway</html>", 502), "status 502: "),
    "hangs": (hangs, "no reply within"),
    "drips": (drips, "no reply within"),
    "closes mid-reply": (closes_mid_reply, "the connection failed"),
    "closes at once": (closes_at_once, "the connection failed"),
    "10 MB": (says(completion("x" * 10_000_000)), "longer than"),
    "a page": (says(b"<html>log in</html>"), "no JSON"),
    "an empty body": (says(b""), "no JSON"),
    "half a body": (says(json.dumps(completion()).encode()[:-20]), "no JSON"),
    "NaN": (says(b'{"choices": [{"message": {"content": "4"}}], "x": NaN}'), "no JSON"),
    "nesting": (says(b"[" * 100_000), "no JSON"),
    "a list": (says([completion()]), "another form"),
    "null": (says(None), "another form"),
    "no choices": (says({"choices": []}), "another form at choices"),
    "choices of another type": (says({"choices": {"message": "4"}}), "another form at choices"),
    "a number as content": (says(completion(4)), "another form at choices.0.message.content"),
    "a list as content": (says(completion([{"type": "text", "text": "4"}])), "another form"),
    "no message": (says({"choices": [{"text": "4"}]}), "another form at choices.0.message"),
    "nothing said": (says(completion("  \n")), "said nothing"),
    "null said": (says(completion(None)), "said nothing"),
    "an error with status 200": (says({"error": {"message": "slow down", "code": 429}}), "another form at choices"),
    "no content": (says(b"", 204), "no JSON"),
    "letters that are no UTF-8": (says(b'{"choices": [{"message": {"content": "\xff"}}]}'), "no JSON"),
    "an event stream": (says(b'data: {"choices": []}\n\n'), "no JSON"),
    "a broken encoding": (
        lambda request: request.reply(200, b"nonsense", Content_Encoding="gzip"),
        "the connection failed",
    ),
    "a bomb": (lambda request: request.reply(200, BOMB, Content_Encoding="gzip"), "longer than"),
    "a broken chunk": (
        lambda request: raw(request, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n"),
        "the connection failed",
    ),
    "another protocol": (lambda request: raw(request, b"SSH-2.0-OpenSSH\r\n"), "the connection failed"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_tried_again(tmp_path: Path, pictures: tuple[Path, Path], fault: str) -> None:
    with served(in_turn(PASSING[fault][0], says(completion("Score: 4")))) as server:
        assert ask(judge(tmp_path, server), pictures) == [Reply(text="Score: 4")]
        assert len(server.paths) == 2


@pytest.mark.parametrize("fault", PASSING)
def test_a_lasting_fault_is_no_reply_and_is_asked_again_by_the_next_run(
    tmp_path: Path, pictures: tuple[Path, Path], fault: str
) -> None:
    handle, reason = PASSING[fault]
    with served(handle) as server:
        (reply,) = ask(judge(tmp_path, server, attempts=2), pictures)
        assert len(server.paths) == 2
    assert reply.text == ""
    assert reason in reply.error
    with served(says(completion("Score: 4"))) as server:
        assert ask(judge(tmp_path, server), pictures) == [Reply(text="Score: 4")]


def test_an_address_that_leads_in_circles_is_no_reply(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    with served(lambda request: request.reply(307, b"", Location="/v1/round")) as server:
        (reply,) = ask(judge(tmp_path, server, attempts=1, timeout_seconds=60), pictures)
    assert "the connection failed" in reply.error


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_no_permission_and_no_model_stop_at_once_and_keep_what_was_answered(
    tmp_path: Path, pictures: tuple[Path, Path], status: int
) -> None:
    refusing = says({"error": {"message": "no"}}, status)
    with served(in_turn(says(completion("Score: 4")), refusing)) as server:
        with pytest.raises(StageFailed, match=f"status {status}") as error:
            ask(judge(tmp_path, server, concurrency=1), pictures, 4)
        assert error.value.exit_code == EXIT_STAGE_FAILED
        assert len(server.paths) == 2
    with served(says(completion("Score: 5"))) as server:
        replies = ask(judge(tmp_path, server), pictures, 4)
        assert [reply.text for reply in replies] == ["Score: 4", *["Score: 5"] * 3]
        assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("status", "code"), [(400, "model_not_found"), (500, "model_not_found"), (429, "insufficient_quota")]
)
def test_codes_that_say_going_on_is_pointless_stop(
    tmp_path: Path, pictures: tuple[Path, Path], status: int, code: str
) -> None:
    with (
        served(says({"error": {"message": "no", "code": code}}, status)) as server,
        pytest.raises(StageFailed, match=r"no such model|quota"),
    ):
        ask(judge(tmp_path, server), pictures)
    assert len(server.paths) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_concerns_itself_alone(tmp_path: Path, pictures: tuple[Path, Path], status: int) -> None:
    """Such as a content filter that dislikes one picture."""
    with served(in_turn(says({"error": {"message": "filtered"}}, status), says(completion()))) as server:
        first, second = ask(judge(tmp_path, server, concurrency=1), pictures, 2)
        assert len(server.paths) == 2
    assert "filtered" in first.error
    assert second.text == "Score: 4"


@pytest.mark.parametrize(
    "answer",
    [
        completion(None, message={"refusal": "I cannot judge people"}),
        completion("I cannot judge people", choice={"finish_reason": "content_filter"}),
    ],
)
def test_a_declared_refusal_is_no_reply(tmp_path: Path, pictures: tuple[Path, Path], answer: dict[str, Any]) -> None:
    with served(says(answer)) as server:
        (reply,) = ask(judge(tmp_path, server), pictures)
    assert reply.text == ""
    assert reply.error == "the judge refused: I cannot judge people"


@pytest.mark.parametrize("text", ["I'm sorry, I can't.", '{"score": [NaN, 11]}', "\x00\u202e<script>", "\n4\n"])
def test_words_are_handed_on_as_they_are(tmp_path: Path, pictures: tuple[Path, Path], text: str) -> None:
    """What they are worth is for the rules to say."""
    with served(says(completion(text))) as server:
        assert ask(judge(tmp_path, server), pictures) == [Reply(text=text)]


def test_half_a_surrogate_pair_can_be_written_down(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    body = json.dumps(completion("X")).replace('"X"', '"4 \\ud800"').encode()
    with served(says(body)) as server:
        (reply,) = ask(judge(tmp_path, server), pictures)
    assert reply.text == "4 ?"


def test_retry_after_is_obeyed(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    with served(in_turn(says({}, 429, Retry_After="1"), says(completion()))) as server:
        began = time.monotonic()
        assert ask(judge(tmp_path, server), pictures)[0].text
        assert 1.0 <= time.monotonic() - began < 10.0


def test_no_pause_is_longer_than_the_longest(
    tmp_path: Path, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "LONGEST_PAUSE_SECONDS", 0.1)
    with served(says({}, 429, Retry_After="86400")) as server:
        began = time.monotonic()
        assert ask(judge(tmp_path, server, attempts=4), pictures)[0].error
        assert time.monotonic() - began < 10 * (TIMEOUT_SECONDS + 0.1)


@pytest.mark.parametrize("header", ["", "soon", "nan", "inf", "-5", "Thu, 99 Foo 2026", "9" * 400])
def test_a_senseless_retry_after_is_ignored(header: str) -> None:
    assert retry_after(header) == 0.0


def test_retry_after_may_be_a_date() -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert 25 < retry_after(format_datetime(moment, usegmt=True)) <= 30


def test_waiting_is_bounded_by_attempts_and_timeout(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    with served(drips) as server:
        began = time.monotonic()
        ask(judge(tmp_path, server, attempts=2), pictures, 3)
        assert time.monotonic() - began < 2 * (TIMEOUT_SECONDS + 1)


def test_no_more_requests_at_once_than_allowed(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    under_way: list[int] = [0]
    most: list[int] = [0]

    def handle(request: Request) -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        time.sleep(0.05)
        under_way[0] -= 1
        request.reply(200, json.dumps(completion()).encode())

    with served(handle) as server:
        ask(judge(tmp_path, server, concurrency=3), pictures, 12)
    assert most[0] == 3


def test_a_rerun_costs_nothing_and_a_repeated_ask_is_a_new_one(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    answers = iter(f"Score: {i}" for i in range(9))
    with served(lambda request: says(completion(next(answers)))(request)) as server:
        for _ in range(2):
            assert ask(judge(tmp_path, server), pictures)[0].text == "Score: 0"
        sample, source = pictures
        again = task(sample, text_question("rate 0"), source, ask=1)
        assert judge(tmp_path, server).answer([again])[0].text == "Score: 1"
        assert ask(judge(tmp_path, server, date="2026-01-03"), pictures)[0].text == "Score: 2"
        assert ask(judge(tmp_path, server, model="judge-2"), pictures)[0].text == "Score: 3"
        save_picture(sample, "green")
        assert ask(judge(tmp_path, server), pictures)[0].text == "Score: 4"
        assert len(server.paths) == 5


def test_a_damaged_kept_reply_is_asked_for_again(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    with served(says(completion())) as server:
        ask(judge(tmp_path, server), pictures)
        (kept,) = (tmp_path / "cache").rglob("*.json")
        for damage in ("", "{", "[]", '{"key": "other", "text": "Score: 1"}', '{"text": 4}'):
            kept.write_text(damage)
            assert ask(judge(tmp_path, server), pictures)[0].text == "Score: 4"


def test_the_key_is_sent_and_written_nowhere(
    tmp_path: Path, pictures: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = in_turn(
        says({"error": {"message": f"bad key {KEY}"}}, 500),
        says(f"<html>{KEY}</html>".encode()),
        says(completion(f"your key is {KEY}")),
        says(completion(None, message={"refusal": f"not with {KEY}"})),
        says({"error": {"message": f"wrong {KEY}"}}, 401),
    )
    with served(echo) as server:
        asked = judge(tmp_path, server, concurrency=1)
        replies = ask(asked, pictures, 2)
        with pytest.raises(StageFailed) as error:
            ask(asked, pictures, 3)
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert replies[0].text == "your key is [key]"
    seen = [reply.model_dump_json() for reply in replies] + [str(error.value), caplog.text]
    seen += [path.read_text() for path in tmp_path.rglob("*.json")] + [asked.identity.model_dump_json()]
    assert not [text for text in seen if KEY in text]


def test_a_redirect_to_another_host_does_not_get_the_key(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    with served(says(completion())) as other:
        target = other.url.replace("127.0.0.1", "localhost") + "/v1/chat/completions"
        with served(says(b"", 307, Location=target)) as server:
            ask(judge(tmp_path, server, attempts=1), pictures)
        assert not [headers for headers in other.headers if KEY in json.dumps(headers)]


def test_a_placeholder_for_a_key_does_not_change_the_judges_words(
    tmp_path: Path, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "EMPTY")
    with served(says(completion("the room is EMPTY"))) as server:
        assert ask(judge(tmp_path, server), pictures)[0].text == "the room is EMPTY"


# --- budget -----------------------------------------------------------------------------------------------------------


def test_the_most_requests_are_never_exceeded_and_answers_are_kept(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    with served(says(completion())) as server:
        for _ in range(2):
            with pytest.raises(StageFailed, match="3 requests were made"):
                ask(judge(tmp_path, server, max_requests=3), pictures, 5)
            assert len(server.paths) == 3
        assert len(ask(judge(tmp_path, server, max_requests=5), pictures, 5)) == 5
        assert len(server.paths) == 5


def test_repeated_attempts_count_as_requests(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    with served(says({}, 500)) as server, pytest.raises(StageFailed, match="2 requests were made"):
        ask(judge(tmp_path, server, max_requests=2, attempts=5), pictures)
    assert len(server.paths) == 2


PRICES: dict[str, Any] = {"dollars_per_million_input_tokens": 1e4, "dollars_per_million_output_tokens": 1e5}
"""A reply of 100 and 10 tokens costs 2 dollars."""


def test_the_most_dollars_are_never_exceeded(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    """Before asking, a request is taken to cost what it can: two pictures, its words, the longest usual reply."""
    upper = (6 + 2 * 1500) * 1e-2 + 1400 * 1e-1
    with served(says(completion())) as server:
        with pytest.raises(StageFailed, match=r"about 6\.00 dollars are spent"):
            ask(judge(tmp_path, server, max_cost_dollars=upper + 4.5, concurrency=1, **PRICES), pictures, 9)
        assert len(server.paths) == 3


@pytest.mark.parametrize("counted", [("many", True), (10**400, 1), (-1, 1), (None, None)])
def test_replies_without_a_count_cost_what_was_expected(
    tmp_path: Path, pictures: tuple[Path, Path], counted: tuple[Any, Any]
) -> None:
    upper = (6 + 2 * 1500) * 1e-2 + 1400 * 1e-1
    with (
        served(says(completion(usage={"prompt_tokens": counted[0], "completion_tokens": counted[1]}))) as server,
        pytest.raises(StageFailed, match="dollars are spent"),
    ):
        ask(judge(tmp_path, server, max_cost_dollars=1.5 * upper, concurrency=1, **PRICES), pictures, 9)
    assert len(server.paths) == 1


def test_a_dead_endpoint_costs_nothing(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    with served(says(completion())) as gone:
        pass
    asked = judge(tmp_path, gone, max_cost_dollars=500.0, attempts=3, **PRICES)
    assert all("connection failed" in reply.error for reply in ask(asked, pictures, 4))
    assert asked._endpoint._budget.dollars == 0.0
