"""GEdit-Bench behind the benchmark protocol: two calls per edit, repeated until both arithmetics can be reported.

Layout: ``fullset/<task>/<lang>/<key>.png``, the source beside it as ``<key>_SRCIMG.png``. An item is (task, language,
key): keys alone are not unique. The fetched data set has all 606 English items and says which are in the intersection;
the list that is available as a file alone has the 604 whose keys are unique and does not say it.
The rendered world has items of five of the eleven tasks, painted pictures to edit, and questions in its own words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from evaluation.benchmarks.data import read_pinned, read_recorded
from evaluation.benchmarks.gedit import summary
from evaluation.benchmarks.gedit.rounds import CALLS, MAX_ROUNDS, calls_to_make, score_replies
from evaluation.records import Answer, Arithmetic, Judgment, Question, Reply, Scored, Unscored, Unusable
from evaluation.rendered import painted
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world_edits import GEDIT_TYPES, EditItem, edit_items
from reca_core.contracts.world_tasks import PICTURE_SCORES_FORM, edit_scores_question

ITEMS = PinnedFile(
    "gedit_en_instructions.json", sha256="9d34f6fc8741b840c9ebd28b699b17823536b8adc65dbfb153059208a6d5bf24"
)
ITEMS_FILE = "items.jsonl"
"""What the fetched data set says of every item besides its picture."""
SC_TEXT = PinnedFile("judge_sc_template.txt", sha256="8f529562c2f89f8db51a3f7cc4d487686f676909c21010b67b0e65ec78150de5")
PQ_TEXT = PinnedFile("judge_pq_prompt.txt", sha256="2473ff2c7406e06545c5c039ceb039ff2604ebacf150868a48f0bf07c9e733b0")
CARD = BenchmarkCard(
    name="GEdit-Bench",
    paper="Liu et al. 2025 (Step1X-Edit), arXiv 2504.17761",
    data_origin="Hugging Face stepfun-ai/GEdit-Bench; judge texts github.com/stepfun-ai/Step1X-Edit @ 570eba6ebda0",
    files=(ITEMS, SC_TEXT, PQ_TEXT),
    licence="MIT (dataset card), judge texts Apache-2.0",
    published_judge="gpt-4.1-2025-04-14",
    pictures_per_prompt=1,
    published={"BAGEL": 6.94, "BAGEL-RecA": 7.27},
)
PLACEHOLDER = "<instruction>"
LANGUAGE_OF_ITEMS = "en"
ROOT = "fullset"
WORLD_ITEMS_PER_TYPE = 24
"""Items of every task that the rendered world's form of the benchmark has."""


@dataclass(frozen=True)
class GEditItem:
    """One edit."""

    task: str
    language: str
    key: str
    instruction: str
    intersection: bool

    @property
    def path(self) -> str:
        """Identity and place: ``fullset/<task>/<lang>/<key>``."""
        return f"{ROOT}/{self.task}/{self.language}/{self.key}"

    @property
    def source(self) -> str:
        """Place of the picture to edit, also in upstream's tree of results."""
        return f"{self.path}_SRCIMG.png"


