"""MMVP: pairs of pictures that look alike to CLIP, one question with two options about both.

A pair counts when both are right; that share is the number papers quote. Its authors grade free replies with GPT-4;
RecA and others read the letter by rule (InternVL's script), and so is it here. Files as published:
``mmvp/Questions.csv`` (number, question, options ``(a) ... (b) ...``, right answer ``(a)``) and
``mmvp/MMVP Images/<number>.jpg``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.benchmark import BenchmarkCard, Group, PromptPlan, RowData, SourcePicture
from evaluation.records import Arithmetic, Judgment, Scored
from evaluation.understanding.questions import (
    CORRECT,
    DATA_FIELD,
    UNIT,
    Asked,
    QuestionBenchmark,
    Readings,
    data_file,
    data_lines,
)
from evaluation.understanding.reading import internvl_choice, strict_choice
from reca_core.contracts.errors import BadInput

CARD = BenchmarkCard(
    name="MMVP",
    paper="Tong et al. 2024, arXiv 2401.06209",
    data_origin="Hugging Face MMVP/MMVP",
    files=(),
    licence="MIT",
    published_judge="GPT-4 in the paper; the letter of the reply in RecA's scripts and here",
    pictures_per_prompt=1,
)
COLUMNS = ("number", "question", "options", "right answer")
"""By place: the first is spelled ``lndex`` in the published file."""
REQUEST = "Reply with the letter of the right option."
PER_PAIR = 2
_OPTION = re.compile(r"\(([a-d])\)")
_ANSWER = re.compile(r"\s*\(?([a-dA-D])\)?\s*")


class Mmvp(QuestionBenchmark):
    """The rules over all pairs."""

    card = CARD
    readings: Readings = {
        "parity": lambda reply, item: internvl_choice(reply, item.options),
        "corrected": lambda reply, item: strict_choice(reply, item.options),
    }

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> Mmvp:
        """The published questions from ``data``.

        Raises: PrerequisiteMissing for an absent file; BadInput naming file and line of what does not fit.
        """
        path = data_file(data, CARD, "mmvp/Questions.csv")
        rows = list(csv.reader(io.StringIO("\n".join(data_lines(path)))))[1:]
        if len(rows) % PER_PAIR:
            raise BadInput(f"{len(rows)} questions do not make pairs", field=str(path))
        items = [_item(row, number, f"{path}, question {number + 1}") for number, row in enumerate(rows)]
        folder = data_file(data, CARD, "mmvp/MMVP Images")
        return cls(
            benchmark_id, items, {item.picture: SourcePicture(file=folder / item.picture) for item in items}, plan
        )

    @staticmethod
    def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
        """Pairs, then single questions."""
        pairs: dict[str, list[float]] = {}
        scored = [judgment.outcome for judgment in judgments if isinstance(judgment.outcome, Scored)]
        for outcome in scored:
            pairs.setdefault(outcome.evidence[UNIT], []).append(outcome.values[CORRECT])
        whole = {unit: min(values) for unit, values in pairs.items() if len(values) == PER_PAIR}
        single = Group(
            "pairs",
            tuple(outcome.evidence[UNIT] for outcome in scored),
            tuple(outcome.values[CORRECT] for outcome in scored),
        )
        expected = len({judgment.outcome.evidence[UNIT] for judgment in judgments})
        return {
            "pair_accuracy": RowData((Group("pairs", tuple(whole), tuple(whole.values())),), len(whole), expected),
            "accuracy": RowData((single,), len(scored), len(judgments)),
        }


def _item(row: Sequence[str], number: int, place: str) -> Asked:
    if len(row) != len(COLUMNS):
        raise BadInput(f"{place} has {len(row)} columns", field=DATA_FIELD, choices=COLUMNS)
    name, question, options_text, right = (cell.strip() for cell in row)
    options = read_options(options_text)
    match = _ANSWER.fullmatch(right)
    if not match or match[1].upper() not in options:
        raise BadInput(f"{place}: the answer {right!r} is none of {', '.join(options)}", field=DATA_FIELD)
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return Asked(
        prompt_id=name,
        question=f"{question}\n{listed}\n{REQUEST}",
        answer=match[1].upper(),
        picture=f"{name}.jpg",
        unit=f"pair {number // PER_PAIR + 1}",
        options=options,
    )


def read_options(text: str) -> Mapping[str, str]:
    """``(a) Open (b) Closed`` as {"A": "Open", "B": "Closed"}."""
    parts = _OPTION.split(text)
    return {letter.upper(): option.strip() for letter, option in zip(parts[1::2], parts[2::2], strict=True)}
