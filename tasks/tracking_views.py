"""The door to MLflow, part four: views, so that a link opens on the answer instead of on a list of everything.

A view is what MLflow's own "Views" menu saves: an experiment tag ``mlflow.sharedViewState.<key>`` with a name, filter,
the columns of the runs table and the charts; ``?viewStateShareKey=<key>`` opens it. The format is MLflow's own and not
documented: it was read from release 3.17, ``tests/browser`` opens such links in a browser and looks at the charts and
pictures. A release that reads it otherwise shows the plain list with a message, and loses nothing.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from reca_core.contracts.base import Record
from tasks.tracking import TrackedRun, client, plain_key, quoted

VIEW_TAG = "mlflow.sharedViewState."
COMPRESSED = "deflate;"
SERVED_AT = "http://127.0.0.1:5000"
"""Where ``mlflow server`` shows a store that no server shows now."""
MOST_RUNS = 10
"""MLflow's own limit for the runs of a chart and the columns of a picture grid."""
BAR_HEIGHT, GRID_HEIGHT = 260, 620
"""Of a chart, in pixels."""
LINE_WIDTH = 420
"""Of a column that says all about a comparison, in pixels."""
VERDICT_TAG, SCORE_TAG, DIFFERENCE_TAG = "verdict", "score", "difference"
RUN_COLUMNS = {f"tags.`{VERDICT_TAG}`": 150, f"tags.`{SCORE_TAG}`": 190, f"tags.`{DIFFERENCE_TAG}`": 220}
"""Of the runs of one comparison. Words, because a metric's column has room for half of its name."""
ALL_COMPARISONS = "comparisons"
"""Key of the view that lists every comparison of the experiment."""

OF_COMPARISON = re.compile(r"(?P<run>[0-9a-f]{32})-\w+-(?:numbers|pictures)")
"""Keys of the views that belong to one run: a comparison, or the arms of a study or sweep."""
ARM_STAGE, ARMS = "arm", "arms"
"""Stage of the runs that are arms, and what their view is called."""
DIFFERENCE = "delta"
"""Last part of the name of a metric that is a difference to the base."""
MOST_BARS = 7
"""Charts of differences per benchmark: the number it is quoted by and the next six."""

Mode = Literal["TABLE", "CHART"]
Chart = dict[str, Any]


class ComparisonLinks(Record):
    """Where MLflow shows one comparison."""

    table: str
    """Base and trained run, one line each, the columns that say which is better and by how much."""
    charts: str
    """The same numbers as bars."""
    pictures: str
    """What both drew for the same fixed prompts."""
    everything: str
    """All comparisons of the experiment, one line each."""


def comparison_links(run: TrackedRun, benchmark: str) -> ComparisonLinks:
    """Addresses of the views that ``save_comparison_views`` makes."""
    numbers, pictures = _key(run, benchmark, "numbers"), _key(run, benchmark, "pictures")
    return ComparisonLinks(
        table=_address(run, numbers, "TABLE"),
        charts=_address(run, numbers, "CHART"),
        pictures=_address(run, pictures, "CHART"),
        everything=_address(run, ALL_COMPARISONS, "TABLE"),
    )


def _key(run: TrackedRun, benchmark: str, kind: str) -> str:
    return f"{run.run_id}-{plain_key(benchmark)}-{kind}"


def _address(run: TrackedRun, key: str, mode: Mode) -> str:
    server = run.store if run.store.startswith("http") else SERVED_AT
    return view_address(server, run.experiment_id, key, mode)


def view_address(server: str, experiment: str, key: str = ALL_COMPARISONS, mode: Mode = "TABLE") -> str:
    """Where a server shows a saved view of an experiment; the list of all comparisons unless said."""
    chart = "&compareRunsMode=CHART" if mode == "CHART" else ""
    page = f"experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={key}{chart}"
    return f"{server.rstrip('/')}/#/{page}"


def kept_for(key: str) -> str:
    """Id of the run whose comparison a saved view shows; empty for the list of all and what a person saved."""
    match = OF_COMPARISON.fullmatch(key)
    return match["run"] if match else ""


def save_comparison_views(
    run: TrackedRun, title: str, benchmark: str, rows: Sequence[str], picture_keys: Sequence[str]
) -> None:
    """Make the views of one comparison, and add its benchmark to the list of all.

    Args:
        title: what is compared with what, for the menu.
        rows: the benchmark's rows, the one it is quoted by first.
        picture_keys: keys of the grid's pictures, as they were logged.
    """
    metrics = [f"{benchmark}/{row}" for row in rows]
    # Runs are shown below their parents, folded away, only while they are sorted by date.
    chosen = {
        "searchFilter": f"tags.`mlflow.parentRunId` = {quoted(run.run_id)} and tags.benchmark = {quoted(benchmark)}",
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": False,
    }
    bars = [_bar(metric, row) for metric, row in zip(metrics, rows, strict=True)]
    numbers = _charts("Which is better, and by how much", bars, columns=2, height=BAR_HEIGHT)
    _save(run, _key(run, benchmark, "numbers"), f"{title}: numbers", chosen | _columns(RUN_COLUMNS) | numbers)
    grid = _charts("The same prompts, drawn by both", [_grid(picture_keys)], columns=1, height=GRID_HEIGHT)
    _save(run, _key(run, benchmark, "pictures"), f"{title}: pictures", chosen | _columns(RUN_COLUMNS) | grid)
    _save_all_comparisons(run, benchmark)


