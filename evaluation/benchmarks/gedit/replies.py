"""What upstream's parser makes of a judge's reply (adapted there from VIEScore), and what the strict one accepts.

Upstream, in this order: the text between exactly two delimiters, else from the first to the last brace; without braces
a bare pair of whole numbers, or a single one from 0 to 10, but only in the first round: later a random number takes its
place. Broken JSON is repaired if unquoted keys and a bare number are all that is wrong with it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

DELIMITER = "||V^=^V||"
RATE_LIMITED = "rate_limit_exceeded"
NOT_JSON = (ValueError, RecursionError)
"""What reading a reply as JSON can raise; the second for thousands of nested brackets."""
LOWEST, HIGHEST = 0, 10
SCORES_PER_CALL = 2

_PAIR = re.compile(r"\[\d+, ?\d+\]")
_BARE_KEY = re.compile(r"(\w+):")
_FIELD = re.compile(r"(?P<key>\".*?\"):(?P<value>.*?)(?P<end>[,}])")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_WORD = re.compile(r"true|false|null", re.IGNORECASE)


@dataclass(frozen=True)
class Parsed:
    """A reply in which upstream finds something. ``score`` is whatever stands there, of any type."""

    has_score: bool
    score: Any = None


@dataclass(frozen=True)
class RateLimited:
    """The literal reply by which upstream's own wrapper says that there was none."""


@dataclass(frozen=True)
class Guess:
    """Upstream puts a random number in place of this reply."""


@dataclass(frozen=True)
class Unparsable:
    """Upstream asks both calls again."""


class UpstreamCrash(ValueError):
    """Upstream's parser ends with an exception on this reply."""


Reading = Parsed | RateLimited | Guess | Unparsable


def read_as_upstream(reply: str, first_round: bool) -> Reading:
    """Upstream's reading of one reply. Raises UpstreamCrash where upstream's parser itself crashes."""
    if reply == RATE_LIMITED:
        return RateLimited()
    body = _between_delimiters(reply)
    if body is None:
        start, end = reply.find("{"), reply.rfind("}") + 1
        if start == -1 or end == 0:
            return _bare(reply) if first_round else Guess()
        body = reply[start:end]
    return _from_json(body.strip().replace("\n", ""))


def _between_delimiters(reply: str) -> str | None:
    if reply.count(DELIMITER) != 2:
        return None
    return reply.split(DELIMITER)[1]


def _bare(reply: str) -> Reading:
    pair = reply[max(reply.find("["), 0) : reply.rfind("]") + 1]
    if _PAIR.fullmatch(pair):
        try:
            return Parsed(True, json.loads(pair))
        except ValueError as error:
            raise UpstreamCrash(f"digits that are no JSON: {pair}") from error
    try:
        number = int(reply)
    except ValueError:
        return Unparsable()
    return Parsed(True, [number]) if LOWEST <= number <= HIGHEST else Unparsable()


def _from_json(text: str) -> Reading:
    try:
        content = json.loads(text)
    except NOT_JSON:
        content = None
    if isinstance(content, dict) and "score" in content:
        score = content["score"]
        return Parsed(True, score if isinstance(score, list) else [score])
    try:
        repaired = json.loads(_repair(text))
    except NOT_JSON:
        return Unparsable()
    if isinstance(repaired, dict) and "score" in repaired:
        return Parsed(True, repaired["score"])
    return Parsed(False)


def _repair(text: str) -> str:
    """Quote bare keys; then, up to the next comma or brace, put numbers into a list and quotes around the rest."""

    def value_of(match: re.Match[str]) -> str:
        value = match["value"].strip()
        if _NUMBER.fullmatch(value):
            value = f"[{value}]"
        elif not _WORD.fullmatch(value):
            value = f'"{value}"'
        return f"{match['key']}: {value}{match['end']}"

    return _FIELD.sub(value_of, _BARE_KEY.sub(r'"\1":', text))


def read_strictly(reply: str) -> tuple[int, int] | str:
    """The two whole numbers from 0 to 10 that the judge's text asks for, or the reason why they are not there."""
    try:
        reading = read_as_upstream(reply, first_round=True)
    except UpstreamCrash:
        reading = Unparsable()
    if not isinstance(reading, Parsed) or not reading.has_score:
        return "the reply holds no score"
    score = reading.score
    if not isinstance(score, list) or len(score) != SCORES_PER_CALL:
        return f"expected {SCORES_PER_CALL} scores"
    if any(type(number) is not int or not LOWEST <= number <= HIGHEST for number in score):
        return f"expected whole numbers from {LOWEST} to {HIGHEST}"
    return score[0], score[1]
