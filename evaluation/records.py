"""What the measure writes down: questions, replies, judgments, score tables, comparisons, and the judge's request.

A judgment is Scored or Unscored, never a zero that stands for "could not be judged" (docs/architecture.md, "Benchmarks
are pure rules"). All records are torch-free and free of NaN, so every file of the measure is plain JSON.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, FiniteFloat

from reca_core.contracts.base import Config, Record, hashed_when_set, unhashed
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.records import UnmadeSample
from reca_core.contracts.requests import DpgFiles
from reca_core.contracts.sharing import Share

Arithmetic = Literal["corrected", "parity"]
"""parity repeats the upstream script, defects included; corrected is what a careful reading of the protocol gives."""

ARITHMETICS: tuple[Arithmetic, ...] = ("corrected", "parity")

Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
"""x1, y1, x2, y2 in pixels of the judged picture."""


class Finding(Record):
    """One object that a detector found."""

    label: str
    """Class name in the benchmark's own words."""
    box: Box
    score: FiniteFloat
    """Confidence, 0 to 1."""
    colour: str = ""
    """Filled by judges that read place and colour at once; otherwise asked for in a second question."""


class Question(Record):
    """One thing a judge is asked about one picture."""

    key: str
    """Unique among the questions about one picture; the name under which the answer is known."""
    kind: Literal["objects", "colours", "text"]
    """objects: where are which objects; colours: which colour has each given object; text: a free question."""
    text: str = ""
    """For kind text: what the judge reads."""
    parts: list[Literal["text", "source", "sample"]] = ["text", "sample"]
    """For kind text: the order in which the words and the pictures (before and after an edit) are sent."""
    labels: list[str] = []
    """For kind objects: the class names that count; for colours: the candidates; for text: what a reply must name."""
    findings: list[Finding] = []
    """For kind colours: the objects to look at, all of one class."""
    max_asks: int = Field(1, ge=1, le=10)
    """How often an unusable reply may be asked for again, the first time included."""


class Reply(Record):
    """What a judge said to one question. Exactly one of the fields is filled, or none where nothing was found."""

    text: str = ""
    """For kind text: the raw reply, unparsed."""
    findings: list[Finding] = []
    """For kind objects; empty where the judge saw nothing."""
    labels: list[str] = []
    """For kind colours: one per finding of the question, in its order."""
    error: str = ""
    """Why there is no reply: an outage, after the judge's own retries. Never a statement about the picture."""


class Answer(Record):
    """A reply that can be used."""

    reply: Reply


class Unusable(Record):
    """A reply that cannot be used, and why; the runner may ask again."""

    reason: str
    outage: bool = False
    """True where there was no reply at all: another day may bring one."""


class Exchange(Record):
    """All that was said about one question of one picture. One line of transcript.jsonl per ask, joined here."""

    question: Question
    replies: list[Reply]
    """In the order of asking."""
    answer: Answer | Unusable
    """The verdict on the last reply."""


class TranscriptRow(Record):
    """One ask. One line of ``answers/<hash>/transcript.jsonl``."""

    prompt_id: str
    seed: int
    ask: int
    """0 for the first time the question was asked."""
    question: Question
    reply: Reply


class Scored(Record):
    """A picture that was judged."""

    values: dict[str, FiniteFloat]
    """The benchmark's numbers for this picture, by row-independent names such as ``correct`` or ``O``."""
    evidence: dict[str, Any] = {}
    """What the verdict rests on, as JSON."""


class Unscored(Record):
    """A picture that could not be judged. It counts in ``n_expected`` and in no average."""

    reason: str
    evidence: dict[str, Any] = {}
    outage: bool = False
    """True where asking again later may help; such pictures are asked again when the judge is started again."""


class Judgment(Record):
    """The verdict on one picture. One line of ``answers/<hash>/judgments.jsonl``."""

    id: str
    """Unique in its file: ``<prompt_id>/<seed>`` for judged pictures, the recorded id for recorded answers."""
    prompt_id: str
    """Pictures of one prompt are not independent: intervals resample prompts."""
    seed: int = 0
    tag: str = ""
    """The benchmark's own grouping: GenEval tag, ImgEdit edit type, GEdit task type."""
    outcome: Scored | Unscored

    def item(self) -> dict[str, Any]:
        """The entry of a ``reca score`` result: id, values or null, reason or null, evidence."""
        outcome = self.outcome
        values = dict(outcome.values) if isinstance(outcome, Scored) else None
        reason = outcome.reason if isinstance(outcome, Unscored) else None
        return {"id": self.id, "values": values, "unscored": reason, "evidence": dict(outcome.evidence)}


class JudgeIdentity(Record):
    """Who judged. Two tables are comparable only when this is equal."""

    name: str
    """The registry's name, such as shapeworld."""
    model: str = ""
    """Model id or file behind it, where there is one."""
    sha256: str = ""
    """Hash of its weights, where there are any."""
    settings: dict[str, str] = {}
    """Whatever else changes an answer: protocol, date, thresholds."""