def save_arms_view(run: TrackedRun, title: str, numbers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Make the view of the arms below a run: a line for each, and bars of scores and of differences to the base.

    Args:
        title: what was studied, for the menu.
        numbers: benchmark -> its rows, the one it is quoted by first.

    Returns:
        What can be opened, by name.
    """
    lines = f"tags.`mlflow.parentRunId` = {quoted(run.run_id)} and tags.stage = {quoted(ARM_STAGE)}"
    benchmark, rows = next(iter(numbers.items()))
    chosen = {"searchFilter": lines, "orderByKey": f"metrics.`{benchmark}/{rows[0]}`", "orderByAsc": False}
    bars = [
        bar
        for benchmark, rows in numbers.items()
        for bar in (
            _bar(f"{benchmark}/{rows[0]}", f"{benchmark}: {rows[0]}"),
            *(_bar(f"{benchmark}/{row}/{DIFFERENCE}", f"{row}, less base") for row in rows[:MOST_BARS]),
        )
    ]
    charts = _charts("Every arm, and its difference to the base", bars, columns=2, height=BAR_HEIGHT)
    columns = _columns({f"tags.`{benchmark}`": LINE_WIDTH for benchmark in numbers})
    key = _key(run, ARMS, "numbers")
    _save(run, key, f"{title}: arms", chosen | columns | charts)
    return {"arms table": _address(run, key, "TABLE"), "arms charts": _address(run, key, "CHART")}


def _save_all_comparisons(run: TrackedRun, benchmark: str) -> None:
    known = client().get_experiment(run.experiment_id).tags.get(VIEW_TAG + ALL_COMPARISONS, "")
    columns = dict.fromkeys([f"tags.`{benchmark}`", *_columns_of(known)], LINE_WIDTH)
    state = {"searchFilter": "tags.flow = 'train-then-evaluate'"} | _columns(columns)
    _save(run, ALL_COMPARISONS, "All comparisons", state)


def _columns_of(saved: str) -> list[str]:
    """Columns of a saved view; none where there is no such view or a person wrote it otherwise."""
    try:
        return list(json.loads(_unpacked(json.loads(saved)["state"]))["selectedColumns"])
    except (ValueError, KeyError, TypeError, zlib.error):
        return []


def _unpacked(state: str) -> str:
    if not state.startswith(COMPRESSED):
        return state
    return zlib.decompress(base64.b64decode(state.removeprefix(COMPRESSED))).decode()


def _save(run: TrackedRun, key: str, name: str, state: Mapping[str, Any]) -> None:
    """Write a view; the same one again for the same run."""
    began = client().get_run(run.run_id).info.start_time
    packed = COMPRESSED + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": name, "createdAt": began, "updatedAt": began, "state": packed}
    client().set_experiment_tag(run.experiment_id, VIEW_TAG + key, json.dumps(view))


def _columns(widths: Mapping[str, int]) -> dict[str, Any]:
    names = list(widths)
    return {"selectedColumns": names, "columnOrder": names, "columnWidths": dict(widths)}


def _charts(title: str, charts: Sequence[Chart], *, columns: int, height: int) -> dict[str, Any]:
    """One section of charts; MLflow adds one of its own making for every metric that is in none."""
    section = {
        "uuid": plain_key(title),
        "name": title,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": columns,
        "cardHeight": height,
    }
    placed = [{**chart, "metricSectionId": section["uuid"]} for chart in charts]
    return {"compareRunCharts": placed, "compareRunSections": [section], "isAccordionReordered": True}


def _bar(metric: str, row: str) -> Chart:
    return {
        "type": "BAR",
        "uuid": plain_key(f"bar {metric}"),
        "runsCountToCompare": MOST_RUNS,
        "deleted": False,
        "isGenerated": False,
        "metricKey": metric,
        "displayName": row.replace("_", " "),
    }


def _grid(keys: Sequence[str]) -> Chart:
    return {
        "type": "IMAGE",
        "uuid": "grid",
        "runsCountToCompare": MOST_RUNS,
        "deleted": False,
        "isGenerated": False,
        "imageKeys": list(keys),
        "step": 0,
        "showRunParams": False,
        "displayName": "Fixed prompts",
    }
