"""``reca score``: recorded answers to scores, without any model, for all four benchmarks.

Result: ``{"benchmark", "arithmetic", "items": [{"id", "values"|null, "unscored"|null, "evidence"}], "rows": {name:
{"value", "low", "high", "n_scored", "n_expected"}}}``; a file with several runs gives ``{"runs": {name: that}}``. Items
of GenEval also carry the evidence's ``correct``, ``reason``, ``kept`` and ``color_queries`` themselves, as upstream's
records do. Fields that the rules do not use, such as ``expected``, are ignored. Everything is plain JSON without NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evaluation.aggregate import DEFAULT_RESAMPLES, score_rows
from evaluation.benchmarks.dpg import recorded as dpg
from evaluation.benchmarks.dpg import summary as dpg_summary
from evaluation.benchmarks.dpg.table import read_table
from evaluation.benchmarks.gedit import recorded as gedit
from evaluation.benchmarks.gedit import summary as gedit_summary
from evaluation.benchmarks.geneval import recorded as geneval
from evaluation.benchmarks.geneval import summary as geneval_summary
from evaluation.benchmarks.imgedit import recorded as imgedit
from evaluation.benchmarks.imgedit import summary as imgedit_summary
from evaluation.records import Arithmetic, Judgment
from reca_core.contracts.errors import BadInput

RECORDED = ("geneval", "dpg", "imgedit", "gedit")
"""Benchmarks whose recorded answers can be scored."""
GENEVAL_FIELDS = ("correct", "reason", "kept", "color_queries")
DEFAULT_ITEMS = Path("imgedit") / "basic_edit.json"
"""Inside the folder with the benchmarks' own files."""

Result = dict[str, Any]
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class RecordedFiles:
    """What to score; which fields apply depends on the benchmark, the others are refused."""

    answers: Path | None = None
    """geneval: one picture per line; dpg: answers.json; imgedit: replies.json or runs.json."""
    questions: Path | None = None
    """dpg: the question table."""
    layout: dpg.Layout = "grid4"
    """dpg: how pictures were put into files."""
    pictures: int = dpg.DEFAULT_PICTURES
    """dpg: pictures per item."""
    items: Path | None = None
    """imgedit: basic_edit.json; without it and without ``benchmark_data`` edit types are unknown."""
    benchmark_data: Path | None = None
    """Folder with the benchmarks' own files, where ``items`` is looked for if not given."""
    replies: Path | None = None
    """gedit: replies of both calls, one picture per line."""
    rows: Path | None = None
    """gedit: rows with the minima of both calls, one table per run."""


NEEDED: dict[str, tuple[str, ...]] = {
    "geneval": ("answers",),
    "dpg": ("questions", "answers"),
    "imgedit": ("answers",),
    "gedit": ("replies", "rows"),
}
"""Files that a benchmark scores; gedit takes exactly one of its two."""
OPTIONAL: dict[str, tuple[str, ...]] = {"imgedit": ("items",)}
FILE_FIELDS = ("answers", "questions", "items", "replies", "rows")


def score_recorded(
    benchmark: str,
    files: RecordedFiles,
    arithmetic: Arithmetic = "corrected",
    resamples: int = DEFAULT_RESAMPLES,
) -> Result:
    """Score one benchmark's recorded answers.

    Raises: BadInput for an unknown benchmark, a missing, superfluous or malformed file (naming file, line and field).
    """
    _check_choice(benchmark, files)
    scorer = {"geneval": _geneval, "dpg": _dpg, "imgedit": _imgedit, "gedit": _gedit}[benchmark]
    runs = {name: _result(benchmark, arithmetic, judgments, resamples) for name, judgments in scorer(files, arithmetic)}
    return runs[SINGLE] if list(runs) == [SINGLE] else {"runs": runs}


def result_bytes(result: Result) -> bytes:
    """The result as UTF-8 JSON. Half characters that a recorded reply may hold stay JSON escapes."""
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


SINGLE = ""
"""Name of the run of a file that holds no named runs."""
Runs = Iterator[tuple[str, list[Judgment]]]


def _check_choice(benchmark: str, files: RecordedFiles) -> None:
    if benchmark not in RECORDED:
        raise BadInput(f"no recorded answers of {benchmark!r} can be scored", field="benchmark", choices=RECORDED)
    given = [name for name in FILE_FIELDS if getattr(files, name) is not None]
    needed = NEEDED[benchmark]
    flags = [f"--{name}" for name in needed]
    for name in given:
        if name not in (*needed, *OPTIONAL.get(benchmark, ())):
            raise BadInput(f"{benchmark} has no such file", field=f"--{name}", choices=flags)
    absent = [name for name in needed if name not in given]
    if benchmark == "gedit":
        if len(absent) != 1:
            raise BadInput("gedit scores exactly one of two kinds of file", field="files", choices=flags)
    elif absent:
        raise BadInput(f"{benchmark} needs {' and '.join(flags)}", field=f"--{absent[0]}")
    if files.layout not in dpg.LAYOUTS:
        raise BadInput(f"no layout is called {files.layout!r}", field="--layout", choices=dpg.LAYOUTS)
    if files.pictures < 1:
        raise BadInput(f"{files.pictures} pictures per item", field="--pictures", remedy="at least 1")