class ScoreRow(Record):
    """One number of a table."""

    value: FiniteFloat | None
    """None where nothing could be scored."""
    low: FiniteFloat | None
    """Lower end of the 95% interval; None where there are too few prompts for one."""
    high: FiniteFloat | None
    n_scored: int
    n_expected: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The row as it is written in results."""
        return self.model_dump()


class ScoreTable(Record):
    """What one set of pictures scored. ``scores.json`` holds one per arithmetic."""

    benchmark: str
    """Full id, such as geneval.shapeworld."""
    arithmetic: Arithmetic
    judge: JudgeIdentity
    prompts_sha256: str
    """Of the prompts file."""
    seeds: list[int]
    """All seeds that occur, ascending."""
    rows: dict[str, ScoreRow]

    def complete(self) -> bool:
        """True if nothing was left unscored."""
        return all(row.n_scored == row.n_expected for row in self.rows.values())

    def metrics(self) -> dict[str, float]:
        """MLflow keys and values: ``<id>/<row>[_parity]`` with ``/low /high /n_scored /n_expected`` beside it."""
        found: dict[str, float] = {}
        for name, row in self.rows.items():
            key = metric_key(self.benchmark, name, self.arithmetic)
            found |= {f"{key}/n_scored": float(row.n_scored), f"{key}/n_expected": float(row.n_expected)}
            numbers = {key: row.value, f"{key}/low": row.low, f"{key}/high": row.high}
            found |= {name: number for name, number in numbers.items() if number is not None}
        return found


def metric_key(benchmark: str, row: str, arithmetic: Arithmetic) -> str:
    """The name of a number in MLflow: parity numbers never share a name with corrected ones."""
    return f"{benchmark}/{row}" + ("_parity" if arithmetic == "parity" else "")


class DeltaRow(Record):
    """One row of a comparison, in the units of the table."""

    base: FiniteFloat | None
    trained: FiniteFloat | None
    delta: FiniteFloat | None
    """trained - base."""
    low: FiniteFloat | None
    """95% interval of the difference, paired over prompts."""
    high: FiniteFloat | None
    n: int
    """Items that both sides scored."""


class Comparison(Record):
    """Two tables over the same prompts, seeds and judge."""

    benchmark: str
    arithmetic: Arithmetic
    judge: JudgeIdentity
    n_prompts: int
    rows: dict[str, DeltaRow]


class JudgeRequest(Config):
    """One judging of one samples directory: what ``python -m evaluation.launch judge request.json`` reads."""

    benchmark: str
    """Full id; the suffix after the first dot names judge and world, none means the published judge."""
    prompts_sha256: str
    """Of the prompts file."""
    samples_sha256: str
    """Of samples.jsonl, which holds the hash of every picture."""
    prompts_per_tag: int = Field(0, ge=0)
    """As in the evaluation plan that made the prompts."""
    pictures_per_prompt: int = Field(4, ge=1)
    """As in the evaluation plan that made the prompts."""
    first_seed: int = Field(1000, ge=0)
    """As in the evaluation plan that made the prompts."""
    judge: SettledJudge = SettledJudge()
    """Which judge answers, and how far it may go."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples for the intervals."""
    numerics_version: int
    """Raised by whoever changes a result of this benchmark's rules; part of the identity."""
    data_revision: str = hashed_when_set("")
    """Of the benchmark's own files: questions and judge texts may change where prompts do not. Empty: it has none."""
    occasion: str = hashed_when_set("")
    """Empty: what was judged before is the result. Set: the judge is asked anew, and no kept reply of another occasion
    is used; a resumed judging has the same one."""
    prompts_file: str = unhashed()
    """Absolute path of prompts.jsonl."""
    samples_directory: str = unhashed()
    """Absolute; holds samples.jsonl and the pictures."""
    benchmark_data: str = unhashed("")
    """Absolute folder with the benchmarks' own files; rendered worlds need none."""
    cache: str = unhashed("")
    """Absolute ``<home>/cache``, where judges keep what outlives one judging."""
    output_directory: str = unhashed()
    """Absolute ``answers/<request_hash>``: transcript.jsonl, judgments.jsonl, parity_judgments.jsonl, scores.json."""
    share: Share = unhashed(Share())
    """Which part of the questions, where several processes share them."""


class CollectRequest(Config):
    """One look at a folder of pictures: what ``python -m evaluation.launch collect request.json`` reads."""

    benchmark: str
    """Full id."""
    pictures_from: str
    """Absolute folder."""
    pictures_missing: Literal["refuse", "unscored"] = "refuse"
    """As in the evaluation plan."""
    dpg_files: DpgFiles = "grids"
    """As in the evaluation plan."""
    prompts_per_tag: int = Field(0, ge=0)
    """As in the evaluation plan."""
    first_seed: int = Field(1000, ge=0)
    """The n-th picture of a prompt is listed under the n-th seed from here; what it was drawn with is not known."""
    numerics_version: int
    """Of the benchmark's rules and judge."""
    benchmark_data: str = unhashed("")
    """Absolute folder with the benchmarks' own files."""
    output_directory: str = unhashed()
    """Absolute ``samples/<request_hash>``: prompts.jsonl, samples.jsonl, a link to the pictures, cut grids."""


class CollectResult(Record):
    """The end of a look at a folder: DONE.json."""

    samples: int
    """Rows of samples.jsonl."""
    pictures_per_prompt: int
    """As many as the prompt has that has most."""
    grids: int
    """Files that were cut into four."""
    unmade: list[UnmadeSample]
    """Pictures that are missing or cannot be read, by name."""
    unused: list[str]
    """Pictures in the folder that belong to none of the prompts."""
    seconds: float


class JudgeResult(Record):
    """The end of a judging: DONE.json."""

    tables: dict[Arithmetic, ScoreTable]
    judged: int
    """Pictures with a verdict."""
    unscored: int
    """Pictures without one; their reasons are in judgments.jsonl."""
    outages: int
    """Unscored pictures that are asked again when the judge is started again."""
    asked: int
    """Questions asked in all attempts together, repeated asks included."""
    seconds: float
    """Of the attempt that finished."""
