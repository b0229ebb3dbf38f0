"""How the end of a run looks in a terminal: the comparison, seconds per stage, where all of it lies, how to open it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from deployments.start import Ended
from deployments.terminal import Terminal
from evaluation.records import CollectRequest, Comparison, JudgeRequest, ScoreTable
from evaluation.study import StudyRow
from evaluation.study_claims import ClaimVerdict
from reca_core.contracts.home import Home
from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import SampleRequest
from tasks.report_facts import duration
from tasks.report_page import ScoreSection, Tone
from tasks.report_scores import NONE, Scores, decimals, number, section

STYLES: dict[Tone, str] = {"better": "green", "worse": "red", "unclear": ""}
REPORT_JSON, REQUEST = "report.json", "request.json"
STUDY, STUDY_NUMBERS = "study.md", "study.json"
SWEEP, SWEEP_NUMBERS = "sweep.md", "sweep.json"


def show(ended: Ended, home: Home, terminal: Terminal, arithmetic: str) -> None:
    """Everything a person wants to know at the end of a run; the last line names the run directory."""
    outcome = ended.outcome
    for found, names in sections(outcome):
        show_comparison(found, *names, terminal)
    if Path(outcome.report).name == STUDY:
        terminal.show(claims_table(Path(outcome.report).with_name(STUDY_NUMBERS)))
    if Path(outcome.report).name == SWEEP:
        terminal.show(settings_table(Path(outcome.report).with_name(SWEEP_NUMBERS)))
    if not outcome.report:
        for path in outcome.scores:
            terminal.show(score_table(read_table(Path(path), arithmetic), Path(path)))
    for decision in outcome.decisions:
        terminal.show(Text(decision, style="bold"))
    for reason in outcome.incomplete:
        terminal.show(Text(f"incomplete: {reason}", style="red"))
    _show_seconds(ended, terminal)
    for name, value in places(outcome, home):
        terminal.line(f"{name:<12} {value}")
    terminal.line(f"run directory {outcome.run_directory}")


def sections(outcome: Outcome) -> list[tuple[ScoreSection, tuple[str, str]]]:
    """One comparison per benchmark of the report, with the two models' names."""
    if not outcome.report or Path(outcome.report).name in (STUDY, SWEEP):
        return []
    written: dict[str, Any] = json.loads(Path(outcome.report).with_name(REPORT_JSON).read_text(encoding="utf-8"))
    names = (written["base"], written["trained"])
    return [(_section(benchmark, pair), names) for benchmark, pair in written["benchmarks"].items()]


def _section(benchmark: str, pair: dict[str, Any]) -> ScoreSection:
    comparison = Comparison.model_validate(pair["comparison"]) if pair["comparison"] else None
    base, trained = (ScoreTable.model_validate(pair["tables"][side]) for side in ("base", "trained"))
    return section(Scores(benchmark, base, trained, comparison, pair["refusal"]))


def show_comparison(found: ScoreSection, base: str, trained: str, terminal: Terminal) -> None:
    """The table, what it says, and what it may be compared with."""
    terminal.show(comparison_table(found, base, trained))
    terminal.show(Text(found.verdict.headline, style=STYLES[found.verdict.tone] or "bold"))
    if found.refusal:
        terminal.show(Text(f"not compared: {found.refusal}", style="red"))
    terminal.show(Text(found.caption, style="dim"))


def claims_table(path: Path) -> Table:
    """What a study shows, claim by claim."""
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    table = Table(title="claims", title_justify="left", title_style="bold")
    for heading in ("", "claim", "measured", "95% interval", "verdict"):
        table.add_column(heading, overflow="fold")
    for found in (ClaimVerdict.model_validate(claim) for claim in written["claims"]):
        measured = found.measured
        value = NONE if measured is None or measured.value is None else f"{measured.value:+.3f}"
        ends = NONE if measured is None or measured.low is None else f"{measured.low:+.3f} to {measured.high:+.3f}"
        table.add_row(*(Text(cell) for cell in (found.letter, found.claim, value, ends, found.verdict)))
    return table


def settings_table(path: Path) -> Table:
    """What a sweep found: every setting's value and its difference to the base, the best one bold."""
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    key = f"{written['benchmark']}/{written['row']}"
    table = Table(title=f"settings by {key}", title_justify="left", title_style="bold")
    for heading in ("setting", "value", "difference to the base", "95% interval"):
        table.add_column(heading, justify="left" if heading == "setting" else "right")
    for name, arm in written["arms"].items():
        found, gain = (StudyRow.model_validate(arm[part][key]) for part in ("numbers", "differences"))
        trained = bool(arm["checkpoint"])
        value = NONE if found.value is None else f"{found.value:.3f}"
        delta = NONE if gain.value is None or not trained else f"{gain.value:+.3f}"
        ends = NONE if gain.low is None or not trained else f"{gain.low:+.3f} to {gain.high:+.3f}"
        style = "bold" if name == written["best"] else None
        table.add_row(*(Text(cell) for cell in (name, value, delta, ends)), style=style)
    return table


