"""Where the replay terms get their questions and captions: the rendered world, or a JSON file in LLaVA's format.

RecA itself needs no captions. Families that share parameters between understanding and generation also replay question
answering (arXiv 2509.07295; ``LossTerms``), and fine-tuning needs captions. The pictures of these terms come from the
caption source, never from the manifest: a caption must describe its own picture.

LLaVA's format is a list of ``{"image": FILE, "conversations": [{"from": "human"|"gpt", "value": TEXT}, ...]}``:

- ``<image>`` in a human turn: a conversation about that picture; its question-answer pairs serve ``image_to_text``;
- ``<image>`` as the whole gpt turn: the human turn is a caption to draw; serves ``text_to_image``;
- no picture at all: serves ``text``.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import CaptionSource, LossTerms
from reca_core.contracts.world import DESCRIBE_QUESTION
from reca_core.data import shapeworld
from reca_core.data.feed import Order, keyed_choice, keyed_fraction
from reca_core.data.images import load_picture
from reca_core.data.leaks import Leaks
from reca_core.data.random_access import INDEX_TYPE, ListRows, iterate_list

log = logging.getLogger(__name__)

SHAPEWORLD = "shapeworld"
PICTURE_TOKEN = "<image>"
KINDS = ("image_to_text", "text_to_image", "text")
"""Loss terms that replay."""
FINDING_FORMS = ("what colour is the ", "where is the ", "is the ")
"""Beginnings of questions about an object named by its shape: the slowest to learn (docs/tiny.md)."""
KEPT_PICTURES = 4096
"""Rendered scenes in memory: the terms of one step ask for the same ones."""


@dataclass(frozen=True)
class Asked:
    """A question about a picture."""

    picture: Image.Image
    question: str
    answer: str


@dataclass(frozen=True)
class Drawn:
    """A picture and the caption to draw it from."""

    picture: Image.Image
    caption: str


@dataclass(frozen=True)
class Told:
    """A question that text alone answers."""

    question: str
    answer: str


class Captions(Protocol):
    """Replay samples, each decided by its position in the global stream alone."""

    leaked: int
    """Captions left out because a benchmark asks for them."""

    def asked(self, position: int) -> Asked:
        """For ``image_to_text``."""
        ...

    def drawn(self, position: int) -> Drawn:
        """For ``text_to_image``."""
        ...

    def told(self, position: int) -> Told:
        """For ``text``."""
        ...

    def prompts(self, count: int) -> list[str]:
        """Captions for the previews, always the same."""
        ...


class ShapeworldCaptions:
    """Every position is a fresh scene of the rendered world: nothing repeats, however long the training."""

    leaked = 0

    def __init__(self, source: CaptionSource, size_pixels: int) -> None:
        """``size_pixels`` is the side of the pictures, best the size that the model draws."""
        self.source, self.size_pixels = source, size_pixels
        self._picture = lru_cache(maxsize=KEPT_PICTURES)(self._render)

    def _render(self, scene_seed: int) -> Image.Image:
        return shapeworld.render(shapeworld.scene_from_seed(scene_seed), self.size_pixels)

    def _rich(self, position: int) -> bool:
        return keyed_fraction(self.source.seed, "rich", position) < self.source.rich_fraction

    def _wanted(self, pairs: list[tuple[str, str]], position: int) -> list[tuple[str, str]]:
        """All pairs, or those that ask about an object found by its shape, as often as the source says."""
        if keyed_fraction(self.source.seed, "finding", position) >= self.source.finding_fraction:
            return pairs
        return [pair for pair in pairs if any(form in pair[0] for form in FINDING_FORMS)] or pairs

    def asked(self, position: int) -> Asked:
        """One of the scene's questions, or what is in it altogether: many words to learn from at once."""
        seed = self.source.seed + position
        if keyed_fraction(self.source.seed, "described", position) < self.source.described_fraction:
            whole = shapeworld.description(shapeworld.scene_from_seed(seed))
            return Asked(self._picture(seed), DESCRIBE_QUESTION, whole)
        pairs = self._wanted(shapeworld.questions(shapeworld.scene_from_seed(seed), seed), position)
        question, answer = keyed_choice(pairs, self.source.seed, "asked", position)
        return Asked(self._picture(seed), question, answer)

    def drawn(self, position: int) -> Drawn:
        """The scene and its drawing caption, rich as often as the source says."""
        seed = self.source.seed + position
        scene = shapeworld.scene_from_seed(seed)
        return Drawn(self._picture(seed), shapeworld.drawing_caption(scene, seed, self._rich(position)))

    def told(self, position: int) -> Told:
        """One of the scene's questions asked about a rich caption instead of the picture."""
        seed = self.source.seed + position
        pairs = self._wanted(shapeworld.text_questions(shapeworld.scene_from_seed(seed), seed), position)
        question, answer = keyed_choice(pairs, self.source.seed, "told", position)
        return Told(question, answer)

    def prompts(self, count: int) -> list[str]:
        """Rich captions of the scenes just before the first one: training never sees these."""
        seeds = range(self.source.seed - count, self.source.seed)
        return [shapeworld.drawing_caption(shapeworld.scene_from_seed(seed), seed, True) for seed in seeds]


@dataclass(frozen=True)
class Conversation:
    """One row of a LLaVA file: its pairs of human and gpt turns, ``<image>`` removed from the questions."""

    picture: Path | None
    pairs: tuple[tuple[str, str], ...]

    @property
    def kind(self) -> str:
        """The loss term that the row serves."""
        if self.picture is None:
            return "text"
        return "text_to_image" if self.pairs[0][1] == PICTURE_TOKEN else "image_to_text"


