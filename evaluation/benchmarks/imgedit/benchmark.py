"""ImgEdit-Bench behind the benchmark protocol: one request per edit, words first, then the picture before and after.

Layout: ``<key>.png``; the pictures to edit lie beside them in ``singleturn/``. Judge texts are upstream's, verbatim,
oddities included (the extract text speaks of one picture). The rendered world has items of seven of the nine types,
painted pictures to edit, and a question in its own words (contracts/world_edits.py, world_tasks.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.benchmark import BenchmarkCard, Known, ModelTask, PinnedFile, PromptPlan, RowData, SourcePicture
from evaluation.benchmarks.data import read_pinned
from evaluation.benchmarks.imgedit import summary
from evaluation.benchmarks.imgedit.ratings import LABELS, read_ratings, score_reply
from evaluation.records import Answer, Arithmetic, Judgment, Question, Reply, Scored, Unscored, Unusable
from evaluation.rendered import painted
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world_edits import IMGEDIT_TYPES, EditItem, edit_items
from reca_core.contracts.world_tasks import marks_question

ITEMS = PinnedFile("basic_edit.json", git_blob="d3c63149dff3f9e05e58b65886208bffec68f662")
JUDGE_TEXTS = PinnedFile("prompts.json", sha256="f9468dc848776ee0a6c2e2c31e678c7224e9cb61b013747c8c52d4a05627b5a0")
CARD = BenchmarkCard(
    name="ImgEdit-Bench, basic suite",
    paper="Ye et al. 2025, arXiv 2505.20275",
    data_origin="github.com/PKU-YuanGroup/ImgEdit @ 547185d12c08, Benchmark/; pictures: Hugging Face sysuyy/ImgEdit",
    files=(ITEMS, JUDGE_TEXTS),
    licence="no licence file; not redistributed",
    published_judge="gpt-4o-2024-08-06 (RecA's release), later gpt-4.1-2025-04-14",
    pictures_per_prompt=1,
    published={"BAGEL": 3.38, "BAGEL-RecA": 3.75},
)
PLACEHOLDER = "<edit_prompt>"
RATING_QUESTION = "rating"
MAX_ASKS = 3
SOURCE_FOLDER = "singleturn"
"""Where the pictures to edit lie: inside the benchmark's data folder, and beside the prompts file."""
WORLD_ITEMS_PER_TYPE = 24
"""Items of every edit type that the rendered world's form of the benchmark has."""


class ImgEdit:
    """The rules over the items of the basic suite, or over those of the rendered world."""

    card = CARD
    task: ModelTask = "edit"

    def __init__(
        self,
        benchmark_id: str,
        items: Mapping[str, Mapping[str, str]],
        texts: Mapping[str, str],
        plan: PromptPlan,
        sources: Mapping[str, SourcePicture],
    ) -> None:
        self.id = benchmark_id
        self._items = items
        self._texts = texts
        self._plan = plan
        self._sources = sources

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> ImgEdit:
        """Items and judge texts from ``data``, or those of a rendered world, which needs no data.

        Raises: PrerequisiteMissing for absent or altered files.
        """
        if world:
            per_type = min(plan.prompts_per_tag or WORLD_ITEMS_PER_TYPE, WORLD_ITEMS_PER_TYPE)
            return cls._of_world(benchmark_id, edit_items(IMGEDIT_TYPES, plan.first_seed, per_type), plan)
        items = json.loads(read_pinned(data, "imgedit", ITEMS))
        texts = json.loads(read_pinned(data, "imgedit", JUDGE_TEXTS))
        folder = (data or Path()) / "imgedit" / SOURCE_FOLDER
        sources = {_source(item["id"]): SourcePicture(file=folder / item["id"]) for item in items.values()}
        return cls(benchmark_id, items, texts, plan, sources)

    @classmethod
    def _of_world(cls, benchmark_id: str, found: Sequence[EditItem], plan: PromptPlan) -> ImgEdit:
        items = {
            item.key: {"id": f"{item.key}.png", "prompt": item.instruction, "edit_type": item.edit_type}
            for item in found
        }
        texts = {edit_type: marks_question(PLACEHOLDER, LABELS[edit_type]) for edit_type in IMGEDIT_TYPES}
        sources = {_source(f"{item.key}.png"): painted(item.objects()) for item in found}
        return cls(benchmark_id, items, texts, plan, sources)

    def prompts(self) -> list[Prompt]:
        """One edit per item; at most ``prompts_per_tag`` items of every edit type."""
        return [
            Prompt(
                prompt_id=key,
                text=item["prompt"],
                source_image=_source(item["id"]),
                seeds=[self._plan.first_seed],
                outputs=[f"{key}.png"],
            )
            for key, item in self._plan.take(self._items.items(), lambda pair: pair[1]["edit_type"])
        ]

    def sources(self) -> dict[str, SourcePicture]:
        """The pictures to edit."""
        return {prompt.source_image: self._sources[prompt.source_image] for prompt in self.prompts()}

    def companions(self) -> dict[str, str]:
        """None: the layout is pictures only."""
        return {}

    def questions(self, prompt: Prompt, sample: Sample, known: Known) -> list[Question]:
        """One question: the text of the item's type with the instruction in place."""
        if RATING_QUESTION in known:
            return []
        edit_type = self._edit_type(prompt)
        question = Question(
            key=RATING_QUESTION,
            kind="text",
            text=self._texts[edit_type].replace(PLACEHOLDER, prompt.text),
            parts=["text", "source", "sample"],
            labels=list(LABELS[edit_type]),
            max_asks=MAX_ASKS,
        )
        return [question]

    def most_asks(self, prompt: Prompt) -> int:
        """Until a reply can be read strictly."""
        return MAX_ASKS

    def parse(self, question: Question, reply: Reply) -> Answer | Unusable:
        """Only a reply that can be read strictly is not asked for again."""
        ratings = read_ratings(reply.text, [question.labels])
        return Unusable(reason=ratings) if isinstance(ratings, str) else Answer(reply=reply)

    def judgment(self, prompt: Prompt, sample: Sample, known: Known, arithmetic: Arithmetic) -> Judgment:
        """Parity reads the first reply, as upstream asks once; corrected the last one."""
        edit_type = self._edit_type(prompt)
        exchange = known[RATING_QUESTION]
        spoken = [reply for reply in exchange.replies if not reply.error]
        outcome: Scored | Unscored
        if spoken:
            reply = spoken[0] if arithmetic == "parity" else spoken[-1]
            outcome = score_reply(reply.text, edit_type, arithmetic)
        else:
            outcome = Unscored(reason=exchange.replies[-1].error, outage=True)
        return self._judgment(prompt, sample.seed, outcome)

    def unscored(self, prompt: Prompt, seed: int, outcome: Unscored) -> Judgment:
        """A picture that nothing can be asked about."""
        return self._judgment(prompt, seed, outcome)

    @staticmethod
    def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
        """See ``summary.rows``."""
        return summary.rows(judgments, arithmetic)

    def _edit_type(self, prompt: Prompt) -> str:
        return self._items[prompt.prompt_id]["edit_type"]

    def _judgment(self, prompt: Prompt, seed: int, outcome: Scored | Unscored) -> Judgment:
        return Judgment(
            id=f"{prompt.prompt_id}/{seed}",
            prompt_id=prompt.prompt_id,
            seed=seed,
            tag=self._edit_type(prompt),
            outcome=outcome,
        )


def _source(picture: str) -> str:
    return f"{SOURCE_FOLDER}/{picture}"