class GEdit:
    """The rules over a list of items."""

    card = CARD
    task: ModelTask = "edit"

    def __init__(
        self,
        benchmark_id: str,
        items: Sequence[GEditItem],
        texts: Mapping[str, str],
        plan: PromptPlan,
        sources: Mapping[str, SourcePicture],
    ) -> None:
        self.id = benchmark_id
        self._items = {item.path: item for item in items}
        self._texts = texts
        self._plan = plan
        self._sources = sources

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> GEdit:
        """Items and judge texts from ``data``, or those of a rendered world, which needs no data.

        Raises: PrerequisiteMissing for absent or altered files.
        """
        if world:
            per_task = min(plan.prompts_per_tag or WORLD_ITEMS_PER_TYPE, WORLD_ITEMS_PER_TYPE)
            return cls._of_world(benchmark_id, edit_items(GEDIT_TYPES, plan.first_seed, per_task), plan)
        items = _items(data)
        texts = {"SC": read_pinned(data, "gedit", SC_TEXT), "PQ": read_pinned(data, "gedit", PQ_TEXT)}
        folder = (data or Path()) / "gedit"
        sources = {item.source: SourcePicture(file=folder / item.source) for item in items}
        return cls(benchmark_id, items, texts, plan, sources)

    @classmethod
    def _of_world(cls, benchmark_id: str, found: Sequence[EditItem], plan: PromptPlan) -> GEdit:
        items = [
            GEditItem(item.edit_type, LANGUAGE_OF_ITEMS, item.key, item.instruction, intersection=False)
            for item in found
        ]
        texts = {"SC": edit_scores_question(PLACEHOLDER), "PQ": PICTURE_SCORES_FORM}
        sources = {item.source: painted(scene.objects()) for item, scene in zip(items, found, strict=True)}
        return cls(benchmark_id, items, texts, plan, sources)

    def prompts(self) -> list[Prompt]:
        """One edit per item; at most ``prompts_per_tag`` items of every task."""
        return [
            Prompt(
                prompt_id=item.path,
                text=item.instruction,
                source_image=item.source,
                seeds=[self._plan.first_seed],
                outputs=[f"{item.path}.png"],
            )
            for item in self._plan.take(self._items.values(), lambda item: item.task)
        ]

    def sources(self) -> dict[str, SourcePicture]:
        """The pictures to edit."""
        return {prompt.source_image: self._sources[prompt.source_image] for prompt in self.prompts()}

    def companions(self) -> dict[str, str]:
        """None: the layout is pictures only."""
        return {}

    def questions(self, prompt: Prompt, sample: Sample, known: Known) -> list[Question]:
        """The next round of whichever calls are still needed; none once there was an outage."""
        if failure(known):
            return []
        sc, pq = _replies(known, "SC"), _replies(known, "PQ")
        texts = {"SC": self._texts["SC"].replace(PLACEHOLDER, prompt.text), "PQ": self._texts["PQ"]}
        counts = {"SC": len(sc), "PQ": len(pq)}
        return [
            Question(
                key=f"{call}/{counts[call] + 1}",
                kind="text",
                text=texts[call],
                parts=["text", "source", "sample"] if call == "SC" else ["text", "sample"],
            )
            for call in calls_to_make(sc, pq)
        ]

    def most_asks(self, prompt: Prompt) -> int:
        """Both calls in every round."""
        return len(CALLS) * MAX_ROUNDS

    def parse(self, question: Question, reply: Reply) -> Answer | Unusable:
        """Every text is taken; asking again is a new round, decided in ``questions``."""
        return Answer(reply=reply)

    def judgment(self, prompt: Prompt, sample: Sample, known: Known, arithmetic: Arithmetic) -> Judgment:
        """SC, PQ and O."""
        outcome = failure(known) or score_replies(_replies(known, "SC"), _replies(known, "PQ"), arithmetic)
        return self._judgment(prompt, sample.seed, outcome or Unscored(reason="not all calls were made"))

    def unscored(self, prompt: Prompt, seed: int, outcome: Unscored) -> Judgment:
        """A picture that nothing can be asked about."""
        return self._judgment(prompt, seed, outcome)

    @staticmethod
    def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
        """See ``summary.rows``."""
        return summary.rows(judgments, arithmetic)

    def _judgment(self, prompt: Prompt, seed: int, outcome: Scored | Unscored) -> Judgment:
        item = self._items[prompt.prompt_id]
        known = {summary.LANGUAGE: item.language, summary.INTERSECTION: item.intersection}
        return Judgment(
            id=f"{prompt.prompt_id}/{seed}",
            prompt_id=prompt.prompt_id,
            seed=seed,
            tag=item.task,
            outcome=outcome.model_copy(update={"evidence": {**outcome.evidence, **known}}),
        )


def _items(data: Path | None) -> list[GEditItem]:
    """The English items: of the fetched data set, else of the file."""
    rows = [json.loads(line) for line in read_recorded(data, "gedit", ITEMS_FILE).split("\n") if line.strip()]
    if not rows:
        return [
            GEditItem(item["edit_type"], LANGUAGE_OF_ITEMS, key, item["prompt"], intersection=False)
            for key, item in json.loads(read_pinned(data, "gedit", ITEMS)).items()
        ]
    return [
        GEditItem(row["task_type"], row[summary.LANGUAGE], row["key"], row["instruction"], row["Intersection_exist"])
        for row in rows
        if row[summary.LANGUAGE] == LANGUAGE_OF_ITEMS
    ]


def _replies(known: Known, call: str) -> list[str]:
    """Texts of one call in the order of its rounds."""
    rounds = [(int(key.split("/")[1]), exchange) for key, exchange in known.items() if key.startswith(f"{call}/")]
    return [exchange.replies[-1].text for _, exchange in sorted(rounds, key=lambda pair: pair[0])]
