"""Questions to an OpenAI-compatible endpoint: bounded concurrency, patience with a limit, and nothing invented.

Every request ends as ``Spoken`` (the judge's words, whatever they are worth), as ``Silent`` (why there are none), or
stops the whole: no permission, no such model, no budget. Total wait per request is at most
attempts x (timeout + LONGEST_PAUSE_SECONDS): each attempt is cut at the timeout as a whole, also where a server drips.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.judges.budget import Budget, Usage
from reca_core.contracts.errors import StageFailed

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

FIRST_PAUSE_SECONDS = 1.0
"""Doubled after every attempt, with jitter so that requests do not come back together."""
LONGEST_PAUSE_SECONDS = 60.0
"""Also where Retry-After asks for more."""
REPLY_BYTES = 4 * 1024 * 1024
"""No judge says more; a longer body is cut off and counts as no reply."""
BUDGET_POLL_SECONDS = 0.05
QUOTED_CHARACTERS = 300
"""How much of a server's words goes into a reason."""
SECRET_LENGTH = 12
"""Shorter keys are placeholders such as EMPTY, which may occur in a judge's words."""
NO_KEY = "unused"
FINAL = (400, 405, 411, 413, 414, 415, 422)
"""The request itself is refused: this picture or text, not the connection."""
STOPPING = {
    401: "no permission",
    402: "the account must be paid",
    403: "no permission",
    404: "no such model or address",
}
STOPPING_CODES = {"model_not_found": "no such model", "insufficient_quota": "the account's quota is used up"}
TALKATIVE_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
"""At debug level some of them write headers, which hold the key."""


@dataclass(frozen=True)
class ChatRequest:
    """One user message."""

    model: str
    content: list[dict[str, Any]]
    temperature: float | None
    """None: not sent, the endpoint's default."""
    max_tokens: int | None
    """None: not sent."""
    answers_as: str = ""
    """The model that must say it answered; empty accepts any."""

    def payload(self) -> dict[str, Any]:
        """What is sent."""
        sent: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": self.content}]}
        if self.temperature is not None:
            sent["temperature"] = self.temperature
        if self.max_tokens is not None:
            sent["max_tokens"] = self.max_tokens
        return sent


@dataclass(frozen=True)
class Spoken:
    """The judge's words."""

    text: str


@dataclass(frozen=True)
class Silent:
    """Why there are none."""

    reason: str


Outcome = Spoken | Silent


@dataclass(frozen=True)
class Patience:
    """How long and how often."""

    concurrency: int
    timeout_seconds: float
    attempts: int
    first_pause_seconds: float = field(default_factory=lambda: FIRST_PAUSE_SECONDS)


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    choices: list[_Choice] = Field(min_length=1)
    model: str = ""
    usage: Any = None


