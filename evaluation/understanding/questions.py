"""What POPE, MME and MMVP have in common: questions about given pictures, whose answers are the model's own words.

They follow the benchmark protocol: prompts carry picture and question, the sampler's task is ``describe``, and the
judge ``reply`` hands over what the model said. A subclass says where its items come from, how replies are read, and
which numbers are made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.benchmark import BenchmarkCard, Known, ModelTask, PromptPlan, SourcePicture, failure
from evaluation.records import Answer, Arithmetic, Judgment, Question, Reply, Scored, Unscored, Unusable
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.world import YES

REPLY = "reply"
"""Key of the one question."""
CORRECT, SAID_YES = "correct", "said_yes"
"""Values of a judgment; the second for yes/no questions only."""
ANSWER, PICTURE, UNIT = "answer", "picture", "unit"
"""Evidence: the right answer, which picture was asked about, and which questions belong together."""
DATA_FIELD = "benchmark data"


@dataclass(frozen=True)
class Asked:
    """One question about one picture."""

    prompt_id: str
    question: str
    """As the model is asked."""
    answer: str
    """yes, no, or the letter of the right option."""
    picture: str
    """Name of the picture: several questions may be about one."""
    tag: str = ""
    """The benchmark's own grouping."""
    unit: str = ""
    """Questions with the same unit are only asked together: MME's two of a picture, MMVP's pair."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Of a choice: letter -> text."""


Readings = Mapping[Arithmetic, Callable[[str, Asked], str]]
"""What a reply to a question means, in either arithmetic."""


class QuestionBenchmark:
    """The rules over a list of questions."""

    card: BenchmarkCard
    task: ModelTask = "describe"
    readings: Readings

    def __init__(
        self, benchmark_id: str, items: Sequence[Asked], sources: Mapping[str, SourcePicture], plan: PromptPlan
    ) -> None:
        """``sources``: picture name of the items -> picture."""
        self.id = benchmark_id
        self._plan = plan
        self._sources = sources
        units: dict[tuple[str, str], list[Asked]] = {}
        for item in items:
            units.setdefault((item.tag, item.unit or item.prompt_id), []).append(item)
        chosen = [item for unit in plan.take(units.values(), lambda unit: unit[0].tag) for item in unit]
        self._items = {item.prompt_id: item for item in chosen}
        if len(self._items) < len(chosen):
            raise BadInput(f"{benchmark_id} has {len(chosen) - len(self._items)} question ids twice", field=DATA_FIELD)

    def prompts(self) -> list[Prompt]:
        """The questions of the first ``prompts_per_tag`` units of every tag, each once: replies are greedy."""
        return [
            Prompt(
                prompt_id=item.prompt_id,
                text=item.question,
                source_image=_place(item.picture),
                seeds=[self._plan.first_seed],
                outputs=[],
            )
            for item in self._items.values()
        ]

    def sources(self) -> dict[str, SourcePicture]:
        """The pictures that are asked about."""
        return {_place(item.picture): self._sources[item.picture] for item in self._items.values()}

    def companions(self) -> dict[str, str]:
        """None: replies are in samples.jsonl."""
        return {}

    def questions(self, prompt: Prompt, sample: Sample, known: Known) -> list[Question]:
        """The question that the model was asked; it has answered already."""
        return [] if REPLY in known else [Question(key=REPLY, kind="text", text=prompt.text, parts=["source", "text"])]

    def most_asks(self, prompt: Prompt) -> int:
        """Once, and it costs nothing: the reply is there."""
        return 1

    def parse(self, question: Question, reply: Reply) -> Answer | Unusable:
        """Whatever was said is the model's answer."""
        return Answer(reply=reply)

    def judgment(self, prompt: Prompt, sample: Sample, known: Known, arithmetic: Arithmetic) -> Judgment:
        """Right or wrong."""
        item = self._items[prompt.prompt_id]
        broken = failure(known)
        if broken:
            return self.unscored(prompt, sample.seed, broken)
        reply = known[REPLY].replies[-1].text
        read = self.readings[arithmetic](reply, item)
        values = {CORRECT: float(read == item.answer), SAID_YES: float(read == YES)}
        return self._judgment(prompt, sample.seed, Scored(values=values, evidence={"reply": reply, "read": read}))

    def unscored(self, prompt: Prompt, seed: int, outcome: Unscored) -> Judgment:
        """A question that the model was not asked, because its picture could not be read."""
        return self._judgment(prompt, seed, outcome)

    def _judgment(self, prompt: Prompt, seed: int, outcome: Scored | Unscored) -> Judgment:
        item = self._items[prompt.prompt_id]
        known = {ANSWER: item.answer, PICTURE: item.picture, UNIT: item.unit}
        return Judgment(
            id=f"{prompt.prompt_id}/{seed}",
            prompt_id=prompt.prompt_id,
            seed=seed,
            tag=item.tag,
            outcome=outcome.model_copy(update={"evidence": {**outcome.evidence, **known}}),
        )


def _place(picture: str) -> str:
    return f"pictures/{picture}"


def data_file(data: Path | None, card: BenchmarkCard, path: str) -> Path:
    """A file or folder of a benchmark's data. Raises PrerequisiteMissing saying where it comes from."""
    remedy = f"get it from {card.data_origin} and name the folder above it with --benchmark-data DIR"
    if data is None:
        raise PrerequisiteMissing(f"{card.name} needs {path}", field=DATA_FIELD, remedy=remedy)
    found = data / path
    if not found.exists():
        raise PrerequisiteMissing(f"{found} is not there", field=DATA_FIELD, remedy=remedy)
    return found


def data_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text, blank ones left out. Raises BadInput where it is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read as text: {error}", field=str(path)) from error
    return [line for line in text.splitlines() if line.strip()]


def yes_or_no(text: str, place: str) -> str:
    """A label of a data file. Raises BadInput for anything but yes and no, in any case."""
    label = text.strip().lower()
    if label not in ("yes", "no"):
        raise BadInput(f"{place}: the answer {text!r} is neither yes nor no", field=DATA_FIELD)
    return label
