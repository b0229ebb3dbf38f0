"""GenEval behind the benchmark protocol, on its own 553 prompts or on those of the rendered world.

A picture is asked for its objects first; then, per coloured clause, for the colours of exactly the objects that count.
Layout of the upstream scorer: ``<NNNNN>/metadata.jsonl`` and ``<NNNNN>/samples/<k>.png``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from evaluation.benchmarks.geneval import summary
from evaluation.benchmarks.geneval.requirement import Requirement
from evaluation.benchmarks.geneval.verdict import COLOURS, ColourQuery, colour_queries, keep, score_picture
from evaluation.records import (
    Answer,
    Arithmetic,
    Exchange,
    Finding,
    Judgment,
    Question,
    Reply,
    Scored,
    Unscored,
    Unusable,
)
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world import geneval_metadata

METADATA = PinnedFile(
    "evaluation_metadata.jsonl", sha256="5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
)
CARD = BenchmarkCard(
    name="GenEval",
    paper="Ghosh, Hajishirzi, Schmidt 2023, arXiv 2310.11513",
    data_origin="github.com/djghosh13/geneval @ af4902f24d3c, prompts/",
    files=(METADATA,),
    licence="MIT",
    published_judge="Mask2Former Swin-S (mmdetection 2.x, COCO instances) and CLIP ViT-L/14 (openai)",
    pictures_per_prompt=4,
    published={"Harmon-1.5B": 72.9, "Harmon-1.5B-RecA": 85.7, "BAGEL": 78.8, "BAGEL-RecA": 82.4},
)
OBJECTS = "objects"
"""Key of the first question; those about colours are ``colours/<clause>``."""
WORLD_PROMPTS_PER_TAG = 48
"""Prompts per tag that the rendered world's form of the benchmark has at most; some tags have fewer."""


def _published_metadata(data: Path | None) -> list[dict[str, Any]]:
    """The upstream metadata of every published prompt, in file order."""
    text = read_pinned(data, "geneval", METADATA)
    return [json.loads(line) for line in text.split("\n") if line.strip()]


class GenEval:
    """The rules over one list of requirements; the n-th prompt has the id ``NNNNN``."""

    card = CARD
    task: ModelTask = "draw"

    def __init__(self, benchmark_id: str, metadata: Sequence[Mapping[str, Any]], plan: PromptPlan) -> None:
        self.id = benchmark_id
        self._metadata = dict(enumerate(metadata))
        self._plan = plan
        self._requirements = {
            prompt_id(number): Requirement.model_validate(record) for number, record in self._metadata.items()
        }

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> GenEval:
        """The published prompts from ``data``, or those of a rendered world, which needs no data.

        Raises: PrerequisiteMissing if the published prompts are absent or altered.
        """
        if world:
            per_tag = min(plan.prompts_per_tag or WORLD_PROMPTS_PER_TAG, WORLD_PROMPTS_PER_TAG)
            return cls(benchmark_id, geneval_metadata(plan.first_seed, per_tag), plan)
        return cls(benchmark_id, _published_metadata(data), plan)

    @classmethod
    def prompt_texts(cls, data: Path | None) -> list[str]:
        """What the published prompts say. Raises PrerequisiteMissing."""
        return [str(metadata["prompt"]) for metadata in _published_metadata(data)]

    def prompts(self) -> list[Prompt]:
        """The first ``prompts_per_tag`` prompts of every tag, in file order."""
        pictures = range(self._plan.pictures_per_prompt)
        return [
            Prompt(
                prompt_id=name,
                text=requirement.prompt,
                seeds=self._plan.seeds,
                outputs=[f"{name}/samples/{k:05d}.png" for k in pictures],
            )
            for name, requirement in self._plan.take(self._requirements.items(), lambda item: item[1].tag)
        ]

    def sources(self) -> dict[str, SourcePicture]:
        """None: pictures are drawn from text."""
        return {}

    def companions(self) -> dict[str, str]:
        """Every prompt's own record beside its pictures, where the upstream scorer looks for it."""
        return {
            f"{prompt.prompt_id}/metadata.jsonl": json.dumps(self._metadata[int(prompt.prompt_id)]) + "\n"
            for prompt in self.prompts()
        }

    def questions(self, prompt: Prompt, sample: Sample, known: Known) -> list[Question]:
        """Objects first, then the colours of those that count."""
        requirement = self._requirements[prompt.prompt_id]
        if OBJECTS not in known:
            return [Question(key=OBJECTS, kind="objects", labels=requirement.labels())]
        detections = _detections(known[OBJECTS])
        return [
            Question(
                key=_colour_key(query.clause),
                kind="colours",
                labels=list(COLOURS),
                findings=[detections[query.label][i] for i in query.indices],
            )
            for query in colour_queries(requirement, keep(detections, requirement.tag))
            if _colour_key(query.clause) not in known and query.indices
        ]

    def most_asks(self, prompt: Prompt) -> int:
        """For objects, and for colours once per coloured clause."""
        return 1 + sum(clause.color is not None for clause in self._requirements[prompt.prompt_id].include)

    def parse(self, question: Question, reply: Reply) -> Answer | Unusable:
        """A colour reply must name one colour per object; finding nothing is an answer."""
        if question.kind == "colours" and len(reply.labels) != len(question.findings):
            return Unusable(reason=f"{len(reply.labels)} colours for {len(question.findings)} objects")
        return Answer(reply=reply)

    def judgment(self, prompt: Prompt, sample: Sample, known: Known, arithmetic: Arithmetic) -> Judgment:
        """Right or wrong; both arithmetics agree on single pictures."""
        requirement = self._requirements[prompt.prompt_id]
        outcome = failure(known) or score_picture(
            requirement, _detections(known[OBJECTS]), lambda query: _colours(known, query)
        )
        return self._judgment(prompt, sample.seed, outcome)

    def unscored(self, prompt: Prompt, seed: int, outcome: Unscored) -> Judgment:
        """A picture that nothing can be asked about."""
        return self._judgment(prompt, seed, outcome)

    def _judgment(self, prompt: Prompt, seed: int, outcome: Scored | Unscored) -> Judgment:
        return Judgment(
            id=f"{prompt.prompt_id}/{seed}",
            prompt_id=prompt.prompt_id,
            seed=seed,
            tag=self._requirements[prompt.prompt_id].tag,
            outcome=outcome,
        )

    @staticmethod
    def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
        """See ``summary.rows``."""
        return summary.rows(judgments, arithmetic)


def prompt_id(number: int) -> str:
    """Folder name of the n-th prompt."""
    return f"{number:05d}"


def _colour_key(clause: int) -> str:
    return f"colours/{clause}"


def _colours(known: Known, query: ColourQuery) -> list[str]:
    return known[_colour_key(query.clause)].replies[-1].labels if query.indices else []


def _detections(exchange: Exchange) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in exchange.replies[-1].findings if exchange.replies else ():
        found.setdefault(finding.label, []).append(finding)
    return found
