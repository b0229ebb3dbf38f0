"""The two protocols of the measure: a benchmark is pure rules, a judge is a resource.

A benchmark says what to draw, what to ask about a picture and what the answers mean; it never opens a picture. A judge
answers questions; it knows no score. The runner (evaluation/runner.py) stands between them. One transcript serves both
arithmetics, so nothing is asked twice to report a parity number beside a corrected one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

from evaluation.records import (
    Answer,
    Arithmetic,
    Exchange,
    JudgeIdentity,
    Judgment,
    Question,
    Reply,
    Unscored,
    Unusable,
)
from reca_core.contracts.records import Prompt, Sample

Known = Mapping[str, Exchange]
"""What is known about one picture: question key -> everything said about that question."""
ModelTask = Literal["draw", "edit", "describe"]
"""What a model does with a prompt: a picture from text, a picture from a picture and text, text about a picture."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class PinnedFile:
    """A file of the benchmark's own data at the revision that the rules were written for."""

    path: str
    """Relative to the benchmark's data folder."""
    sha256: str = ""
    git_blob: str = ""
    """SHA-1 that git gives the file; used where the origin publishes no SHA-256."""


@dataclass(frozen=True)
class BenchmarkCard:
    """What a reader of a number needs to know about it."""

    name: str
    paper: str
    data_origin: str
    """Repository and commit."""
    files: tuple[PinnedFile, ...]
    licence: str
    published_judge: str
    pictures_per_prompt: int
    """In the upstream protocol."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Headline numbers of the paper that this project follows: model -> value in the benchmark's unit."""


@dataclass(frozen=True)
class SourcePicture:
    """A picture that a prompt starts from: a file of the benchmark's own data, or the content of one to be written."""

    file: Path | None = None
    """Absolute; linked to."""
    content: bytes = b""
    """PNG; written."""


@dataclass(frozen=True)
class Group:
    """Values that are averaged together; values of one prompt share a cluster."""

    name: str
    clusters: tuple[str, ...]
    """Prompt of every value."""
    values: tuple[float, ...]
    weights: tuple[float, ...] = ()
    """One per value, all 1 where none are given. A ratio of sums is a weighted mean: POPE's precision weighs questions
    that were answered with yes by 1 and the others by 0, so that both sides of a comparison have the same clusters."""


@dataclass(frozen=True)
class RowData:
    """The material of one row: the unweighted mean of the means of its groups, times ``scale``.

    The same shape serves point value, interval and paired comparison (evaluation/aggregate.py, evaluation/compare.py).
    """

    groups: tuple[Group, ...]
    n_scored: int
    n_expected: int
    scale: float = 1.0
    decimals: int | None = None
    """Upstream rounds every group mean: the point value does, intervals do not."""


@runtime_checkable
class Benchmark(Protocol):
    """One benchmark's rules over one list of prompts."""

    id: str
    card: BenchmarkCard
    task: ModelTask

    def prompts(self) -> Sequence[Prompt]:
        """What to do; output paths are the community's layout of this benchmark, and equal on every machine."""
        ...

    def sources(self) -> Mapping[str, SourcePicture]:
        """The pictures that the prompts name as ``source_image``, under that name: relative to the prompts file."""
        ...

    def companions(self) -> Mapping[str, str]:
        """Further text files of that layout: path relative to the samples directory -> content."""
        ...

    def questions(self, prompt: Prompt, sample: Sample, known: Known) -> Sequence[Question]:
        """What to ask next, given what is known. Called again until it returns nothing new."""
        ...

    def most_asks(self, prompt: Prompt) -> int:
        """How often a judge may be asked about one picture of a prompt, unusable replies included."""
        ...

    def parse(self, question: Question, reply: Reply) -> Answer | Unusable:
        """Whether a reply can be used; Unusable lets the runner ask again, at most ``question.max_asks`` times."""
        ...

    def judgment(self, prompt: Prompt, sample: Sample, known: Known, arithmetic: Arithmetic) -> Judgment:
        """The verdict on one picture, from everything that was said about it."""
        ...

    def unscored(self, prompt: Prompt, seed: int, outcome: Unscored) -> Judgment:
        """The judgment on a picture that nothing can be asked about: missing, or not decodable."""
        ...

    def rows(self, judgments: Sequence[Judgment], arithmetic: Arithmetic) -> Mapping[str, RowData]:
        """The material of every row, in the fixed order of the table. Pure: all it needs is in the judgments."""
        ...


def failure(known: Known) -> Unscored | None:
    """Why a picture cannot be judged from what was said about it, or None if every question has a usable answer."""
    unusable = [item.answer for item in known.values() if isinstance(item.answer, Unusable)]
    if not unusable:
        return None
    return Unscored(
        reason="; ".join(dict.fromkeys(item.reason for item in unusable)),
        outage=any(item.outage for item in unusable),
    )


@dataclass(frozen=True)
class JudgeTask:
    """One question about one picture, with everything a judge may look at."""

    prompt: Prompt
    sample: Sample
    picture: Path
    """Absolute path of the picture; it was decoded once before, so it can be."""
    source: Path | None
    """The picture before the edit, where the benchmark has one."""
    question: Question
    ask: int = 0
    """How often this question was asked about this picture before: a judge that keeps replies must not repeat one."""


@runtime_checkable
class Judge(Protocol):
    """What answers questions."""

    identity: JudgeIdentity
    batch_size: int
    """How many tasks ``answer`` likes to get at once; they may be about different pictures."""

    def answer(self, tasks: Sequence[JudgeTask]) -> Sequence[Reply]:
        """One reply per task, in order. An outage is ``Reply(error=...)``; a verdict is never invented.

        Raises StageFailed where going on is pointless (no permission, wrong model); what was answered is kept.
        """
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """A judge that can begin to decode pictures before it is asked about them."""

    def look_ahead(self, pictures: Sequence[Path]) -> None:
        """These come next."""
        ...


@dataclass(frozen=True)
class PromptPlan:
    """How much of a benchmark is drawn: the part of the evaluation plan that decides the prompts file."""

    prompts_per_tag: int = 0
    """0 takes all."""
    pictures_per_prompt: int = 4
    first_seed: int = 1000

    @property
    def seeds(self) -> list[int]:
        """The seeds of every prompt."""
        return list(range(self.first_seed, self.first_seed + self.pictures_per_prompt))

    def take(self, items: Iterable[Item], tag_of: Callable[[Item], str]) -> list[Item]:
        """The first ``prompts_per_tag`` items of every tag, in their order."""
        taken: Counter[str] = Counter()
        chosen: list[Item] = []
        for item in items:
            tag = tag_of(item)
            taken[tag] += 1
            if not self.prompts_per_tag or taken[tag] <= self.prompts_per_tag:
                chosen.append(item)
        return chosen
