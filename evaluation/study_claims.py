"""What a study shows: every claim of docs/tiny_protocol.md as one number with an interval, and the rule that judges it.

Pure: numbers of arms in, verdicts out. A claim about a difference is shown where its interval lies above 0, refuted
where it lies below, open otherwise; that understanding is kept is shown where the loss is surely smaller than
``KEPT_MARGIN``. An arm or row that was not measured makes a claim "not tested", never open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from evaluation.study import Distribution, Distributions, StudyRow
from reca_core.contracts.base import Record
from reca_core.contracts.world import FIRST_REPORTING_SEED

Verdict = Literal["shown", "refuted", "open", "not tested", "not judged"]
BASE, RECA, TUNED, STAGED = "base", "reca", "fine-tuning", "fine-tuning-then-reca"
WITHOUT_REPLAY, OWN_TOKENS, WITH_DRAWING = "reca-without-image-to-text", "reca-own-tokens", "reca-with-text-to-image"
WITH_NULL, NULL_ALONE = "reca-with-unconditional", "unconditional"
DRAWS, DENSE, UNDERSTANDS = "geneval.shapeworld", "dpg.shapeworld", "scenes.shapeworld"
OVERALL, EXACT_MATCH = "overall", "exact_match"
BINDING = {DRAWS: ("color_attr", "position", "counting"), DENSE: ("l1/attribute", "l1/relation", "l1/other")}
"""Rows about attributes, places and counts."""
KEPT_MARGIN = 0.02
"""Loss of image-to-text exact match that counts as none."""

Arms = Mapping[str, Mapping[str, Distributions]]
"""Arm -> benchmark -> row -> number."""


@dataclass(frozen=True)
class Claim:
    """One claim as a number."""

    letter: str
    text: str
    number: Callable[[Arms], Distribution]
    """Raises KeyError where an arm or row is missing."""
    margin: float = 0.0
    """What the number must surely exceed."""
    since: int = FIRST_REPORTING_SEED
    """First training seed of the studies that judge it: those before it raised the question."""


class ClaimVerdict(Record):
    """One line of the claim table."""

    letter: str
    claim: str
    measured: StudyRow | None
    """None where it was not tested."""
    verdict: Verdict


def _overall(arm: str, against: str, benchmark: str = DRAWS) -> Callable[[Arms], Distribution]:
    return lambda arms: arms[arm][benchmark][OVERALL] - arms[against][benchmark][OVERALL]


def _kept(arm: str, against: str) -> Callable[[Arms], Distribution]:
    return lambda arms: arms[arm][UNDERSTANDS][EXACT_MATCH] - arms[against][UNDERSTANDS][EXACT_MATCH]


def _binding_over_counting(arm: str, benchmark: str = DRAWS) -> Callable[[Arms], Distribution]:
    """The arm's mean gain on attributes and on places, less its gain on counting."""
    attributes, places, counts = BINDING[benchmark]

    def number(arms: Arms) -> Distribution:
        trained, base = arms[arm][benchmark], arms[BASE][benchmark]
        gains = {row: trained[row] - base[row] for row in (attributes, places, counts)}
        return gains[attributes].plus(gains[places], 0.5, 0.5) - gains[counts]

    return number


_dense = partial(Claim, since=1003)
"""What trainings 1000 to 1002 showed of dense prompts raised these claims."""

CLAIMS: tuple[Claim, ...] = (
    Claim("a", "RecA draws better than its base: overall, RecA less base", _overall(RECA, BASE)),
    Claim(
        "c",
        "it gains most on attributes and position: their mean gain less that on counting",
        _binding_over_counting(RECA),
    ),
    Claim(
        "d", "it gains more than fine-tuning with the same steps: overall, RecA less fine-tuning", _overall(RECA, TUNED)
    ),
    Claim(
        "e",
        f"understanding is kept: exact match, RecA less base, above -{KEPT_MARGIN:.2f}",
        _kept(RECA, BASE),
        margin=-KEPT_MARGIN,
    ),
    Claim(
        "e, replay",
        "image-to-text replay is what keeps it: exact match, with less without",
        _kept(RECA, WITHOUT_REPLAY),
    ),
    Claim("f", "without a bottleneck it collapses: overall, RecA less own tokens", _overall(RECA, OWN_TOKENS)),
    Claim("two stages", "RecA after fine-tuning beats RecA alone: overall, difference", _overall(STAGED, RECA)),
    Claim(
        "drawing replay", "text-to-image replay helps RecA: overall, with less without", _overall(WITH_DRAWING, RECA)
    ),
    Claim("a, with drawing replay", "with text-to-image replay it beats the base", _overall(WITH_DRAWING, BASE)),
    Claim("d, with drawing replay", "with it, it beats fine-tuning", _overall(WITH_DRAWING, TUNED)),
    _dense("a, dense", "RecA draws dense prompts better than its base: overall", _overall(RECA, BASE, DENSE)),
    _dense(
        "c, dense",
        "there it gains most on attributes and relations: their mean gain less that on counts",
        _binding_over_counting(RECA, DENSE),
    ),
    _dense("d, dense", "there it gains more than fine-tuning", _overall(RECA, TUNED, DENSE)),
    _dense(
        "a, dense, with drawing replay",
        "there, with text-to-image replay, it beats the base",
        _overall(WITH_DRAWING, BASE, DENSE),
    ),
    Claim("null", "the unconditional term helps RecA: overall, with less without", _overall(WITH_NULL, RECA)),
    Claim("null, alone", "and not by itself: overall, with RecA less the term alone", _overall(WITH_NULL, NULL_ALONE)),
    Claim("a, null", "RecA with the unconditional term beats the base", _overall(WITH_NULL, BASE)),
    Claim(
        "c, null",
        "it gains most on attributes and position: their mean gain less that on counting",
        _binding_over_counting(WITH_NULL),
    ),
    Claim("d, null", "it beats fine-tuning", _overall(WITH_NULL, TUNED)),
    Claim(
        "e, null",
        f"it keeps understanding: exact match less base, above -{KEPT_MARGIN:.2f}",
        _kept(WITH_NULL, BASE),
        margin=-KEPT_MARGIN,
    ),
    Claim("a, null, dense", "on dense prompts it beats the base", _overall(WITH_NULL, BASE, DENSE)),
    Claim("null, alone, dense", "there it beats the term alone", _overall(WITH_NULL, NULL_ALONE, DENSE)),
    Claim("d, null, dense", "there it beats fine-tuning", _overall(WITH_NULL, TUNED, DENSE)),
)
"""Claim (b), every family, needs a study per family: docs/tiny_families.md."""


def verdicts(arms: Arms, first_training_seed: int) -> Iterator[ClaimVerdict]:
    """Every claim with its number; those that studies from this seed on may not judge have a number and no verdict."""
    for claim in CLAIMS:
        try:
            found = claim.number(arms).row()
        except KeyError:
            found = None
        verdict = _verdict(found, claim.margin)
        if verdict != "not tested" and first_training_seed < claim.since:
            verdict = "not judged"
        yield ClaimVerdict(letter=claim.letter, claim=claim.text, measured=found, verdict=verdict)


def _verdict(row: StudyRow | None, margin: float) -> Verdict:
    if row is None or row.low is None or row.high is None:
        return "not tested"
    if row.low > margin:
        return "shown"
    return "refuted" if row.high < margin else "open"
