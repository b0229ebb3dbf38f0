"""``reca compare A B ...``: models or results, paired by prompt with intervals; unequal ones are refused by name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.contenders import Contest, contests
from deployments.context import Context
from deployments.outcome import contest_table, show_comparison
from evaluation.compare import compare as compare_measurements
from evaluation.records import Comparison
from reca_core.contracts.errors import EXIT_DONE, BadInput, PrerequisiteMissing
from reca_core.contracts.files import atomic_write_text, write_json
from tasks.report import section_markdown
from tasks.report_page import ScoreSection
from tasks.report_scores import Scores, section

FEWEST = 2
MARKDOWN = ".md"


def compare(options: Namespace, context: Context) -> int:
    """Print, write and return the comparisons of the first with every other.

    Raises ComparisonRefused with the reason where two of them are not comparable.
    """
    if len(options.sides) < FEWEST:
        raise BadInput("there is nothing to compare it with", field=options.sides[0], remedy="reca compare A B ...")
    found = contests(options.sides, options.arithmetic, context)
    compared = [(contest, _compare(contest, options.resamples)) for contest in found]
    for contest, comparisons in compared:
        _show(contest, comparisons, context)
    document = _document(compared)
    if options.output:
        _write(context.path(options.output), document, compared)
    context.terminal.answer(document)
    return EXIT_DONE


def _compare(contest: Contest, resamples: int) -> list[Comparison]:
    base, *others = contest.measurements
    return [compare_measurements(base, other, resamples) for other in others]


def _sections(contest: Contest, comparisons: Sequence[Comparison]) -> list[ScoreSection]:
    base, *others = contest.measurements
    pairs = zip(others, comparisons, strict=True)
    return [section(Scores(contest.benchmark, base.table, other.table, found)) for other, found in pairs]


def _show(contest: Contest, comparisons: Sequence[Comparison], context: Context) -> None:
    sections = _sections(contest, comparisons)
    if len(sections) > 1:
        context.terminal.show(contest_table(contest.benchmark, contest.names, sections))
    for name, shown in zip(contest.names[1:], sections, strict=True):
        show_comparison(shown, contest.names[0], name, context.terminal)


def _document(compared: Sequence[tuple[Contest, Sequence[Comparison]]]) -> dict[str, Any]:
    """All comparisons; the first one of the first benchmark stands at the top, for the common case of two sides."""
    first = compared[0]
    every = [
        {
            "benchmark": contest.benchmark,
            "base": {"name": contest.names[0], "answers": str(contest.folders[0])},
            "trained": {"name": name, "answers": str(folder)},
            "comparison": found.model_dump(mode="json"),
        }
        for contest, comparisons in compared
        for name, folder, found in zip(contest.names[1:], contest.folders[1:], comparisons, strict=True)
    ]
    folders = first[0].folders
    top = {"base": str(folders[0]), "trained": str(folders[1]), "comparison": first[1][0].model_dump(mode="json")}
    return top | {"comparisons": every}


def _write(path: Path, document: dict[str, Any], compared: Sequence[tuple[Contest, Sequence[Comparison]]]) -> None:
    """JSON, or Markdown where the name says so. Raises PrerequisiteMissing where it cannot be written."""
    try:
        if path.suffix == MARKDOWN:
            atomic_write_text(path, _markdown(compared))
        else:
            write_json(path, document)
    except OSError as error:
        raise PrerequisiteMissing(f"{path} cannot be written: {error.strerror}", field="--output") from error


def _markdown(compared: Sequence[tuple[Contest, Sequence[Comparison]]]) -> str:
    parts = [
        section_markdown(shown, contest.names[0], name)
        for contest, comparisons in compared
        for name, shown in zip(contest.names[1:], _sections(contest, comparisons), strict=True)
    ]
    return "\n\n".join(parts) + "\n"
