"""How many recorded answers the rules score per second: section ``rules`` of ``make bench``.

Synthetic answers of every benchmark go through ``reca score``'s own path, reading and writing apart from disk included;
once with the fewest resamples, which is the rules, and once with the interval that every table has.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from evaluation.aggregate import DEFAULT_RESAMPLES
from evaluation.benchmarks.dpg.benchmark import world_table
from evaluation.benchmarks.geneval.verdict import COLOURS
from evaluation.benchmarks.imgedit.ratings import EDIT_TYPES, LABELS
from evaluation.score import RecordedFiles, score_recorded
from reca_core.contracts.bench import BenchPlace, Figure, rate
from reca_core.contracts.world_tasks import dense_items

ITEMS, QUICK_ITEMS = 5_000, 50
FEWEST_RESAMPLES = 1
CLASSES = ("bird", "chair", "cup", "dog")
TASKS = ("background_change", "color_alter", "style_change")


def rules(place: BenchPlace) -> list[Figure]:
    """Answers per second of all four benchmarks, with and without intervals."""
    items = QUICK_ITEMS if place.quick else ITEMS
    draw = random.Random(0)
    figures: list[Figure] = []
    for name, files, answers in _recorded(place.folder, items, draw):
        for resamples, what in ((FEWEST_RESAMPLES, "rules"), (DEFAULT_RESAMPLES, "rules and intervals")):
            work = partial(score_recorded, name, files, "corrected", resamples)
            work()  # the first call imports and compiles
            how = f"{answers} synthetic answers, file to table, {resamples} resamples, 1 process"
            figures.append(Figure(what=f"{name}, {what}", value=rate(answers, work), unit="answers/s", how=how))
    return figures


def _recorded(folder: Path, items: int, draw: random.Random) -> Iterator[tuple[str, RecordedFiles, int]]:
    """Benchmark, its files, and how many answers of a judge they hold."""
    geneval = _write(folder / "geneval.jsonl", [_picture(number, draw) for number in range(items)])
    yield "geneval", RecordedFiles(answers=geneval), items
    dense = dense_items(0, items // 50)
    questions = folder / "questions.csv"
    questions.write_text(world_table(dense), encoding="utf-8")
    said = {item.item_id: [{str(row.proposition_id): _yes_or_no(draw) for row in item.rows}] for item in dense}
    replies = _write(folder / "answers.json", [said])
    count = sum(len(picture[0]) for picture in said.values())
    yield "dpg", RecordedFiles(questions=questions, answers=replies, layout="first_image"), count
    ratings = {str(number): _rating(number, draw) for number in range(items)}
    types = {key: {"edit_type": EDIT_TYPES[int(key) % len(EDIT_TYPES)]} for key in ratings}
    edits = RecordedFiles(answers=_write(folder / "runs.json", [ratings]), items=_write(folder / "items.json", [types]))
    yield "imgedit", edits, items
    calls = _write(folder / "gedit.jsonl", [_calls(number, draw) for number in range(items // 2)])
    yield "gedit", RecordedFiles(replies=calls), 2 * (items // 2)


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _yes_or_no(draw: random.Random) -> str:
    return draw.choice(("yes", "no"))


def _picture(number: int, draw: random.Random) -> dict[str, object]:
    """Two coloured objects in a relation: every kind of clause at once."""
    first, second = draw.sample(CLASSES, 2)
    relation = draw.choice(("left of", "right of", "above", "below"))
    include = [
        {"class": first, "count": 1, "color": draw.choice(COLOURS)},
        {"class": second, "count": 1, "color": draw.choice(COLOURS), "position": [relation, 0]},
    ]
    found = {name: [_object(draw) for _ in range(draw.randrange(4))] for name in (first, second)}
    metadata = {"tag": "position", "include": include, "prompt": f"a {second} {relation} a {first}"}
    return {"id": str(number), "metadata": metadata, "detections": found}


def _object(draw: random.Random) -> dict[str, object]:
    x, y, side = draw.random() * 400, draw.random() * 400, 20 + draw.random() * 80
    return {"box": [x, y, x + side, y + side], "score": draw.random(), "color": draw.choice(COLOURS)}


def _rating(number: int, draw: random.Random) -> str:
    labels = LABELS[EDIT_TYPES[number % len(EDIT_TYPES)]]
    return "Brief reasoning: fine\n" + "\n".join(f"{label}: {draw.randint(1, 5)}" for label in labels)


def _calls(number: int, draw: random.Random) -> dict[str, object]:
    said = [json.dumps({"score": [draw.randint(0, 10), draw.randint(0, 10)], "reasoning": "fine"}) for _ in range(2)]
    place = {"task_type": draw.choice(TASKS), "instruction_language": "en", "intersection_exist": True}
    return {"id": str(number), "sc_replies": said[:1], "pq_replies": said[1:], **place}
