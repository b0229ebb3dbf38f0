"""POPE: is there such an object in the picture? Half of the questions ask for one that is not.

Three splits choose the absent objects at random, by frequency, or by what usually stands beside. Files as published:
``pope/coco_pope_<split>.json`` with {question_id, image, text, label} per line, pictures in ``pope/val2014/``. The
rendered world has two splits of its own: absent shapes, and present shapes in the colour of their neighbour.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmark import BenchmarkCard, Group, PromptPlan, RowData, SourcePicture
from evaluation.records import Arithmetic, Judgment, Scored
from evaluation.rendered import painted
from evaluation.understanding.questions import (
    ANSWER,
    CORRECT,
    DATA_FIELD,
    PICTURE,
    SAID_YES,
    Asked,
    QuestionBenchmark,
    Readings,
    data_file,
    data_lines,
    yes_or_no,
)
from evaluation.understanding.reading import pope_reading, strict_yes_no
from reca_core.contracts.errors import BadInput
from reca_core.contracts.world import CELL_NAMES, COLOURS, NO, QUESTION_FORMS, SHAPES, YES, Draws

SPLITS = ("random", "popular", "adversarial")
FIELDS = ("question_id", "image", "text", "label")
CARD = BenchmarkCard(
    name="POPE",
    paper="Li et al. 2023, arXiv 2305.10355",
    data_origin="github.com/AoiDragon/POPE @ 7ef3026faa9a, output/coco/; pictures: COCO val2014",
    files=(),
    licence="MIT; pictures under their owners' terms (COCO)",
    published_judge="none: the model's words are read by rule",
    pictures_per_prompt=1,
)
WORLD_PICTURES = 48
WORLD_OBJECTS = 3
"""In every picture, all of different shape and colour; as many shapes are absent."""
ABSENT, MIXED = "random", "adversarial"


class Pope(QuestionBenchmark):
    """The rules over the questions of all splits."""

    card = CARD
    readings: Readings = {
        "parity": lambda reply, item: pope_reading(reply),
        "corrected": lambda reply, item: strict_yes_no(reply),
    }

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> Pope:
        """The published questions from ``data``, or those of a rendered world, which needs no data.

        Raises: PrerequisiteMissing for an absent file; BadInput naming file and line of what does not fit.
        """
        if world:
            items, sources = world_questions(plan.first_seed, WORLD_PICTURES)
            return cls(benchmark_id, items, sources, plan)
        items = [item for split in SPLITS for item in _read(data_file(data, CARD, f"pope/{_file(split)}"), split)]
        folder = data_file(data, CARD, "pope/val2014")
        sources = {item.picture: SourcePicture(file=folder / item.picture) for item in items}
        return cls(benchmark_id, items, sources, plan)

    @staticmethod
    def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
        """Every number as the mean over the splits, then split by split."""
        present = list(dict.fromkeys(judgment.tag for judgment in judgments))
        splits = {split: [judgment for judgment in judgments if judgment.tag == split] for split in present}
        table = {
            number: _row([_group(split, splits[split], number) for split in present], judgments) for number in NUMBERS
        }
        for split in present:
            table |= {
                f"{split}/{number}": _row([_group(split, splits[split], number)], splits[split]) for number in NUMBERS
            }
        return table


# --- numbers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """One question with its answer."""

    right: bool
    said_yes: bool
    is_yes: bool
    """The right answer is yes."""

    @property
    def hit(self) -> bool:
        """A true positive."""
        return self.said_yes and self.is_yes


NUMBERS: dict[str, Callable[[Answered], tuple[float, float]]] = {
    "accuracy": lambda one: (one.right, 1),
    "precision": lambda one: (one.hit, one.said_yes),
    "recall": lambda one: (one.hit, one.is_yes),
    "f1": lambda one: (one.hit, one.said_yes + one.is_yes),
    "yes_ratio": lambda one: (one.said_yes, 1),
}
"""Value and weight of one question: every number is a weighted mean. F1 is 2TP / (2TP + FP + FN)."""


def _group(split: str, judgments: Sequence[Judgment], number: str) -> Group:
    """Questions about one picture share a cluster."""
    scored = [judgment.outcome for judgment in judgments if isinstance(judgment.outcome, Scored)]
    weighted = [NUMBERS[number](_answered(outcome)) for outcome in scored]
    return Group(
        name=split,
        clusters=tuple(outcome.evidence[PICTURE] for outcome in scored),
        values=tuple(float(value) for value, _ in weighted),
        weights=tuple(float(weight) for _, weight in weighted),
    )


def _answered(outcome: Scored) -> Answered:
    said_yes, right = bool(outcome.values[SAID_YES]), bool(outcome.values[CORRECT])
    return Answered(right=right, said_yes=said_yes, is_yes=outcome.evidence[ANSWER] == YES)


def _row(groups: Sequence[Group], judgments: Sequence[Judgment]) -> RowData:
    return RowData(tuple(groups), sum(len(group.values) for group in groups), len(judgments))


# --- files and world --------------------------------------------------------------------------------------------------


def _file(split: str) -> str:
    return f"coco_pope_{split}.json"


def _read(path: Path, split: str) -> list[Asked]:
    return [_item(line, f"{path}, line {number}", split) for number, line in enumerate(data_lines(path), 1)]


def _item(line: str, place: str, split: str) -> Asked:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{place}: not JSON ({error})", field=DATA_FIELD) from error
    missing = [name for name in FIELDS if not isinstance(record, dict) or name not in record]
    if missing:
        raise BadInput(f"{place} lacks {', '.join(missing)}", field=DATA_FIELD, choices=FIELDS)
    return Asked(
        prompt_id=f"{split}/{record['question_id']}",
        question=str(record["text"]),
        answer=yes_or_no(str(record["label"]), place),
        picture=str(record["image"]),
        tag=split,
    )


def world_questions(split_seed: int, pictures: int) -> tuple[list[Asked], dict[str, SourcePicture]]:
    """Questions about rendered pictures, six of each split per picture, half of them to be denied; and the pictures."""
    draws = Draws(split_seed, "pope")
    items: list[Asked] = []
    sources: dict[str, SourcePicture] = {}
    for number in range(pictures):
        name = f"{number:05d}.png"
        shapes, colours = draws.shuffled(SHAPES), draws.sample(tuple(COLOURS), WORLD_OBJECTS)
        cells = draws.sample(range(len(CELL_NAMES)), WORLD_OBJECTS)
        shown, absent = shapes[:WORLD_OBJECTS], shapes[WORLD_OBJECTS:]
        sources[name] = painted(dict(zip(cells, zip(shown, colours, strict=True), strict=True)))
        mixed = zip(shown, colours[1:] + colours[:1], strict=True)
        asked = {
            ABSENT: [(_exists(shape), YES) for shape in shown] + [(_exists(shape), NO) for shape in absent],
            MIXED: [(_exists(*pair), YES) for pair in zip(shown, colours, strict=True)]
            + [(_exists(*pair), NO) for pair in mixed],
        }
        for split, questions in asked.items():
            items += _of_picture(name, split, draws.shuffled(questions))
    return sorted(items, key=lambda item: item.tag != ABSENT), sources


def _exists(shape: str, colour: str = "") -> str:
    return QUESTION_FORMS["exists_colour" if colour else "exists"].format(shape=shape, colour=colour)


def _of_picture(name: str, split: str, questions: Iterable[tuple[str, str]]) -> list[Asked]:
    stem = name.removesuffix(".png")
    return [
        Asked(f"{split}/{stem}-{number}", question, answer, picture=name, tag=split)
        for number, (question, answer) in enumerate(questions)
    ]
