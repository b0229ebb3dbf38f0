"""One question to an endpoint that behaves as a test wants: what servers say, and how a judge asks them."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.judges.vlm_endpoint import EndpointJudge
from evaluation.records import Reply
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.judging import place, task, text_question
from tests.evaluation.serving import Request, Served

TIMEOUT_SECONDS = 0.4
Handle = Callable[[Request], None]


def completion(text: Any = "Score: 4", **other: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **other.pop("message", {})}
    choice = {"index": 0, "finish_reason": "stop", "message": message, **other.pop("choice", {})}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return {"id": "1", "object": "chat.completion", "model": "judge-1", "choices": [choice], "usage": usage, **other}


def says(value: Any, status: int = 200, **headers: str) -> Handle:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda request: request.reply(status, content, **headers)


def in_turn(*handles: Handle) -> Handle:
    """One after another; the last one for ever."""
    left = list(handles)

    def handle(request: Request) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return handle


def hangs(request: Request) -> None:
    time.sleep(TIMEOUT_SECONDS * 3)


def drips(request: Request) -> None:
    """A byte now and then: no single read takes long, the whole would take for ever."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    for _ in range(30):
        request.wfile.write(b" ")
        request.wfile.flush()
        time.sleep(TIMEOUT_SECONDS / 8)


def closes_mid_reply(request: Request) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", "500")
    request.end_headers()
    request.wfile.write(b'{"choices": [{"mess')
    request.close_connection = True


def closes_at_once(request: Request) -> None:
    request.close_connection = True


def raw(request: Request, content: bytes) -> None:
    request.wfile.write(content)
    request.close_connection = True


BOMB = gzip.compress(b" " * 8_000_000)


def judge(folder: Path, server: Served, benchmark: str = "imgedit", **settings: Any) -> EndpointJudge:
    given = {"judge": "openai", "url": f"{server.url}/v1", "model": "judge-1", "attempts": 3, "date": "2026-01-02"}
    wanted = JudgeSettings.model_validate({**given, "timeout_seconds": TIMEOUT_SECONDS, **settings})
    return EndpointJudge.open(place(folder, benchmark), wanted)


def ask(asked: EndpointJudge, pictures: tuple[Path, Path], count: int = 1) -> list[Reply]:
    sample, source = pictures
    return asked.answer([task(sample, text_question(f"rate {i}"), source) for i in range(count)])