def comparison_table(found: ScoreSection, base: str, trained: str) -> Table:
    """Base, trained, difference, interval and coverage, one line per row."""
    table = Table(title=found.benchmark, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in (base, trained, "difference", "95% interval", "judged"):
        table.add_column(heading, justify="right", no_wrap=heading not in (base, trained))
    for row in found.rows:
        cells = (row.name, row.base, row.trained, row.difference, row.interval, row.coverage)
        style = " ".join(word for word in (STYLES[row.tone], "bold" if row.headline else "") if word)
        table.add_row(*(Text(cell) for cell in cells), style=style or None)
    return table


def contest_table(benchmark: str, names: Sequence[str], sections: Sequence[ScoreSection]) -> Table:
    """More than two side by side: the first, and every other with its difference from it."""
    table = Table(title=benchmark, title_justify="left", title_style="bold")
    for heading in ("", *names):
        table.add_column(heading, justify="right" if heading else "left")
    for rows in zip(*(found.rows for found in sections), strict=True):
        others = [Text(f"{row.trained} ({row.difference})", style=STYLES[row.tone]) for row in rows]
        table.add_row(Text(rows[0].name), Text(rows[0].base), *others, style="bold" if rows[0].headline else None)
    return table


def read_table(path: Path, arithmetic: str) -> ScoreTable:
    """The table of one arithmetic in a scores.json."""
    return ScoreTable.model_validate(json.loads(path.read_text(encoding="utf-8"))[arithmetic])


def score_table(scores: ScoreTable, path: Path) -> Table:
    """One model's numbers."""
    title = f"{scores.benchmark}, {model_name(path.parent)}"
    table = Table(title=Text(title, style="bold"), title_justify="left")
    for heading in ("", "value", "95% interval", "judged"):
        table.add_column(heading, justify="left" if not heading else "right")
    digits = decimals([row.value for row in scores.rows.values()])
    for name, row in scores.rows.items():
        ends = f"{number(row.low, digits)} to {number(row.high, digits)}" if row.low is not None else NONE
        coverage = f"{row.n_scored}/{row.n_expected}"
        table.add_row(Text(name.replace("_", " ")), number(row.value, digits), ends, coverage)
    return table


def model_name(answers: Path) -> str:
    """Whose pictures were judged: the samples' own request says it."""
    judged = JudgeRequest.model_validate_json((answers / REQUEST).read_text(encoding="utf-8"))
    samples = Path(judged.samples_directory)
    if not (samples / REQUEST).is_file():
        return samples.name
    asked = json.loads((samples / REQUEST).read_text(encoding="utf-8"))
    if "pictures_from" in asked:
        return Path(CollectRequest.model_validate(asked).pictures_from).name
    return SampleRequest.model_validate(asked).model.name


def _show_seconds(ended: Ended, terminal: Terminal) -> None:
    """Where the time went; what no stage claims is the orchestration between them."""
    outcome = ended.outcome
    between = ended.seconds - ended.startup_seconds - sum(outcome.seconds.values())
    table = Table(title="seconds", title_justify="left", title_style="bold", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("start", duration(ended.startup_seconds), "imports, Prefect")
    for name, seconds in outcome.seconds.items():
        table.add_row(Text(name), duration(seconds), "reused from an earlier run" if name in outcome.reused else "")
    table.add_row("between stages", duration(max(between, 0.0)), "orchestration, tracking")
    table.add_row("in all", duration(ended.seconds), "", style="bold")
    terminal.show(table)


def places(outcome: Outcome, home: Home) -> list[tuple[str, str]]:
    """What there is to open, and how."""
    version = f"models:/{outcome.version.name}/{outcome.version.version}" if outcome.version else ""
    found = [("registered", version), ("report", Path(outcome.report).as_uri() if outcome.report else "")]
    store, prefect = shlex.quote(outcome.mlflow_store), shlex.quote(str(home.prefect))
    mlflow = (
        f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {tool('mlflow')} server --workers 1 "
        f"--backend-store-uri {store}   # http://127.0.0.1:5000"
    )
    found.append(("MLflow", outcome.mlflow_url or (mlflow if outcome.mlflow_store else "")))
    found += [(f"  {name}", url) for name, url in outcome.mlflow_views.items()]
    server = f"PREFECT_HOME={prefect} {tool('prefect')} server start   # http://127.0.0.1:4200"
    found.append(("Prefect", outcome.prefect_url or server))
    return [(name, value) for name, value in found if value]


def tool(name: str) -> str:
    """How to call a program of this environment from the person's shell."""
    installed = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(installed) else shlex.quote(str(installed))
