"""From a judge's reply to the score of one edit, once as upstream reads it and once strictly.

Upstream: every line that splits at colon-blank into two parts, the second all digits, is averaged, whatever its label
or value; the mean is rounded to two decimals. Strict: the three labels that the judge's text asks for, each once, each
with one digit 1 to 5; emphasis marks, bullets and further lines do not matter. That the second and third score must not
be above the first stands in the judge's text only; upstream does not enforce it and neither do we.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from evaluation.aggregate import LARGEST_SCORE, plain_mean
from evaluation.records import Arithmetic, Scored, Unscored

RATING = "rating"
SEPARATOR = ": "
DECIMALS = 2
"""Upstream rounds item, type and overall scores."""
NO_RATING = "the reply holds no rating"

LABELS: dict[str, tuple[str, str, str]] = {
    "replace": ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Integrity"),
    "add": ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Coherence"),
    "adjust": ("Prompt Compliance", "Visual Seamlessness", "Physical & Detail Fidelity"),
    "remove": ("Prompt Compliance", "Visual Naturalness", "Physical & Detail Integrity"),
    "style": ("Style Fidelity", "Content Preservation", "Rendering Quality"),
    "action": ("Action Fidelity", "Identity Preservation", "Visual & Anatomical Coherence"),
    "extract": ("Object Identity", "Mask Precision", "Visual Quality"),
    "background": ("Instruction Compliance", "Visual Seamlessness", "Physical Consistency"),
    "compose": ("Instruction Compliance", "Visual Naturalness", "Physical Consistency & Fine Detail"),
}
"""Edit type -> the labels that its judge text asks for."""
EDIT_TYPES = tuple(LABELS)

_EMPHASIS = re.compile(r"[*_`]")
_BULLET = re.compile(r"^\s*(?:[-•#>]+|\d+[.)])\s*")
_RATING_LINE = re.compile(r"^(?P<label>.+?)\s*:\s*(?P<value>[1-5])$", re.ASCII)


def score_reply(reply: Any, edit_type: str | None, arithmetic: Arithmetic) -> Scored | Unscored:
    """The score of one edit.

    Args:
        reply: the judge's text; anything else is a recorded failure.
        edit_type: None where the item is unknown; strict reading then accepts the labels of any type.
    """
    if not isinstance(reply, str):
        return Unscored(reason="there is no reply", evidence={"reply": reply})
    return _upstream(reply) if arithmetic == "parity" else _strict(reply, edit_type)


def _upstream(reply: str) -> Scored | Unscored:
    values = []
    for line in reply.splitlines():
        parts = line.strip().split(SEPARATOR)
        if len(parts) == 2 and parts[1].isdigit():
            try:
                values.append(int(parts[1]))
            except ValueError:
                return Unscored(reason=f"upstream cannot read the digit {parts[1]!r}", evidence={"reply": reply})
    if not values:
        return Unscored(reason=NO_RATING, evidence={"reply": reply})
    if max(values) > LARGEST_SCORE:
        return Unscored(reason="upstream cannot average numbers of this size", evidence={"reply": reply})
    rating = round(plain_mean(values), DECIMALS)
    return Scored(values={RATING: rating}, evidence={"reply": reply, "ratings": values})


def _strict(reply: str, edit_type: str | None) -> Scored | Unscored:
    wanted = [LABELS[edit_type]] if edit_type is not None else list(dict.fromkeys(LABELS.values()))
    ratings = read_ratings(reply, wanted)
    if isinstance(ratings, str):
        return Unscored(reason=ratings, evidence={"reply": reply})
    values = list(ratings.values())
    return Scored(values={RATING: plain_mean(values)}, evidence={"reply": reply, "ratings": ratings})


def read_ratings(reply: str, wanted: Sequence[Sequence[str]]) -> dict[str, int] | str:
    """Label -> rating for one of the ``wanted`` sets of labels, or the reason why the reply cannot be read strictly."""
    found = [(match["label"], int(match["value"])) for match in map(_match, reply.splitlines()) if match]
    for labels in wanted:
        ratings = [(label, value) for label, value in found if label in labels]
        if sorted(label for label, _ in ratings) == sorted(labels):
            return dict(ratings)
    return f"expected one rating of 1 to 5 for each of {_options(wanted)}"


def _match(line: str) -> re.Match[str] | None:
    return _RATING_LINE.match(_BULLET.sub("", _EMPHASIS.sub("", line)).strip())


def _options(wanted: Sequence[Sequence[str]]) -> str:
    return ", ".join(wanted[0]) if len(wanted) == 1 else "the three labels of an edit type"
