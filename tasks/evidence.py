"""What MLflow and Prefect show of a judging: every question with its answer and verdict, pictures, and the scores.

The per-prompt table shows the picture of a row, of the first TABLE_PICTURES if there are more: those with the lowest
scores; every row names its picture's path. Two grids: pictures of fixed prompts, chosen by place so that models can be
compared, and the worst pictures of this model, chosen by result so that its failures can be seen. They never share a
key.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.records import Judgment, Reply, Scored, ScoreTable, TranscriptRow, Unscored
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.records import Prompt, Sample
from tasks import plan, tracking
from tasks.artifacts import show_page
from tasks.report_scores import NONE, decimals, number
from tasks.results import Judged
from tasks.sample import SAMPLES_FILE
from tasks.tracking import TrackedRun
from tasks.tracking_pictures import log_table_pictures

JUDGMENTS_FILE = "judgments.jsonl"
TRANSCRIPT_FILE = "transcript.jsonl"
LONGEST_TEXT = 400
"""Characters of a question or reply in the table; all of it is in transcript.jsonl."""
LONGEST_KEY = 60
"""Characters of a prompt in the name of its picture: long names are cut in paths."""

TABLE_PICTURES = 256
"""Pictures that the per-prompt table shows; a full GenEval has thousands, and MLflow keeps each as a file."""
IMAGE_COLUMN, BEFORE_COLUMN = "image", "prompt"

Key = tuple[str, int]
"""Prompt id and seed: one picture."""


def log_evidence(child: TrackedRun, judged: Judged, limit: int) -> None:
    """The per-prompt table and both grids."""
    folder = Path(judged.sampled.directory)
    prompts = [Prompt.model_validate(row) for row in read_jsonl(folder / plan.PROMPTS_FILE)]
    samples = [Sample.model_validate(row) for row in read_jsonl(folder / SAMPLES_FILE)]
    judgments = [Judgment.model_validate(row) for row in read_jsonl(Path(judged.directory) / JUDGMENTS_FILE)]
    asked = asked_of(TranscriptRow.model_validate(row) for row in read_jsonl(Path(judged.directory) / TRANSCRIPT_FILE))
    columns, rows = per_prompt_table(samples, judgments, asked)
    files = {(row.prompt_id, row.seed): folder / row.image_path for row in samples if row.image_path}
    shown = pictures_in_table(judgments, files)
    if any(shown.values()):
        rows.sort(key=lambda row: shown[row[0], row[1]] is None)
        columns, rows = _with_pictures(columns, rows, log_table_pictures(child, shown))
    tracking.log_table(child, columns, rows)
    grids = {
        judged.benchmark: shown_pictures(prompts, judgments, limit),
        f"worst {judged.benchmark}": worst_pictures(judgments, limit),
    }
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    pictures = [
        (picture_key(name, key[0], texts[key[0]]), 0, files[key])
        for name, keys in grids.items()
        for key in keys
        if key in files
    ]
    tracking.log_pictures(child, pictures)


def picture_key(grid: str, prompt_id: str, text: str) -> str:
    """The name of a prompt's picture in a grid: the words first, since MLflow shows only the beginning."""
    return tracking.plain_key(f"{text[:LONGEST_KEY]} {prompt_id} {grid}")


def grid_keys(judged: Judged, limit: int) -> list[str]:
    """The keys of the pictures at fixed prompts, as ``log_evidence`` used them."""
    folder = Path(judged.sampled.directory)
    prompts = [Prompt.model_validate(row) for row in read_jsonl(folder / plan.PROMPTS_FILE)]
    judgments = [Judgment.model_validate(row) for row in read_jsonl(Path(judged.directory) / JUDGMENTS_FILE)]
    texts = {prompt.prompt_id: prompt.text for prompt in prompts}
    shown = shown_pictures(prompts, judgments, limit)
    return [picture_key(judged.benchmark, prompt_id, texts[prompt_id]) for prompt_id, _ in shown]


def per_prompt_table(
    samples: Sequence[Sample], judgments: Sequence[Judgment], asked: Mapping[Key, str]
) -> tuple[list[str], list[list[Any]]]:
    """One row per picture: what was asked for, what the judge was asked and said, how it scored, or why it did not."""
    made = {(sample.prompt_id, sample.seed): sample for sample in samples}
    names = list(dict.fromkeys(name for item in judgments for name in _values(item)))
    columns = ["prompt_id", "seed", "tag", "prompt", "picture", "asked and answered", *names, "unscored"]
    rows: list[list[Any]] = []
    for item in judgments:
        key = (item.prompt_id, item.seed)
        sample = made.get(key)
        said = [sample.text, sample.image_path] if sample else ["", ""]
        reason = item.outcome.reason if isinstance(item.outcome, Unscored) else ""
        values = [_values(item).get(name) for name in names]
        rows.append([item.prompt_id, item.seed, item.tag, *said, asked.get(key, ""), *values, reason])
    return columns, rows


