"""From the replies of both calls to SC, PQ and O = sqrt(SC * PQ), each call counting its smallest score.

Upstream repeats *both* calls while either is unparsable, puts random numbers in place of words from round two on, and
never stops on broken JSON. Parity repeats both calls at most MAX_ROUNDS times and never guesses: where upstream would
guess, crash or go on, the picture is unscored. Corrected repeats only the call that failed and is strict about numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from evaluation.aggregate import LARGEST_SCORE
from evaluation.benchmarks.gedit.replies import (
    Guess,
    Parsed,
    RateLimited,
    Reading,
    Unparsable,
    UpstreamCrash,
    read_as_upstream,
    read_strictly,
)
from evaluation.records import Arithmetic, Scored, Unscored

MAX_ROUNDS = 3
CALLS = ("SC", "PQ")
OVERALL = "O"


def score_replies(sc: Sequence[str], pq: Sequence[str], arithmetic: Arithmetic) -> Scored | Unscored | None:
    """The score of one picture, or None while more replies are needed.

    Args:
        sc, pq: replies to the two calls, in the order of asking; later ones than needed are not looked at.
    """
    return _parity(sc, pq) if arithmetic == "parity" else _corrected(sc, pq)


def _parity(sc: Sequence[str], pq: Sequence[str]) -> Scored | Unscored | None:
    for number, replies in enumerate(zip(sc[:MAX_ROUNDS], pq[:MAX_ROUNDS], strict=False), 1):
        calls = {"judge_calls": len(CALLS) * number}
        try:
            readings = [read_as_upstream(reply, first_round=number == 1) for reply in replies]
        except UpstreamCrash as error:
            return Unscored(reason=f"upstream's parser crashes: {error}", evidence=calls)
        if any(isinstance(reading, Guess) for reading in readings):
            return Unscored(reason="upstream would put a random number here", evidence=calls)
        if not any(isinstance(reading, Unparsable) for reading in readings):
            return _combine(readings, calls)
    if min(len(sc), len(pq)) < MAX_ROUNDS:
        return None
    return Unscored(reason=f"unparsable in {MAX_ROUNDS} rounds", evidence={"judge_calls": len(CALLS) * MAX_ROUNDS})


def _combine(readings: Sequence[Reading], evidence: dict[str, Any]) -> Scored | Unscored:
    """The minimum of each call. Upstream checks no range and no type: what it can compute with is scored."""
    scores: list[float] = []
    for call, reading in zip(CALLS, readings, strict=True):
        if isinstance(reading, RateLimited):
            return Unscored(reason=f"{call}: the judge was rate limited", evidence=evidence)
        numbers = reading.score if isinstance(reading, Parsed) else None
        if not isinstance(numbers, list) or not numbers:
            return Unscored(reason=f"{call}: the reply holds no score", evidence=evidence)
        if not all(isinstance(number, int | float) for number in numbers):
            return Unscored(reason=f"{call}: a score is not a number", evidence=evidence)
        scores.append(min(numbers))
    return combine(scores[0], scores[1], evidence)


def combine(sc: float, pq: float, evidence: dict[str, Any]) -> Scored | Unscored:
    """O = sqrt(SC * PQ). Unscored where that is no finite number."""
    try:
        values = {"SC": float(sc), "PQ": float(pq), OVERALL: math.sqrt(sc * pq)}
    except (ValueError, OverflowError):
        return Unscored(reason="SC times PQ has no square root", evidence=evidence)
    if not all(abs(value) <= LARGEST_SCORE for value in values.values()):  # a NaN is not either
        return Unscored(reason="a score is not a finite number, or too large for one", evidence=evidence)
    return Scored(values=values, evidence=evidence)


def _corrected(sc: Sequence[str], pq: Sequence[str]) -> Scored | Unscored | None:
    found: list[int] = []
    reasons: list[str] = []
    asked, waiting = 0, False
    for call, replies in zip(CALLS, (sc, pq), strict=True):
        asks, reading = _first_strict(replies[:MAX_ROUNDS])
        asked += asks
        if isinstance(reading, tuple):
            found.append(min(reading))
        else:
            waiting = waiting or asks < MAX_ROUNDS
            reasons.append(f"{call}: {reading}")
    if waiting:
        return None
    evidence = {"judge_calls": asked}
    if reasons:
        return Unscored(reason="; ".join(reasons), evidence=evidence)
    return combine(found[0], found[1], evidence)


def _first_strict(replies: Sequence[str]) -> tuple[int, tuple[int, int] | str]:
    """How many replies were needed for a strict one, and that one, or the last reason why there is none."""
    reading: tuple[int, int] | str = "not asked yet"
    for number, reply in enumerate(replies, 1):
        reading = read_strictly(reply)
        if isinstance(reading, tuple):
            return number, reading
    return len(replies), reading


def calls_to_make(sc: Sequence[str], pq: Sequence[str]) -> list[str]:
    """Which calls are still needed so that both arithmetics can be reported: some of SC and PQ, or none."""
    needed = set()
    rounds = min(len(sc), len(pq))
    if score_replies(sc, pq, "parity") is None:
        needed |= {call for call, replies in zip(CALLS, (sc, pq), strict=True) if len(replies) == rounds}
    for call, replies in zip(CALLS, (sc, pq), strict=True):
        if len(replies) < MAX_ROUNDS and not any(isinstance(read_strictly(reply), tuple) for reply in replies):
            needed.add(call)
    return [call for call in CALLS if call in needed]
