"""DPG-Bench behind the benchmark protocol: every question of the table is asked about every picture.

Pictures lie one per file as ``<item>_<k>.png``, the layout of RecA's copy, whose numbers this project compares with.
The rendered world has prompts and a question table of its own with the same columns (contracts/world_tasks.py).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from evaluation.benchmark import (
    BenchmarkCard,
    Known,
    ModelTask,
    PinnedFile,
    PromptPlan,
    RowData,
    SourcePicture,
    failure,
)
from evaluation.benchmarks.data import read_pinned
from evaluation.benchmarks.dpg import summary
from evaluation.benchmarks.dpg.scoring import score_file, unscored_file
from evaluation.benchmarks.dpg.table import COLUMNS, NO_PARENT, Table, read_table
from evaluation.records import Answer, Arithmetic, Judgment, Question, Reply, Scored, Unscored, Unusable
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world_tasks import DenseItem, dense_items

PROMPTS = PinnedFile("dpg_prompts.jsonl", sha256="9713080d355dce2def6d028174ae2998d24a4df81eb692059264108353d74528")
QUESTIONS = PinnedFile("dpg_bench.csv", git_blob="98457fc9901943f51ff9a30367250fc292533bed")
CARD = BenchmarkCard(
    name="DPG-Bench",
    paper="Hu et al. 2024 (ELLA), arXiv 2403.05135",
    data_origin="github.com/TencentQQGYLab/ELLA @ 3c228f1dc6c4, dpg_bench/",
    files=(PROMPTS, QUESTIONS),
    licence="Apache-2.0",
    published_judge="mPLUG-large, ModelScope damo/mplug_visual-question-answering_coco_large_en v1.0.0",
    pictures_per_prompt=4,
    published={"Harmon-1.5B": 80.93, "Harmon-1.5B-RecA": 87.21, "BAGEL": 84.03, "BAGEL-RecA": 85.29},
)
PER_PICTURE = 1
"""Pictures in a file."""
WORLD_ITEMS = 128
"""Dense prompts that the rendered world's form of the benchmark has."""


def _published_items(data: Path | None) -> list[tuple[str, str]]:
    """Item and text of every published prompt, in file order."""
    lines = [json.loads(line) for line in read_pinned(data, "dpg", PROMPTS).split("\n") if line.strip()]
    return [(line["item_id"], line["text"]) for line in lines]


class DpgBench:
    """The rules over the items of a prompts file and the questions of a table."""

    card = CARD
    task: ModelTask = "draw"

    def __init__(
        self, benchmark_id: str, prompts: Sequence[tuple[str, str]], tables: dict[Arithmetic, Table], plan: PromptPlan
    ) -> None:
        self.id = benchmark_id
        self._prompts = list(prompts)
        self._tables = tables
        self._plan = plan

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> DpgBench:
        """The published prompts and questions from ``data``, or those of a rendered world, which needs no data.

        Raises: PrerequisiteMissing for absent or altered files.
        """
        if world:
            items = dense_items(plan.first_seed, min(plan.prompts_per_tag or WORLD_ITEMS, WORLD_ITEMS))
            return cls(benchmark_id, [(item.item_id, item.text) for item in items], _tables(world_table(items)), plan)
        published = _published_items(data)
        return cls(benchmark_id, published, _tables(read_pinned(data, "dpg", QUESTIONS)), plan)

    @classmethod
    def prompt_texts(cls, data: Path | None) -> list[str]:
        """What the published prompts say; the questions need not be there. Raises PrerequisiteMissing."""
        return [text for _, text in _published_items(data)]

    def prompts(self) -> list[Prompt]:
        """The first ``prompts_per_tag`` items (the benchmark has no tags), in file order."""
        chosen = self._prompts[: self._plan.prompts_per_tag or None]
        pictures = range(self._plan.pictures_per_prompt)
        return [
            Prompt(prompt_id=item, text=text, seeds=self._plan.seeds, outputs=[f"{item}_{k}.png" for k in pictures])
            for item, text in chosen
        ]

    def sources(self) -> dict[str, SourcePicture]:
        """None: pictures are drawn from text."""
        return {}

    def companions(self) -> dict[str, str]:
        """None: the layout is pictures only."""
        return {}

    def questions(self, prompt: Prompt, sample: Sample, known: Known) -> list[Question]:
        """Every question of the item, all at once; both arithmetics are served by the full table."""
        questions = self._tables["corrected"].get(prompt.prompt_id, {})
        return [
            Question(key=str(number), kind="text", text=question.text, parts=["sample", "text"])
            for number, question in questions.items()
            if str(number) not in known
        ]

    def most_asks(self, prompt: Prompt) -> int:
        """Every question of the item once."""
        return len(self._tables["corrected"].get(prompt.prompt_id, {}))

    def parse(self, question: Question, reply: Reply) -> Answer | Unusable:
        """Any text is an answer; only an exact ``yes`` will count."""
        return Answer(reply=reply)

    def judgment(self, prompt: Prompt, sample: Sample, known: Known, arithmetic: Arithmetic) -> Judgment:
        """The share of questions that hold."""
        questions = self._tables[arithmetic].get(prompt.prompt_id)
        broken = failure(known)
        outcome: Scored | Unscored
        if broken:
            outcome = unscored_file(questions, PER_PICTURE, broken.reason, broken.outage)
        else:
            answers = {int(key): exchange.replies[-1].text for key, exchange in known.items()}
            outcome = score_file(questions, [answers], PER_PICTURE)
        return _judgment(prompt, sample.seed, outcome)

    def unscored(self, prompt: Prompt, seed: int, outcome: Unscored) -> Judgment:
        """A picture that nothing can be asked about; its questions stay expected in the categories."""
        questions = self._tables["corrected"].get(prompt.prompt_id)
        return _judgment(prompt, seed, unscored_file(questions, PER_PICTURE, outcome.reason, outcome.outage))

    @staticmethod
    def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
        """See ``summary.rows``."""
        return summary.rows(judgments, arithmetic)


def _judgment(prompt: Prompt, seed: int, outcome: Scored | Unscored) -> Judgment:
    return Judgment(id=f"{prompt.prompt_id}/{seed}", prompt_id=prompt.prompt_id, seed=seed, outcome=outcome)


def _tables(text: str) -> dict[Arithmetic, Table]:
    """The question table as it is, and as the upstream loader reads it."""
    return {
        "corrected": read_table(text, QUESTIONS.path),
        "parity": read_table(text, QUESTIONS.path, first_row_kept=False),
    }


def world_table(items: Sequence[DenseItem]) -> str:
    """The questions about dense prompts of the rendered world, as the text of a question table."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for row in (row for item in items for row in item.rows):
        parents = ",".join(map(str, row.dependency or (NO_PARENT,)))
        writer.writerow([row.item_id, row.proposition_id, parents, row.tuple, row.question])
    return stream.getvalue()
