"""The judge ``openai``: any OpenAI-compatible endpoint (OpenAI, vLLM, transformers serve) through the openai client.

``--protocol published`` asks the paper's model without a temperature, as upstream did; the default asks at
temperature 0. Model, protocol and date are part of the identity and of every kept reply. The key comes from
``OPENAI_API_KEY``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from evaluation.benchmark import JudgeTask
from evaluation.judges.budget import Budget
from evaluation.judges.endpoint import ChatRequest, Endpoint, Outcome, Patience, Spoken
from evaluation.judges.opening import JudgePlace, judging_date
from evaluation.judges.reply_cache import ReplyCache
from evaluation.judges.vlm import STYLES_VERSION, Style, content, reply, style_of
from evaluation.records import JudgeIdentity, Reply
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.judging import JudgeSettings

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
BATCHES_PER_SLOT = 4
"""Tasks per call and slot: enough that slots are rarely idle, few enough that little is under way at a kill."""
GREEDY = 0.0
PUBLISHED = "published"


class EndpointJudge:
    """Asks in words, sends pictures inline."""

    def __init__(self, endpoint: Endpoint, identity: JudgeIdentity, style: Style, cache: ReplyCache) -> None:
        self.identity = identity
        self.batch_size = BATCHES_PER_SLOT
        self._endpoint = endpoint
        self._style = style
        self._cache = cache

    @classmethod
    def open(cls, place: JudgePlace, settings: JudgeSettings) -> EndpointJudge:
        """Check everything that can be checked without asking.

        Raises: BadInput for a benchmark that is not asked in words, a model that the protocol does not allow or a url
            with a password; PrerequisiteMissing for a missing package or key.
        """
        style = style_of(place.benchmark, "openai")
        if importlib.util.find_spec("openai") is None:
            raise PrerequisiteMissing(
                "the openai client is not installed", field="judge.judge", remedy='pip install "reca-pipeline[judges]"'
            )
        url = settings.url or OPENAI_URL
        model = _model(place.benchmark, style, settings)
        identity = JudgeIdentity(
            name="openai",
            model=model,
            settings={
                "protocol": settings.protocol,
                "date": judging_date(place, settings),
                "host": _host(url),
                "requests_version": str(STYLES_VERSION),
            },
        )
        patience = Patience(settings.concurrency, settings.timeout_seconds, settings.attempts)
        endpoint = Endpoint(url, _key(url), patience, Budget(settings, place.directory))
        judge = cls(endpoint, identity, style, ReplyCache(place.cache, place.occasion))
        judge.batch_size = BATCHES_PER_SLOT * settings.concurrency
        return judge

    def answer(self, tasks: Sequence[JudgeTask]) -> list[Reply]:
        """One reply per task; what was answered before is taken from the kept replies.

        Raises StageFailed for no permission, a wrong model or a used-up budget; replies heard by then are kept.
        """
        replies: dict[int, Reply] = {}
        open_requests: dict[int, ChatRequest] = {}
        keys: dict[int, str] = {}
        for place, task in enumerate(tasks):
            parts = content(task, self._style)
            if isinstance(parts, Reply):
                replies[place] = parts
                continue
            request = self._request(parts)
            keys[place] = self._key_of(request, task.ask)
            kept = self._cache.get(keys[place])
            if kept is None:
                open_requests[place] = request
            else:
                replies[place] = reply(kept, self._style)
        for place, outcome in self._asked(open_requests, keys).items():
            replies[place] = (
                reply(outcome.text, self._style) if isinstance(outcome, Spoken) else Reply(error=outcome.reason)
            )
        return [replies[place] for place in range(len(tasks))]

    def _asked(self, requests: dict[int, ChatRequest], keys: dict[int, str]) -> dict[int, Outcome]:
        if not requests:
            return {}
        places = list(requests)

        def heard(position: int, spoken: Spoken) -> None:
            self._cache.put(keys[places[position]], spoken.text)

        return dict(zip(places, self._endpoint.ask_all([requests[place] for place in places], heard), strict=True))

    def _request(self, parts: list[dict[str, object]]) -> ChatRequest:
        published = self.identity.settings["protocol"] == PUBLISHED
        return ChatRequest(
            model=self.identity.model,
            content=parts,
            temperature=None if published else GREEDY,
            max_tokens=self._style.max_tokens,
            answers_as=self.identity.model if published else "",
        )

    def _key_of(self, request: ChatRequest, ask: int) -> str:
        return self._cache.key({"judge": self.identity.model_dump(mode="json"), "sent": request.payload(), "ask": ask})


def _model(benchmark: str, style: Style, settings: JudgeSettings) -> str:
    """The model to ask. Raises BadInput where the protocol or the endpoint does not determine one."""
    published = style.published_model
    if settings.protocol == PUBLISHED:
        if not published:
            raise BadInput(f"no published number of {benchmark} was made with such a judge", field="judge.protocol")
        if settings.model not in ("", published):
            raise BadInput(f"{settings.model} is not the paper's model", field="judge.model", choices=(published,))
        return published
    if settings.model:
        return settings.model
    if settings.url or not published:
        raise BadInput("the endpoint needs the name of a model", field="judge.model", remedy="--judge-model NAME")
    return published


def _host(url: str) -> str:
    """The host without port: a comparison may meet the same server on another port, never another provider."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{url!r} is no http address", field="judge.url", remedy="https://HOST/v1")
    if parts.username or parts.password:
        raise BadInput("an address must not hold a password", field="judge.url", remedy=f"export {KEY_VARIABLE}=...")
    return parts.hostname


def _key(url: str) -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and url == OPENAI_URL:
        raise PrerequisiteMissing("is not set", field=KEY_VARIABLE, remedy=f"export {KEY_VARIABLE}=...")
    if any(not character.isascii() or character.isspace() for character in key):
        raise BadInput("holds characters that no key has", field=KEY_VARIABLE)
    return key