class _Passing(Exception):
    """A fault that another attempt may not meet."""

    def __init__(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class Endpoint:
    """One endpoint with one key."""

    def __init__(self, url: str, key: str, patience: Patience, budget: Budget) -> None:
        self._url = url
        self._key = key
        self._patience = patience
        self._budget = budget
        self._stop: StageFailed | None = None
        for name in TALKATIVE_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)

    def ask_all(self, requests: Sequence[ChatRequest], heard: Callable[[int, Spoken], None]) -> list[Outcome]:
        """One outcome per request, in order.

        Args:
            heard: called with position and words as soon as a reply is there, so that a kill loses none.
        Raises: StageFailed where going on is pointless, after requests under way have ended.
        """
        try:
            outcomes = asyncio.run(self._ask_all(requests, heard))
        finally:
            self._budget.save()
        if self._stop is not None:
            raise self._stop
        return outcomes

    async def _ask_all(self, requests: Sequence[ChatRequest], heard: Callable[[int, Spoken], None]) -> list[Outcome]:
        from openai import AsyncOpenAI

        gate = asyncio.Semaphore(self._patience.concurrency)
        timeout = self._patience.timeout_seconds
        key = self._key or NO_KEY

        async def one(place: int, request: ChatRequest) -> Outcome:
            async with gate:
                outcome = await self._ask(client, request)
            if isinstance(outcome, Spoken):
                heard(place, outcome)
            return outcome

        async with AsyncOpenAI(api_key=key, base_url=self._url, max_retries=0, timeout=timeout) as client:
            return list(await asyncio.gather(*(one(place, request) for place, request in enumerate(requests))))

    async def _ask(self, client: AsyncOpenAI, request: ChatRequest) -> Outcome:
        """Try until there is a reply, a final refusal, or no attempt left."""
        reason = "not asked: the judging was stopped"
        for attempt in range(self._patience.attempts):
            if self._stop is not None:
                break
            try:
                return await self._attempt(client, request)
            except StageFailed as error:
                self._stop = error
                return Silent(error.fact)
            except _Passing as error:
                reason = self.redacted(str(error))
                if attempt + 1 < self._patience.attempts:
                    await asyncio.sleep(self._pause(attempt, error.retry_after_seconds))
        return Silent(reason)

    def _pause(self, attempt: int, retry_after_seconds: float) -> float:
        doubled = self._patience.first_pause_seconds * 2**attempt * random.uniform(0.5, 1.0)
        return min(max(doubled, retry_after_seconds), LONGEST_PAUSE_SECONDS)

    async def _attempt(self, client: AsyncOpenAI, request: ChatRequest) -> Outcome:
        import httpx2
        from openai import APIConnectionError, APIStatusError

        while (reserved := self._budget.reserve(request.content, request.max_tokens)) is None:
            await asyncio.sleep(BUDGET_POLL_SECONDS)
        usage: Usage | None = None
        try:
            async with asyncio.timeout(self._patience.timeout_seconds):
                body = await _body(client, request)
            outcome, usage = self._outcome(body, request)
            return outcome
        except APIStatusError as error:
            usage = Usage(0, 0)
            return self._refused(error)
        except TimeoutError as error:
            raise _Passing(f"no reply within {self._patience.timeout_seconds:g} s") from error
        except (APIConnectionError, httpx2.HTTPError) as error:
            if isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout)):
                usage = Usage(0, 0)  # nothing was sent, so nothing is charged
            raise _Passing(f"the connection failed: {type(error).__name__}: {error}") from error
        finally:
            self._budget.settle(reserved, usage)

    def _outcome(self, body: bytes, request: ChatRequest) -> tuple[Outcome, Usage | None]:
        try:
            completion = _Completion.model_validate(json.loads(body, parse_constant=_no_constant))
        except ValidationError as error:
            places = ", ".join(".".join(map(str, fault["loc"])) or "reply" for fault in error.errors())
            raise _Passing(f"the reply has another form at {places}") from error
        except (ValueError, RecursionError) as error:
            raise _Passing(f"the reply is no JSON: {body[:QUOTED_CHARACTERS].decode(errors='replace')!r}") from error
        self._same_model(request.answers_as, completion.model)
        choice = completion.choices[0]
        usage = Usage.read(completion.usage)
        text = _printable(choice.message.content or "")
        if choice.message.refusal or choice.finish_reason == "content_filter":
            words = _printable(choice.message.refusal or text)
            return Silent(self.redacted(f"the judge refused: {words[:QUOTED_CHARACTERS]}")), usage
        if not text.strip():
            raise _Passing("the judge said nothing")
        return Spoken(self.redacted(text)), usage

    def _same_model(self, wanted: str, found: str) -> None:
        if wanted and found.split("/")[-1] != wanted:
            raise StageFailed(
                f"asked for {wanted}, the endpoint answered as {self.redacted(_printable(found))!r}",
                field="judge.model",
                remedy="use an endpoint that serves the paper's model, or --protocol default",
            )

    def _refused(self, error: APIStatusError) -> Outcome:
        """What an error status means. Raises StageFailed or _Passing unless it concerns this request alone."""
        status, words = error.status_code, _printable(self.redacted(str(error.message)))[:QUOTED_CHARACTERS]
        why = STOPPING_CODES.get(str(error.code)) or STOPPING.get(status)
        if why:
            raise StageFailed(
                f"{why} (status {status}): {words}",
                field="judge",
                remedy="set OPENAI_API_KEY, --judge-model and --judge-url; what was answered is kept",
            )
        if status in FINAL:
            return Silent(f"the endpoint refuses this request (status {status}): {words}")
        raise _Passing(f"status {status}: {words}", retry_after(error.response.headers.get("retry-after", "")))

    def redacted(self, text: str) -> str:
        """``text`` without the key."""
        return text.replace(self._key, "[key]") if len(self._key) >= SECRET_LENGTH else text


async def _body(client: AsyncOpenAI, request: ChatRequest) -> bytes:
    content = bytearray()
    async with client.chat.completions.with_streaming_response.create(**request.payload()) as response:
        async for chunk in response.iter_bytes():
            content += chunk
            if len(content) > REPLY_BYTES:
                raise _Passing(f"the reply is longer than {REPLY_BYTES} bytes")
    return bytes(content)


def retry_after(header: str) -> float:
    """Seconds that a Retry-After header asks for, in either of its forms; 0 where it says nothing sensible."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = (moment - datetime.datetime.now(moment.tzinfo)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _printable(text: str) -> str:
    """``text`` as UTF-8 can hold it: JSON may spell half a surrogate pair."""
    return text.encode(errors="replace").decode()