def pictures_in_table(judgments: Sequence[Judgment], files: Mapping[Key, Path]) -> dict[Key, Path | None]:
    """Every row's picture, or None where it is not shown: those with the lowest scores are, one per prompt first."""
    keys = [(item.prompt_id, item.seed) for item in judgments]
    first = worst_pictures(judgments, TABLE_PICTURES)
    scores = {key: next(iter(_values(item).values()), 0.0) for key, item in zip(keys, judgments, strict=True)}
    ordered = dict.fromkeys([*first, *sorted(keys, key=lambda key: scores[key])])
    chosen = set(itertools.islice((key for key in ordered if key in files), TABLE_PICTURES))
    return {key: files[key] if key in chosen else None for key in keys}


def _with_pictures(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], cells: Mapping[Key, object]
) -> tuple[list[str], list[list[Any]]]:
    """The table with a column of pictures."""
    place = columns.index(BEFORE_COLUMN)
    wide = [[*row[:place], cells[row[0], row[1]], *row[place:]] for row in rows]
    return [*columns[:place], IMAGE_COLUMN, *columns[place:]], wide


def _values(judgment: Judgment) -> dict[str, float]:
    return dict(judgment.outcome.values) if isinstance(judgment.outcome, Scored) else {}


def asked_of(rows: Iterator[TranscriptRow]) -> dict[Key, str]:
    """What was asked about every picture and what was said, one line per ask."""
    lines: dict[Key, list[str]] = {}
    for row in rows:
        question = row.question.text or row.question.key
        lines.setdefault((row.prompt_id, row.seed), []).append(f"{_short(question)} -> {_short(in_words(row.reply))}")
    return {key: "\n".join(said) for key, said in lines.items()}


def in_words(reply: Reply) -> str:
    """A reply of any kind as text."""
    if reply.error:
        return f"no reply: {reply.error}"
    found = ", ".join(f"{finding.label} {finding.score:.2f}" for finding in reply.findings)
    return reply.text or ", ".join(reply.labels) or found or "nothing"


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= LONGEST_TEXT else plain[:LONGEST_TEXT] + " ..."


def shown_pictures(prompts: Sequence[Prompt], judgments: Sequence[Judgment], limit: int) -> Iterator[Key]:
    """Prompt id and first seed of the first prompts of each tag in turn."""
    tags = {judgment.prompt_id: judgment.tag for judgment in judgments}
    by_tag: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_tag.setdefault(tags.get(prompt.prompt_id, ""), []).append(prompt)
    most = max(map(len, by_tag.values()), default=0)
    turns = [members[turn] for turn in range(most) for members in by_tag.values() if turn < len(members)]
    for prompt in turns[:limit]:
        yield prompt.prompt_id, prompt.seeds[0]


def worst_pictures(judgments: Sequence[Judgment], limit: int) -> list[Key]:
    """The pictures with the lowest scores, one per prompt; none where all score alike."""
    scored = [(next(iter(values.values())), item) for item in judgments if (values := _values(item))]
    best = max((value for value, _ in scored), default=0.0)
    ordered = sorted((pair for pair in scored if pair[0] < best), key=lambda pair: pair[0])
    first: dict[str, Key] = {}
    for _, item in ordered:
        first.setdefault(item.prompt_id, (item.prompt_id, item.seed))
    return list(first.values())[:limit]


def show_scores(judged: Judged) -> None:
    """The score table as an artifact of the Prefect flow run, where there is one."""
    key, description = f"scores {judged.benchmark} {judged.model.name}", f"{judged.benchmark} of {judged.model.name}"
    show_page(markdown(judged.table), key, description)


def markdown(table: ScoreTable) -> str:
    """A score table; row names are the benchmark's own words, with nothing of Markdown in them."""
    lines = ["| | value | 95% interval | judged |", "|---|---:|---:|---:|"]
    digits = decimals([row.value for row in table.rows.values()])
    for name, row in table.rows.items():
        ends = f"{number(row.low, digits)} to {number(row.high, digits)}" if row.low is not None else NONE
        value = "not scored" if row.value is None else number(row.value, digits)
        lines.append(f"| {name.replace('_', ' ')} | {value} | {ends} | {row.n_scored}/{row.n_expected} |")
    return "\n".join(lines) + "\n"
