"""ImgEdit-Bench behind the benchmark protocol: one request per edit, words first, then the picture before and after.

Layout: ``<key>.png``. Judge texts are upstream's, verbatim, oddities included (the extract text speaks of one picture).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.benchmark import BenchmarkCard, Known, PinnedFile, PromptPlan, RowData
from evaluation.benchmarks.data import read_pinned
from evaluation.benchmarks.imgedit import summary
from evaluation.benchmarks.imgedit.ratings import LABELS, read_ratings, score_reply
from evaluation.records import Answer, Arithmetic, Judgment, Question, Reply, Scored, Unscored, Unusable
from reca_core.contracts.errors import BadInput
from reca_core.contracts.records import Prompt, Sample

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
"""Where the source pictures lie inside the benchmark's data folder."""


class ImgEdit:
    """The rules over the items of the basic suite."""

    card = CARD

    def __init__(
        self,
        benchmark_id: str,
        items: Mapping[str, Mapping[str, str]],
        texts: Mapping[str, str],
        plan: PromptPlan,
        folder: Path,
    ) -> None:
        self.id = benchmark_id
        self._items = items
        self._texts = texts
        self._plan = plan
        self._folder = folder

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> ImgEdit:
        """Items and judge texts from ``data``.

        Raises: PrerequisiteMissing for absent or altered files; BadInput for a world, which has no photographs.
        """
        if world:
            raise BadInput(f"the world {world} has no photographs", field="benchmarks", choices=("geneval." + world,))
        items = json.loads(read_pinned(data, "imgedit", ITEMS))
        texts = json.loads(read_pinned(data, "imgedit", JUDGE_TEXTS))
        return cls(benchmark_id, items, texts, plan, (data or Path()) / "imgedit" / SOURCE_FOLDER)

    def prompts(self) -> list[Prompt]:
        """One edit per item; at most ``prompts_per_tag`` items of every edit type."""
        chosen: list[Prompt] = []
        taken: dict[str, int] = {}
        for key, item in self._items.items():
            edit_type = item["edit_type"]
            taken[edit_type] = taken.get(edit_type, 0) + 1
            if not self._plan.prompts_per_tag or taken[edit_type] <= self._plan.prompts_per_tag:
                source = str(self._folder / item["id"])
                seeds = [self._plan.first_seed]
                chosen.append(
                    Prompt(prompt_id=key, text=item["prompt"], source_image=source, seeds=seeds, outputs=[f"{key}.png"])
                )
        return chosen

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