class LlavaCaptions:
    """A JSON file in LLaVA's format, shuffled anew every epoch.

    Every row is looked at once when the file is opened; what is kept is where it lies, 16 bytes a row.
    """

    def __init__(self, source: CaptionSource, leaks: Leaks | None = None) -> None:
        """``leaks`` decides which captions are left out because a benchmark asks for them.

        Raises BadInput for a file that is not there, not JSON or not in the format, naming the row.
        """
        self.file, self.seed = Path(source.source), source.seed
        self.leaked = 0
        spans = {kind: array(INDEX_TYPE) for kind in KINDS}
        numbers = {kind: array(INDEX_TYPE) for kind in KINDS}
        for number, (value, start, length) in enumerate(_rows(self.file)):
            row = _conversation(value, number, self.file)
            if leaks and row.kind == "text_to_image" and leaks.holds(row.pairs[0][0]):
                self.leaked += 1
                continue
            spans[row.kind].extend((start, length))
            numbers[row.kind].append(number)
        self.kinds = {kind: ListRows(self.file, spans[kind], self._parser(numbers[kind])) for kind in KINDS}
        self.orders = {kind: Order(len(some), self.seed, kind) for kind, some in self.kinds.items() if len(some)}

    def _parser(self, numbers: Sequence[int]) -> Callable[[Any, int], Conversation]:
        return lambda value, place: _conversation(value, numbers[place], self.file)

    def _row(self, kind: str, position: int) -> Conversation:
        return self.kinds[kind][self.orders[kind].row(position)]

    def _pair(self, kind: str, position: int) -> tuple[Conversation, tuple[str, str]]:
        row = self._row(kind, position)
        return row, keyed_choice(row.pairs, self.seed, kind, position)

    def asked(self, position: int) -> Asked:
        """One question-answer pair of one conversation about a picture."""
        row, (question, answer) = self._pair("image_to_text", position)
        return Asked(_open(row), question, answer)

    def drawn(self, position: int) -> Drawn:
        """One caption and its picture."""
        row = self._row("text_to_image", position)
        return Drawn(_open(row), row.pairs[0][0])

    def told(self, position: int) -> Told:
        """One pair of one conversation without a picture."""
        _, (question, answer) = self._pair("text", position)
        return Told(question, answer)

    def prompts(self, count: int) -> list[str]:
        """The first captions of the file, else the first answers about pictures."""
        captions = [row.pairs[0][0] for row in self.kinds["text_to_image"][:count]]
        return captions or [row.pairs[0][1] for row in self.kinds["image_to_text"][:count]]


def open_captions(source: CaptionSource, size_pixels: int, losses: LossTerms, leaks: Leaks | None = None) -> Captions:
    """The captions of a source, without those that ``leaks`` holds.

    Raises BadInput if a loss term with weight has no sample in it.
    """
    if source.source == SHAPEWORLD:
        return ShapeworldCaptions(source, size_pixels)
    captions = LlavaCaptions(source, leaks)
    if captions.leaked:
        log.warning("%d captions of %s left out: benchmarks ask for them", captions.leaked, source.source)
    for kind, rows in captions.kinds.items():
        if getattr(losses, kind) > 0 and not rows:
            raise BadInput(
                f"{source.source} has no sample for the loss term {kind}, whose weight is {getattr(losses, kind)}",
                field="captions.source",
                remedy=f"set losses.{kind} to 0, or add such rows to the file",
            )
    return captions


def _rows(file: Path) -> Iterator[tuple[Any, int, int]]:
    """The rows of a file with their offsets and lengths."""
    empty = True
    try:
        for found in iterate_list(file):
            empty = False
            yield found
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot be read as a JSON list: {error}",
            field=f"captions.source ({file})",
            choices=(SHAPEWORLD, "FILE.json"),
        ) from error
    if empty:
        raise BadInput("holds no list of conversations", field=f"captions.source ({file})")


def _conversation(row: Any, number: int, file: Path) -> Conversation:
    try:
        turns = [(turn["from"], str(turn["value"])) for turn in row["conversations"]]
        name = row.get("image")
    except (TypeError, KeyError, AttributeError) as error:
        raise _bad_row(file, number, "is no LLaVA conversation") from error
    if not turns or [who for who, _ in turns] != ["human", "gpt"] * (len(turns) // 2):
        raise _bad_row(file, number, "does not alternate between human and gpt turns")
    questions = [text.replace(PICTURE_TOKEN, "").strip() for _, text in turns[::2]]
    answers = [text.strip() for _, text in turns[1::2]]
    return Conversation(_inside(name, number, file), tuple(zip(questions, answers, strict=True)))


def _inside(name: Any, number: int, file: Path) -> Path | None:
    """The picture's path; it must lie below the folder of the file, whoever wrote the file."""
    if name is None:
        return None
    folder = file.parent.resolve()
    picture = (folder / str(name)).resolve()
    if not picture.is_relative_to(folder):
        raise _bad_row(file, number, f"names the picture {name!r}, which lies outside {folder}")
    return picture


def _bad_row(file: Path, number: int, fact: str) -> BadInput:
    return BadInput(f"row {number} {fact}", field=f"captions.source ({file})", remedy="see reca_core/data/captions.py")


def _open(row: Conversation) -> Image.Image:
    assert row.picture is not None  # rows of these kinds have one
    return load_picture(row.picture)
