"""MME: two yes/no questions about every picture, one to be affirmed and one to be denied, in fourteen subtasks.

A subtask's score is 100 x accuracy over questions plus 100 x accuracy+ over pictures (both questions right); perception
and cognition are the sums over their subtasks. Files as released, ``mme/<subtask>/`` with a text file of two lines
``question<TAB>answer`` per picture: beside the pictures, or in ``questions_answers_YN/`` with the pictures in
``images/``. A folder ``MME_Benchmark_release_version`` in between is fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.benchmark import BenchmarkCard, Group, PromptPlan, RowData, SourcePicture
from evaluation.records import Arithmetic, Judgment, Scored
from evaluation.understanding.questions import (
    CORRECT,
    UNIT,
    Asked,
    QuestionBenchmark,
    Readings,
    data_file,
    data_lines,
    yes_or_no,
)
from evaluation.understanding.reading import mme_reading, strict_yes_no
from reca_core.contracts.errors import BadInput

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
SUMS = {"perception": PERCEPTION, "cognition": COGNITION}
CARD = BenchmarkCard(
    name="MME",
    paper="Fu et al. 2023, arXiv 2306.13394",
    data_origin="the MME team (github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, folder Evaluation)",
    files=(),
    licence="for academic research on request; not redistributed",
    published_judge="none: the model's words are read by rule",
    pictures_per_prompt=1,
)
RELEASE_FOLDER = "MME_Benchmark_release_version"
TEXTS_FOLDER, PICTURES_FOLDER = "questions_answers_YN", "images"
SUFFIXES = (".jpg", ".png", ".jpeg")
PER_PICTURE = 2
"""Questions."""
PERCENT = 100.0


class Mme(QuestionBenchmark):
    """The rules over the questions of all subtasks; the two questions of a picture stay together."""

    card = CARD
    readings: Readings = {
        "parity": lambda reply, item: mme_reading(reply),
        "corrected": lambda reply, item: strict_yes_no(reply),
    }

    @classmethod
    def open(cls, benchmark_id: str, plan: PromptPlan, data: Path | None, world: str = "") -> Mme:
        """The published questions from ``data``.

        Raises: PrerequisiteMissing for an absent folder; BadInput naming the file that does not fit.
        """
        root = data_file(data, CARD, "mme")
        root = root / RELEASE_FOLDER if (root / RELEASE_FOLDER).is_dir() else root
        items: list[Asked] = []
        sources: dict[str, SourcePicture] = {}
        for subtask in (*PERCEPTION, *COGNITION):
            for text, picture in _pairs(data_file(root, CARD, subtask)):
                name = f"{subtask}/{picture.name}"
                sources[name] = SourcePicture(file=picture)
                items += _questions(text, name, subtask)
        return cls(benchmark_id, items, sources, plan)

    @staticmethod
    def rows(judgments: Sequence[Judgment], arithmetic: Arithmetic) -> dict[str, RowData]:
        """Perception and cognition, then per subtask its score, accuracy and accuracy+ (both as fractions)."""
        tags = {judgment.tag for judgment in judgments}
        table: dict[str, RowData] = {}
        for name, subtasks in SUMS.items():
            present = [subtask for subtask in subtasks if subtask in tags]
            table |= {name: _score(judgments, present)} if present else {}
        for subtask in (name for name in (*PERCEPTION, *COGNITION) if name in tags):
            accuracy, accuracy_plus = _groups(judgments, subtask)
            n_scored, n_expected = _counts(judgments, [subtask])
            table[subtask] = _score(judgments, [subtask])
            table[f"{subtask}/accuracy"] = RowData((accuracy,), n_scored, n_expected)
            table[f"{subtask}/accuracy_plus"] = RowData((accuracy_plus,), n_scored, n_expected)
        return table


def _score(judgments: Sequence[Judgment], subtasks: Sequence[str]) -> RowData:
    """The sum over subtasks of both accuracies, as the mean of all of them times their number."""
    groups = tuple(group for subtask in subtasks for group in _groups(judgments, subtask))
    return RowData(groups, *_counts(judgments, subtasks), scale=PERCENT * len(groups))


def _counts(judgments: Sequence[Judgment], subtasks: Sequence[str]) -> tuple[int, int]:
    chosen = [judgment for judgment in judgments if judgment.tag in subtasks]
    return sum(isinstance(judgment.outcome, Scored) for judgment in chosen), len(chosen)


def _groups(judgments: Sequence[Judgment], subtask: str) -> tuple[Group, Group]:
    """Accuracy over questions, accuracy+ over pictures whose two questions were both answered; one draw for both."""
    pictures: dict[str, list[float]] = {}
    for judgment in judgments:
        if judgment.tag == subtask and isinstance(judgment.outcome, Scored):
            pictures.setdefault(judgment.outcome.evidence[UNIT], []).append(judgment.outcome.values[CORRECT])
    both = {unit: min(values) for unit, values in pictures.items() if len(values) == PER_PICTURE}
    single = [(unit, value) for unit, values in pictures.items() for value in values]
    return (
        Group(subtask, tuple(unit for unit, _ in single), tuple(value for _, value in single)),
        Group(subtask, tuple(both), tuple(both.values())),
    )


# --- files ------------------------------------------------------------------------------------------------------------


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(text file, picture) of a subtask, by name."""
    texts, pictures = folder / TEXTS_FOLDER, folder / PICTURES_FOLDER
    if not texts.is_dir():
        texts = pictures = folder
    found = sorted(texts.glob("*.txt"))
    if not found:
        raise BadInput("holds no text file with questions", field=str(texts))
    return [(text, _picture(pictures, text.stem)) for text in found]


def _picture(folder: Path, stem: str) -> Path:
    candidates = [folder / f"{stem}{suffix}" for suffix in SUFFIXES]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _questions(path: Path, picture: str, subtask: str) -> list[Asked]:
    lines = data_lines(path)
    if len(lines) != PER_PICTURE or any(line.count("\t") != 1 for line in lines):
        raise BadInput("does not hold two lines question<TAB>answer", field=str(path))
    pairs = [line.split("\t") for line in lines]
    return [
        Asked(
            prompt_id=f"{subtask}/{path.stem}/{number}",
            question=question.strip(),
            answer=yes_or_no(answer, f"{path}, line {number + 1}"),
            picture=picture,
            tag=subtask,
            unit=picture,
        )
        for number, (question, answer) in enumerate(pairs)
    ]
