"""Writes ``report.html``: one self-contained page that says what post-training changed, and shows it.

Nothing on it is loaded from elsewhere and nothing runs: pictures are ``data:`` addresses, curves are SVG, the content
policy forbids the rest, and Jinja escapes every value. Beside it lie ``report.json`` and ``report.md`` with the
same tables; ``reports/latest`` points at the newest report.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from reca_core.contracts.files import atomic_write_text, write_json
from reca_core.contracts.home import RunDirectory
from tasks import report_facts
from tasks.report_charts import loss_chart
from tasks.report_inputs import BenchmarkPair, ReportInputs
from tasks.report_page import Page, ScoreSection
from tasks.report_reading import pairs, strips
from tasks.report_scores import scores_of, section

TEMPLATE = "report.html.jinja"
LATEST = "latest"


def write_report(inputs: ReportInputs) -> Path:
    """Write the page, the tables beside it and the ``latest`` link; return the page's path.

    Raises FileNotFoundError or pydantic's ValidationError where a finished stage left no readable records.
    """
    page = build_page(inputs)
    atomic_write_text(inputs.output, render(page))
    write_json(inputs.output.with_name("report.json"), report_json(inputs))
    atomic_write_text(inputs.output.with_name("report.md"), report_markdown(page))
    link_latest(inputs.output.parent)
    return inputs.output


def build_page(inputs: ReportInputs) -> Page:
    """Everything on the page, as text and pictures."""
    run = RunDirectory(inputs.training_directory)
    return Page(
        title=inputs.title,
        base_name=inputs.base_name,
        trained_name=inputs.trained_name,
        size=report_facts.size_in_words(run.final),
        scores=tuple(section(scores_of(pair)) for pair in inputs.benchmarks),
        pairs=tuple(shown for pair in inputs.benchmarks for shown in pairs(pair, inputs.preview_prompts)),
        chart=loss_chart(run.metrics),
        strips=strips(run),
        facts=report_facts.facts(inputs),
        commands=report_facts.commands(inputs),
        links=report_facts.links(inputs),
        seconds=tuple((stage, report_facts.duration(value)) for stage, value in inputs.seconds.items()),
    )


def render(page: Page) -> str:
    """The page as HTML. Every value is escaped; a value the template does not know is an error."""
    environment = Environment(
        loader=PackageLoader("tasks", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(page=page)


def report_json(inputs: ReportInputs) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "base": inputs.base_name,
        "trained": inputs.trained_name,
        "version": inputs.version,
        "benchmarks": {pair.benchmark: _pair_json(pair) for pair in inputs.benchmarks},
        "seconds": dict(inputs.seconds),
        "reused": list(inputs.reused),
    }


def _pair_json(pair: BenchmarkPair) -> dict[str, Any]:
    comparison = pair.comparison.model_dump(mode="json") if pair.comparison else None
    tables = {"base": pair.base.table, "trained": pair.trained.table}
    scores = {side: table.model_dump(mode="json") for side, table in tables.items()}
    return {"comparison": comparison, "refusal": pair.refusal, "tables": scores}


def report_markdown(page: Page) -> str:
    """The same tables as Markdown, for a pull request."""
    parts = [section_markdown(scores, page.base_name, page.trained_name) for scores in page.scores]
    return "\n\n".join([f"# {_cell(page.title)}", *parts]) + "\n"


def section_markdown(scores: ScoreSection, base: str, trained: str) -> str:
    """One comparison as Markdown."""
    said = f"**{_cell(scores.verdict.headline)}** {_cell(scores.verdict.detail)}"
    table = "\n".join(_markdown_rows(scores, base, trained))
    return "\n\n".join([f"## {_cell(scores.benchmark)}", said, table, _cell(scores.caption)])


def _markdown_rows(scores: ScoreSection, base: str, trained: str) -> list[str]:
    head = ["", base, trained, "difference", "95% interval", "judged"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in scores.rows:
        lines.append([row.name, row.base, row.trained, row.difference, row.interval, row.coverage])
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in lines]


def _cell(text: str) -> str:
    """Text that cannot end a table cell, begin a tag or start a line of its own."""
    plain = " ".join(text.split())
    for character, name in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "&#124;"),
        ("[", "&#91;"),
        ("`", "&#96;"),
    ):
        plain = plain.replace(character, name)
    return plain


def link_latest(directory: Path) -> None:
    """Point ``reports/latest`` at a report's folder, atomically."""
    temporary = directory.with_name(f".{LATEST}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(directory.name)
    os.replace(temporary, directory.with_name(LATEST))
