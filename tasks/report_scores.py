"""Score tables and verdicts for people: numbers, intervals, coverage, and a sentence that is true for any sign."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evaluation.records import Comparison, DeltaRow, ScoreRow, ScoreTable
from evaluation.registry import card, reads_replies, split_id
from tasks.report_inputs import BenchmarkPair
from tasks.report_page import ScoreSection, TableRow, Tone, Verdict

HEADLINE_ROW = "overall"
BAR_WIDTH = 200.0
"""Width of the drawing of an interval, in its own units; zero is in the middle."""
BAR_MARGIN = 8.0
NONE = "–"
FRACTION_LIMIT = 1.5
"""Tables whose numbers stay below are fractions and get three decimals; the others get two."""


@dataclass(frozen=True)
class Scores:
    """Two tables of one benchmark and what comparing them gave."""

    benchmark: str
    base: ScoreTable
    trained: ScoreTable
    comparison: Comparison | None
    refusal: str = ""
    """Why they could not be compared; empty where they were."""


def scores_of(pair: BenchmarkPair) -> Scores:
    """The numbers of a pair, without its folders."""
    return Scores(pair.benchmark, pair.base.table, pair.trained.table, pair.comparison, pair.refusal)


def section(pair: Scores) -> ScoreSection:
    """One benchmark as it stands on the page and in the terminal."""
    comparison = pair.comparison
    judge = pair.base.judge
    return ScoreSection(
        benchmark=pair.benchmark,
        verdict=verdict(pair),
        rows=_rows(pair),
        caption=caption(pair.benchmark),
        refusal=pair.refusal if comparison is None else "",
        judge=" ".join(part for part in (judge.name, judge.model) if part),
    )


def caption(benchmark: str) -> str:
    """What a number of this id may be compared with."""
    name, (_, suffix) = card(benchmark).name, split_id(benchmark)
    by_rule = reads_replies(benchmark)
    if not suffix:
        return f"{name}, the model's own words read by rule." if by_rule else f"{name} with its published judge."
    reader = "the model's own words read by rule" if by_rule else "read by the world's own reader"
    world = f"rendered scenes, {reader}" if suffix == "shapeworld" else f"the judge {suffix}"
    return (
        f"{benchmark}: the rules of {name} on {world}. "
        f"These are not {name} numbers and cannot be compared with published ones."
    )


def tone(row: DeltaRow) -> Tone:
    """What the interval of a difference says."""
    if row.low is not None and row.low > 0:
        return "better"
    if row.high is not None and row.high < 0:
        return "worse"
    return "unclear"


def verdict(pair: Scores) -> Verdict:
    """One sentence and its numbers."""
    comparison = pair.comparison
    if comparison is None:
        return Verdict("unclear", "Base and trained model could not be compared.", pair.refusal)
    name = headline_row(comparison)
    row = comparison.rows[name]
    if row.delta is None:
        return Verdict("unclear", f"Nothing was measured for {name}.", f"{row.n} pictures were judged on both sides.")
    found = tone(row)
    what = "understanding" if reads_replies(pair.benchmark) else "generation"
    return Verdict(found, _headline(found, row, what), _detail(pair.benchmark, name, row, comparison.n_prompts))


def _headline(found: Tone, row: DeltaRow, what: str) -> str:
    if found == "better":
        return f"Post-training improved {what}."
    if found == "worse":
        return f"Post-training made {what} worse."
    if row.low is None:
        return "The difference has no interval: too few prompts to say more."
    return "No difference is shown: the interval includes zero."


def _detail(benchmark: str, name: str, row: DeltaRow, prompts: int) -> str:
    digits = decimals([row.base, row.trained])
    interval = f", 95% interval {_interval(row, digits)}" if row.low is not None else ""
    return (
        f"{benchmark} {name}: {number(row.base, digits)} before, {number(row.trained, digits)} after, "
        f"difference {number(row.delta, digits, sign=True)}{interval}, over {prompts} prompts and {row.n} pictures."
    )


def headline_row(comparison: Comparison) -> str:
    """The row a benchmark is quoted by: ``overall`` where there is one, else the first."""
    return HEADLINE_ROW if HEADLINE_ROW in comparison.rows else next(iter(comparison.rows))


def decimals(values: list[float | None]) -> int:
    """Digits behind the point for a table with these numbers."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return 3 if largest < FRACTION_LIMIT else 2


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A number for a table; a dash where there is none; a true minus sign."""
    if value is None:
        return NONE
    text = f"{round(value, digits) + 0.0:{'+' if sign and round(value, digits) else ''}.{digits}f}"
    return text.replace("-", "−")


def _interval(row: DeltaRow, digits: int) -> str:
    if row.low is None or row.high is None:
        return NONE
    return f"{number(row.low, digits, sign=True)} to {number(row.high, digits, sign=True)}"


def score_in_words(row: ScoreRow) -> str:
    """``0.512 (0.460 to 0.563)``, with what is missing."""
    if row.value is None:
        return f"not scored, {row.n_expected} expected"
    digits = decimals([row.value])
    ends = f" ({number(row.low, digits)} to {number(row.high, digits)})" if row.low is not None else ""
    missing = f", {row.n_scored}/{row.n_expected} scored" if row.n_scored != row.n_expected else ""
    return f"{number(row.value, digits)}{ends}{missing}"


def difference_in_words(row: DeltaRow) -> str:
    """``+0.052 (+0.010 to +0.094)``; a dash where nothing was measured."""
    digits = decimals([row.base, row.trained])
    ends = f" ({_interval(row, digits)})" if row.low is not None else ""
    return f"{number(row.delta, digits, sign=True)}{ends}"


def coverage(base: ScoreRow, trained: ScoreRow) -> str:
    """How many of the expected pictures were judged; both sides where they differ."""
    sides = [f"{row.n_scored}/{row.n_expected}" for row in (base, trained)]
    return sides[0] if sides[0] == sides[1] else " · ".join(sides)


def _rows(pair: Scores) -> tuple[TableRow, ...]:
    deltas = pair.comparison.rows if pair.comparison else _without_difference(pair.base, pair.trained)
    digits = decimals([value for row in deltas.values() for value in (row.base, row.trained)])
    reach = max((abs(end) for row in deltas.values() for end in (row.low, row.high) if end is not None), default=0.0)
    return tuple(_row(name, row, pair, digits, reach) for name, row in deltas.items())


def _without_difference(base: ScoreTable, trained: ScoreTable) -> Mapping[str, DeltaRow]:
    return {name: _unpaired(row, trained.rows[name]) for name, row in base.rows.items() if name in trained.rows}


def _unpaired(base: ScoreRow, trained: ScoreRow) -> DeltaRow:
    return DeltaRow(base=base.value, trained=trained.value, delta=None, low=None, high=None, n=0)


def _row(name: str, row: DeltaRow, pair: Scores, digits: int, reach: float) -> TableRow:
    base, trained = pair.base.rows[name], pair.trained.rows[name]
    place = _scale(reach)
    drawn = row.low is not None and row.high is not None and row.delta is not None
    return TableRow(
        name=name.replace("_", " "),
        base=number(row.base, digits),
        trained=number(row.trained, digits),
        difference=number(row.delta, digits, sign=True),
        interval=_interval(row, digits),
        coverage=coverage(base, trained),
        complete=base.n_scored == base.n_expected and trained.n_scored == trained.n_expected,
        tone=tone(row),
        bar=f"M{place(row.low):.1f} 10H{place(row.high):.1f}" if drawn else "",
        dot=f"{place(row.delta):.1f}" if drawn else "",
        headline=name == HEADLINE_ROW,
    )


def _scale(reach: float) -> Callable[[float | None], float]:
    """From a difference to its place on the drawing: the widest end of all rows touches the margin."""
    half = BAR_WIDTH / 2
    usable = half - BAR_MARGIN

    def place(value: float | None) -> float:
        return half + (value or 0.0) / (reach or 1.0) * usable

    return place
