"""Reads run directories for the report: pictures side by side, reconstructions over the steps, where all came from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from evaluation.records import Judgment, Scored
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.records import PreviewRow, Prompt, Sample
from tasks.report_inputs import BenchmarkPair, Measured
from tasks.report_page import Pair, Picture, Strip
from tasks.report_pictures import embed

CORRECT = "correct"
STRIPS = 4
"""Shown of each kind."""
COLUMNS = 6

Row = TypeVar("Row")
Key = tuple[str, int]
"""prompt_id and seed: one picture."""


def pairs(pair: BenchmarkPair, limit: int) -> tuple[Pair, ...]:
    """The first prompts of each tag in turn, first seed, drawn by both models: chosen by position, never by result."""
    sides = [_Side(pair.base), _Side(pair.trained)]
    keys = [key for key in sides[0].samples if key in sides[1].samples]
    return tuple(_pair(key, *sides) for key in in_turn(keys, sides[0], limit))


class _Side:
    """One model's samples and judgments, by picture."""

    def __init__(self, measured: Measured) -> None:
        self.directory = measured.samples_directory
        samples = [Sample.model_validate(row) for row in read_jsonl(self.directory / "samples.jsonl")]
        self.samples = {(sample.prompt_id, sample.seed): sample for sample in samples}
        prompts = [Prompt.model_validate(row) for row in read_jsonl(self.directory / "prompts.jsonl")]
        self.order = [prompt.prompt_id for prompt in prompts]
        self.sources = {prompt.prompt_id: prompt.source_image for prompt in prompts}
        rows = read_jsonl(measured.answers_directory / "judgments.jsonl")
        judgments = [Judgment.model_validate(row) for row in rows]
        self.judgments = {(judgment.prompt_id, judgment.seed): judgment for judgment in judgments}

    def tag(self, key: Key) -> str:
        """The benchmark's group of a picture."""
        judgment = self.judgments.get(key)
        return judgment.tag if judgment else ""

    def picture(self, key: Key) -> Picture:
        """One picture with its verdict; for a reply, the picture it is about and what was said."""
        note, tone = verdict_of(self.judgments.get(key))
        sample = self.samples[key]
        if not sample.image_path:
            return embed(self.directory / self.sources[key[0]], f"{sample.reply!r}: {note}", tone)
        return embed(self.directory / sample.image_path, note, tone)


def in_turn(keys: Iterable[Key], side: _Side, limit: int) -> list[Key]:
    """One key per prompt (its first seed), going round the tags until ``limit`` is reached."""
    place = {prompt_id: number for number, prompt_id in enumerate(side.order)}
    first: dict[str, Key] = {}
    for key in sorted(keys, key=lambda key: (place.get(key[0], math.inf), key[1])):
        first.setdefault(key[0], key)
    by_tag: dict[str, list[Key]] = {}
    for key in first.values():
        by_tag.setdefault(side.tag(key), []).append(key)
    rounds = max(map(len, by_tag.values()), default=0)
    turns = [keys[turn] for turn in range(rounds) for keys in by_tag.values() if turn < len(keys)]
    return turns[:limit]


def _pair(key: Key, base: _Side, trained: _Side) -> Pair:
    return Pair(base.samples[key].text, base.tag(key).replace("_", " "), base.picture(key), trained.picture(key))


def verdict_of(judgment: Judgment | None) -> tuple[str, str]:
    """What was said about a picture, in words, and whether that is good."""
    if judgment is None:
        return "not judged", "none"
    if not isinstance(judgment.outcome, Scored):
        return f"unscored: {judgment.outcome.reason}", "none"
    values = judgment.outcome.values
    if CORRECT not in values:
        return ", ".join(f"{name} {value:.3g}" for name, value in values.items()), "none"
    if values[CORRECT]:
        return "correct", "good"
    return str(judgment.outcome.evidence.get("reason") or "not correct"), "bad"


def strips(run: RunDirectory) -> tuple[Strip, ...]:
    """The fixed pictures and prompts of the training, each at up to ``COLUMNS`` steps."""
    rows = [PreviewRow.model_validate(row) for row in read_jsonl(run.previews / "index.jsonl")]
    inputs: dict[tuple[str, str, str], list[PreviewRow]] = {}
    for row in sorted(rows, key=lambda row: row.step):
        inputs.setdefault((row.task, row.source, row.text), []).append(row)
    chosen = [key for task in ("reconstruct", "draw") for key in [key for key in inputs if key[0] == task][:STRIPS]]
    return tuple(_strip(run, key, inputs[key]) for key in chosen)


def _strip(run: RunDirectory, key: tuple[str, str, str], rows: Sequence[PreviewRow]) -> Strip:
    task, source, text = key
    shown = [embed(run.previews / row.path, f"step {row.step}") for row in spread(rows, COLUMNS)]
    original = [embed(run.previews / source, "picture")] if source else []
    label = f"reconstruction of {text}" if task == "reconstruct" else text
    return Strip(label, tuple(original + shown))


def spread(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most ``limit`` rows, evenly over the sequence, first and last included."""
    if len(rows) <= limit:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (limit - 1))] for place in range(limit)]
