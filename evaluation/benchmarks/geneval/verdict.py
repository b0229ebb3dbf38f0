"""From detections to right or wrong: GenEval's rules for one picture (djghosh13/geneval @ af4902f).

Clauses are checked in order; all failures are recorded. Surplus objects are harmless unless an exclusion names them.
The reasons have the wording of upstream's results file, so files can be compared line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.benchmarks.geneval.geometry import iou, relative_position
from evaluation.benchmarks.geneval.requirement import PUBLISHED, Clause, Options, Requirement
from evaluation.records import Finding, Scored

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""The colour classifier's candidates, in its order."""
COUNTING_TAG = "counting"
CORRECT = "correct"
"""Name of a picture's only value: 1 or 0."""

Detections = Mapping[str, Sequence[Finding]]
"""Class -> findings, in any order."""
Kept = Mapping[str, Sequence[int]]
"""Class -> indices into its findings that count, best first; classes with none are absent."""


@dataclass(frozen=True)
class ColourQuery:
    """Objects of one class whose colour one clause needs."""

    clause: int
    label: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """Right or wrong, and every reason against it."""

    correct: bool
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """The reasons as upstream writes them: one per line."""
        return "\n".join(self.reasons)


def keep(detections: Detections, tag: str, options: Options = PUBLISHED) -> dict[str, list[int]]:
    """Which detections count: score above the tag's threshold, the best few per class, overlaps dropped if asked."""
    threshold = options.counting_threshold if tag == COUNTING_TAG else options.threshold
    kept: dict[str, list[int]] = {}
    for label, findings in detections.items():
        order = sorted(range(len(findings)), key=lambda i: -findings[i].score)
        order = [i for i in order if findings[i].score > threshold][: options.max_objects]
        if survivors := _without_overlaps(order, findings, options.max_overlap):
            kept[label] = survivors
    return kept


def _without_overlaps(order: Sequence[int], findings: Sequence[Finding], max_overlap: float) -> list[int]:
    if max_overlap >= 1:
        return list(order)
    kept: list[int] = []
    for i in order:
        if all(iou(findings[i].box, findings[j].box) < max_overlap for j in kept):
            kept.append(i)
    return kept


def colour_queries(requirement: Requirement, kept: Kept) -> list[ColourQuery]:
    """Which objects are shown to the colour classifier: the best ``count`` of each coloured clause that has enough."""
    queries = []
    for number, clause in enumerate(requirement.include):
        found = kept.get(clause.label, ())
        if clause.color is not None and len(found) >= clause.count:
            queries.append(ColourQuery(number, clause.label, tuple(found[: clause.count])))
    return queries


def judge(
    requirement: Requirement,
    detections: Detections,
    kept: Kept,
    colours: Mapping[int, Sequence[str]],
    options: Options = PUBLISHED,
) -> Verdict:
    """Check every clause.

    Args:
        colours: clause number -> colours of the objects of its ``colour_queries`` entry, in that order.
    """
    reasons: list[str] = []
    matched: list[list[Finding] | None] = []
    for number, clause in enumerate(requirement.include):
        taken = [detections[clause.label][i] for i in kept.get(clause.label, ())[: clause.count]]
        failure = _count_failure(clause, len(taken))
        if not failure and clause.color is not None:
            failure = _colour_failure(clause, clause.color, colours[number])
        if not failure and clause.position is not None:
            failure = _position_failure(clause.label, clause.position, taken, matched, options.position_threshold)
        reasons += [failure] if failure else []
        matched.append(None if failure else taken)
    for exclusion in requirement.exclude:
        found = len(kept.get(exclusion.label, ()))
        if found >= exclusion.count:
            reasons.append(f"expected {exclusion.label}<{exclusion.count}, found {found}")
    return Verdict(not reasons, tuple(reasons))


def score_picture(
    requirement: Requirement,
    detections: Detections,
    colours_of: Callable[[ColourQuery], Sequence[str]],
    options: Options = PUBLISHED,
) -> Scored:
    """The whole rule: keep, ask for colours, judge. The evidence has the field names of upstream's records."""
    kept = keep(detections, requirement.tag, options)
    queries = colour_queries(requirement, kept)
    verdict = judge(requirement, detections, kept, {query.clause: colours_of(query) for query in queries}, options)
    evidence = {
        "correct": verdict.correct,
        "reason": verdict.reason,
        "kept": kept,
        "color_queries": [{"class": query.label, "indices": list(query.indices)} for query in queries],
    }
    return Scored(values={CORRECT: float(verdict.correct)}, evidence=evidence)


def _count_failure(clause: Clause, found: int) -> str:
    if found >= clause.count:
        return ""
    return f"expected {clause.label}>={clause.count}, found {found}"


def _colour_failure(clause: Clause, wanted: str, colours: Sequence[str]) -> str:
    right = list(colours).count(wanted)
    if right >= clause.count:
        return ""
    seen = [colour for colour in COLOURS if colour in colours]
    seen += [colour for colour in dict.fromkeys(colours) if colour not in COLOURS]
    tally = ", ".join(f"{list(colours).count(colour)} {colour}" for colour in seen)
    return f"expected {wanted} {clause.label}>={clause.count}, found {right} {wanted}; and {tally}"


def _position_failure(
    label: str,
    position: tuple[str, int],
    taken: Sequence[Finding],
    matched: Sequence[list[Finding] | None],
    margin: float,
) -> str:
    """The first pair that does not stand in the wanted relation. Two relations of a pair are joined in sorted order."""
    wanted, target_number = position
    targets = matched[target_number]
    if targets is None:
        return f"no target for {label} to be {wanted}"
    for subject in taken:
        for target in targets:
            found = relative_position(subject.box, target.box, margin)
            if wanted not in found:
                return f"expected {label} {wanted} target, found {' and '.join(found)} target"
    return ""
