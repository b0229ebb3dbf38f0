"""The rule of promotion, pure: champion and challenger side by side, and why the one replaces the other or does not.

The deciding number must improve beyond its paired 95% interval. No other number may fall by more than a limit, in
percent of the champion's value: the point counts there, not the interval, because an uncertain fall is no licence. What
is not scored on both sides alike refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.records import DeltaRow
from reca_core.contracts.errors import BadInput
from reca_core.contracts.versions import Promotion
from tasks.results import Compared

PERCENT = 100.0
NO_QUALITY = ("yes_ratio",)
"""Ends of rows that say how a model answers, not how well: neither high nor low is better."""


@dataclass(frozen=True)
class Verdict:
    """What the rule says."""

    promote: bool
    reasons: list[str]
    """The deciding one first."""


def verdict(pairs: Sequence[Compared], rule: Promotion) -> Verdict:
    """The rule applied to one comparison per benchmark. Raises BadInput for a deciding number that is not measured."""
    refusals = [f"{pair.benchmark} cannot be compared: {pair.refusal}" for pair in pairs if pair.comparison is None]
    if refusals:
        return Verdict(False, refusals)
    rows = dict(_rows(pairs))
    deciding = rule.metric or next(iter(rows))
    if deciding not in rows:
        raise BadInput(f"{deciding!r} is not measured", field="promotion.metric", choices=list(rows))
    better, told = _improves(deciding, rows[deciding])
    falls = list(_falls(rows, deciding, rule.largest_fall_percent))
    if better and not falls:
        return Verdict(True, [told, f"no other number falls by more than {rule.largest_fall_percent:g}%"])
    return Verdict(False, [*([] if better else [told]), *falls])


def _rows(pairs: Sequence[Compared]) -> Iterator[tuple[str, DeltaRow]]:
    for pair in pairs:
        if pair.comparison is not None:
            for name, row in pair.comparison.rows.items():
                yield f"{pair.benchmark}/{name}", row


def _improves(name: str, row: DeltaRow) -> tuple[bool, str]:
    if row.delta is None:
        return False, f"{name} is not scored"
    if row.low is None or row.high is None:
        return False, f"{name} changes by {row.delta:+.3f}, on too few prompts for an interval"
    change = f"{name} changes by {row.delta:+.3f}, 95% interval {row.low:+.3f} to {row.high:+.3f}"
    return (True, change) if row.low > 0 else (False, f"{change}: no improvement beyond it")


def _falls(rows: dict[str, DeltaRow], deciding: str, limit_percent: float) -> Iterator[str]:
    """Every other number that falls too far, or of which nobody knows."""
    for name, row in rows.items():
        if name == deciding or name.endswith(NO_QUALITY):
            continue
        if row.base is None or row.trained is None:
            if row.base is not None or row.trained is not None:
                yield f"{name} is scored on one side only"
            continue
        fall = PERCENT * (row.base - row.trained) / abs(row.base) if row.base else 0.0
        if row.trained < row.base and (fall > limit_percent or not row.base):
            told = f"{name} falls from {row.base:.3f} to {row.trained:.3f}, by {fall:.1f}%"
            yield f"{told}; {limit_percent:g}% is allowed"