def _geneval(files: RecordedFiles, arithmetic: Arithmetic) -> Runs:
    yield SINGLE, _judged_lines(geneval.judgment, _path(files.answers))


def _dpg(files: RecordedFiles, arithmetic: Arithmetic) -> Runs:
    questions, answers = _path(files.questions), _path(files.answers)
    table = read_table(_text(questions), str(questions), first_row_kept=arithmetic == "corrected")
    replies = dpg.read_answers(_document(answers), str(answers))
    yield SINGLE, dpg.judgments(table, replies, files.layout, files.pictures, arithmetic)


def _imgedit(files: RecordedFiles, arithmetic: Arithmetic) -> Runs:
    answers, items = _path(files.answers), _items(files)
    document = _document(answers)
    if isinstance(document, dict):
        yield SINGLE, imgedit.judgments(document, items, arithmetic)
        return
    for name, run, place in _named_runs(document, str(answers)):
        replies = run.get("judge_replies")
        if not isinstance(replies, dict):
            raise BadInput(f"{place}, field judge_replies: expected an object key -> reply", field="answers")
        yield name, imgedit.judgments(replies, items, arithmetic)


def _items(files: RecordedFiles) -> dict[str, str] | None:
    path = files.items
    if path is None and files.benchmark_data is not None and (files.benchmark_data / DEFAULT_ITEMS).is_file():
        path = files.benchmark_data / DEFAULT_ITEMS
    return None if path is None else imgedit.read_items(_document(path), str(path))


def _gedit(files: RecordedFiles, arithmetic: Arithmetic) -> Runs:
    if files.replies is not None:
        judge = partial(gedit.reply_judgment, arithmetic=arithmetic)
        yield SINGLE, _judged_lines(judge, files.replies)
        return
    path = _path(files.rows)
    for name, run, place in _named_runs(_document(path), str(path)):
        yield name, gedit.row_judgments(_checked(gedit.RecordedRun.model_validate, run, place), arithmetic)


def _judged_lines(judge: Callable[[dict[str, Any]], Judgment], path: Path) -> list[Judgment]:
    """One judgment per line. Raises BadInput for an id that two lines have: its picture would count twice."""
    places: dict[str, str] = {}
    found: list[Judgment] = []
    for line, place in _lines(path):
        judgment = _checked(judge, line, place)
        if judgment.id in places:
            before = places[judgment.id].rpartition(", ")[2]
            raise BadInput(f"{place}, field id: {judgment.id!r} is that of {before} too", field="files")
        places[judgment.id] = place
        found.append(judgment)
    return found


def _named_runs(document: Any, name: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name, content and place of each run of a list of runs. Raises BadInput for anything else or a repeated name."""
    if not isinstance(document, list):
        raise BadInput(f"{name}: expected a list of runs", field="files")
    seen: set[str] = set()
    for number, run in enumerate(document):
        place = f"{name}, run {number}"
        label = run.get("name") if isinstance(run, dict) else None
        if not isinstance(label, str) or not label or label in seen:
            raise BadInput(f"{place}, field name: expected a text that no other run has", field="files")
        seen.add(label)
        yield label, run, place


TABLES: dict[str, Callable[[Sequence[Judgment], Arithmetic], Mapping[str, Any]]] = {
    "geneval": geneval_summary.rows,
    "dpg": dpg_summary.rows,
    "imgedit": imgedit_summary.rows,
    "gedit": gedit_summary.rows,
}


def _result(benchmark: str, arithmetic: Arithmetic, judgments: Sequence[Judgment], resamples: int) -> Result:
    items = [judgment.item() for judgment in judgments]
    if benchmark == "geneval":
        items = [item | {name: item["evidence"][name] for name in GENEVAL_FIELDS} for item in items]
    rows = score_rows(TABLES[benchmark](judgments, arithmetic), resamples)
    return {
        "benchmark": benchmark,
        "arithmetic": arithmetic,
        "items": items,
        "rows": {name: row.as_dict() for name, row in rows.items()},
    }


def _path(path: Path | None) -> Path:
    if path is None:
        raise BadInput("no file was named", field="files")
    return path


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", field=str(path)) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"is not UTF-8: {error}", field=str(path)) from error


def _document(path: Path) -> Any:
    return _json(_text(path), str(path))


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Every line's object with its place. Lines end at a newline only: replies may hold other separators."""
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            row = _json(line, place)
            if not isinstance(row, dict):
                raise BadInput(f"{place}: expected an object", field="files")
            yield row, place


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{place}: not JSON ({error})", field="files") from error


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys do not repeat: a second one would silently take the first one's place."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in found if names.count(name) > 1)!r} occurs twice")
    return found


def _checked(parse: Callable[[dict[str, Any]], Parsed], row: dict[str, Any], place: str) -> Parsed:
    """``parse`` with its complaints as one BadInput that names the place and every field."""
    try:
        return parse(row)
    except ValidationError as error:
        faults = [
            f"field {'.'.join(str(part) for part in fault['loc']) or '(whole)'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise BadInput(f"{place}, {'; '.join(faults)}", field="files") from error
