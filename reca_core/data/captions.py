"""Where the replay terms get their questions and captions: the rendered world, or a JSON file in LLaVA's format.

RecA itself needs no captions. Families that share parameters between understanding and generation also replay question
answering (arXiv 2509.07295; ``LossTerms``), and fine-tuning needs captions. The pictures of these terms come from the
caption source, never from the manifest: a caption must describe its own picture.

LLaVA's format is a list of ``{"image": FILE, "conversations": [{"from": "human"|"gpt", "value": TEXT}, ...]}``:

- a picture: a conversation about it, with or without ``<image>`` in its human turns; its question-answer pairs serve
  ``image_to_text``;
- a picture, and ``<image>`` as the one gpt turn: the human turn is a caption to draw; serves ``text_to_image``;
- no picture at all: serves ``text``.

``<image>`` stands for a picture at the beginning or the end of a turn, where LLaVA puts it. Between the words of a row
without a picture it is one of them: shared conversations quote XML. How many such rows there are is logged.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.requests import CaptionSource, LossTerms
from reca_core.contracts.world import DESCRIBE_QUESTION
from reca_core.data import shapeworld
from reca_core.data.feed import Order, keyed_choice, keyed_fraction
from reca_core.data.images import PictureUnusable, load_picture
from reca_core.data.leaks import Leaks
from reca_core.data.random_access import INDEX_TYPE, ListRows, iterate_list

log = logging.getLogger(__name__)

Load = Callable[[Path], Image.Image]
"""Opens a picture; raises PictureUnusable."""

SHAPEWORLD = "shapeworld"
PICTURE_TOKEN = "<image>"
KINDS = ("image_to_text", "text_to_image", "text")
"""Loss terms that replay."""
FINDING_FORMS = ("what colour is the ", "where is the ", "is the ")
"""Beginnings of questions about an object named by its shape: the slowest to learn (docs/tiny.md)."""
KEPT_PICTURES = 4096
"""Rendered scenes in memory, at most: the terms of one step ask for the same ones."""
KEPT_BYTES = 64 << 20
"""Of rendered scenes in memory; one is kept however large it is."""
PIXEL_BYTES = 4
"""Of an RGB picture in Pillow's memory."""
FORMAT_REMEDY = "mend the row or take it out; docs/data.md describes the format"


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
    left_out: int
    """Rows left out because their pictures cannot be used (``reca_core.data.caption_pictures``)."""

    def asked(self, position: int) -> Asked:
        """For ``image_to_text``."""
        ...

    def drawn(self, position: int) -> Drawn:
        """For ``text_to_image``."""
        ...

    def told(self, position: int) -> Told:
        """For ``text``."""
        ...

    def origin(self, kind: str, position: int) -> str:
        """In words, what the sample of a loss term was made of: for a message about it."""
        ...

    def prompts(self, count: int) -> list[str]:
        """Captions for the previews, always the same."""
        ...


class ShapeworldCaptions:
    """Every position is a fresh scene of the rendered world: nothing repeats, however long the training."""

    leaked = left_out = 0

    def __init__(self, source: CaptionSource, size_pixels: int) -> None:
        """``size_pixels`` is the side of the pictures, best the size that the model draws."""
        self.source, self.size_pixels = source, size_pixels
        fitting = KEPT_BYTES // (PIXEL_BYTES * size_pixels**2)
        self._picture = lru_cache(maxsize=max(1, min(KEPT_PICTURES, fitting)))(self._render)

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

    def origin(self, kind: str, position: int) -> str:
        """The scene."""
        return f"rendered scene {self.source.seed + position}"

    def prompts(self, count: int) -> list[str]:
        """Rich captions of the scenes just before the first one: training never sees these."""
        seeds = range(self.source.seed - count, self.source.seed)
        return [shapeworld.drawing_caption(shapeworld.scene_from_seed(seed), seed, True) for seed in seeds]


@dataclass(frozen=True)
class Conversation:
    """One row of a LLaVA file: its pairs of human and gpt turns, ``<image>`` removed from questions about a picture."""

    number: int
    """Of the row in the file, from 0."""
    picture: Path | None
    pairs: tuple[tuple[str, str], ...]

    @property
    def kind(self) -> str:
        """The loss term that the row serves."""
        if self.picture is None:
            return "text"
        return "text_to_image" if self.pairs[0][1] == PICTURE_TOKEN else "image_to_text"

    @property
    def quotes_token(self) -> bool:
        """True where ``<image>`` is one of the words of a row without a picture."""
        return self.picture is None and any(PICTURE_TOKEN in text for pair in self.pairs for text in pair)


class LlavaCaptions:
    """A JSON file in LLaVA's format, shuffled anew every epoch.

    Every row is looked at once when the file is opened; what is kept is where it lies, 16 bytes a row.
    """

    def __init__(self, source: CaptionSource, leaks: Leaks | None = None, load: Load = load_picture) -> None:
        """``leaks`` decides which captions are left out because a benchmark asks for them; ``load`` opens pictures.

        Raises BadInput for a file that is not there, not JSON or not in the format, naming the row.
        """
        self.file, self.seed, self.load = Path(source.source), source.seed, load
        self.leaked = self.left_out = self.quoting = 0
        self._spans = {kind: array(INDEX_TYPE) for kind in KINDS}
        self._numbers = {kind: array(INDEX_TYPE) for kind in KINDS}
        for number, (value, start, length) in enumerate(_rows(self.file)):
            row = _conversation(value, number, self.file)
            if leaks and row.kind == "text_to_image" and leaks.holds(row.pairs[0][0]):
                self.leaked += 1
                continue
            self.quoting += row.quotes_token
            self._spans[row.kind].extend((start, length))
            self._numbers[row.kind].append(number)
        self._arrange()

    def leave_out(self, rows: Collection[int]) -> None:
        """Go on without these rows of the file: every position then means another one."""
        for kind, numbers in self._numbers.items():
            kept = [place for place, number in enumerate(numbers) if number not in rows]
            self.left_out += len(numbers) - len(kept)
            spans = self._spans[kind]
            self._spans[kind] = array(INDEX_TYPE, (spans[2 * place + part] for place in kept for part in (0, 1)))
            self._numbers[kind] = array(INDEX_TYPE, (numbers[place] for place in kept))
        self._arrange()

    def _arrange(self) -> None:
        spans, numbers = self._spans, self._numbers
        self.kinds = {kind: ListRows(self.file, spans[kind], self._parser(numbers[kind])) for kind in KINDS}
        self.orders = {kind: Order(len(some), self.seed, kind) for kind, some in self.kinds.items() if len(some)}

    def _parser(self, numbers: Sequence[int]) -> Callable[[Any, int], Conversation]:
        return lambda value, place: _conversation(value, numbers[place], self.file)

    def _row(self, kind: str, position: int) -> Conversation:
        return self.kinds[kind][self.orders[kind].row(position)]

    def _pair(self, kind: str, position: int) -> tuple[Conversation, tuple[str, str]]:
        row = self._row(kind, position)
        return row, keyed_choice(row.pairs, self.seed, kind, position)

    def _picture(self, row: Conversation) -> Image.Image:
        """Raises StageFailed for a picture that vanished, or whose damage does not show in its header."""
        assert row.picture is not None  # rows of these kinds have one
        try:
            return self.load(row.picture)
        except PictureUnusable as unusable:
            raise StageFailed(
                f"the picture of row {row.number}, {row.picture}: {unusable.reason}",
                field=f"captions.source ({self.file})",
                remedy="put a whole picture there and run again, which goes on from the last checkpoint; "
                "a file without the row makes another training",
            ) from unusable

    def asked(self, position: int) -> Asked:
        """One question-answer pair of one conversation about a picture."""
        row, (question, answer) = self._pair("image_to_text", position)
        return Asked(self._picture(row), question, answer)

    def drawn(self, position: int) -> Drawn:
        """One caption and its picture."""
        row = self._row("text_to_image", position)
        return Drawn(self._picture(row), row.pairs[0][0])

    def told(self, position: int) -> Told:
        """One pair of one conversation without a picture."""
        _, (question, answer) = self._pair("text", position)
        return Told(question, answer)

    def origin(self, kind: str, position: int) -> str:
        """The row and its picture."""
        row = self._row(kind, position)
        return f"row {row.number} of {self.file}" + (f" with {row.picture}" if row.picture else "")

    def prompts(self, count: int) -> list[str]:
        """The first captions of the file, else the first answers about pictures."""
        captions = [row.pairs[0][0] for row in self.kinds["text_to_image"][:count]]
        return captions or [row.pairs[0][1] for row in self.kinds["image_to_text"][:count]]


def open_captions(
    source: CaptionSource,
    size_pixels: int,
    losses: LossTerms,
    leaks: Leaks | None = None,
    load: Load = load_picture,
) -> Captions:
    """The captions of a source, without those that ``leaks`` holds; ``load`` opens the pictures that a file names.

    Raises BadInput if a loss term with weight has no sample in it.
    """
    if source.source == SHAPEWORLD:
        return ShapeworldCaptions(source, size_pixels)
    captions = LlavaCaptions(source, leaks, load)
    if captions.leaked:
        log.warning("%d captions of %s left out: benchmarks ask for them", captions.leaked, source.source)
    if captions.quoting:
        fact = "%d rows of %s without a picture hold %s between their words: it is read as one of them"
        log.warning(fact, captions.quoting, source.source, PICTURE_TOKEN)
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
    except (OSError, ValueError, RecursionError) as error:  # lists in lists in lists: no file of captions
        raise BadInput(
            f"cannot be read as a JSON list: {error}",
            field=f"captions.source ({file})",
            choices=(SHAPEWORLD, "FILE.json"),
        ) from error
    if empty:
        raise BadInput("holds no list of conversations", field=f"captions.source ({file})")


def _conversation(row: Any, number: int, file: Path) -> Conversation:
    try:
        turns = [(turn["from"], turn["value"]) for turn in row["conversations"]]
        name = row.get("image")
    except (TypeError, KeyError, AttributeError) as error:
        raise _bad_row(file, number, "is no LLaVA conversation") from error
    if not turns or [who for who, _ in turns] != ["human", "gpt"] * (len(turns) // 2):
        raise _bad_row(file, number, "does not alternate between human and gpt turns")
    for _, text in turns:
        if not _is_text(text):
            raise _bad_row(file, number, f"has a turn that is no text: {text!r}")
    picture = _inside(name, number, file)
    questions = [text.strip() for _, text in turns[::2]]
    answers = [text.strip() for _, text in turns[1::2]]
    _check_places(questions, answers, picture, number, file)
    if picture:
        questions = [text.replace(PICTURE_TOKEN, "").strip() for text in questions]
    return Conversation(number, picture, tuple(zip(questions, answers, strict=True)))


def _is_text(value: Any) -> bool:
    """Half a surrogate pair, which JSON can spell, is no text that could be written or tokenized."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def _check_places(questions: list[str], answers: list[str], picture: Path | None, number: int, file: Path) -> None:
    """Raises BadInput where ``<image>`` stands for a picture that is not there, or where nothing can be made of it."""
    drawn = any(map(_stands_for_picture, answers))
    if picture is None and (drawn or any(map(_stands_for_picture, questions))):
        raise _bad_row(file, number, f"says {PICTURE_TOKEN}, but names no picture under the key image")
    if drawn and (answers != [PICTURE_TOKEN] or any(PICTURE_TOKEN in text for text in questions)):
        fact = f"answers with {PICTURE_TOKEN} beside other things; a row to draw is one caption and {PICTURE_TOKEN}"
        raise _bad_row(file, number, fact)


def _stands_for_picture(turn: str) -> bool:
    return turn.startswith(PICTURE_TOKEN) or turn.endswith(PICTURE_TOKEN)


def _inside(name: Any, number: int, file: Path) -> Path | None:
    """The picture's path; it must lie below the folder of the file, whoever wrote the file."""
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip():
        raise _bad_row(file, number, f"names its picture as {name!r}, which is no file name")
    folder = file.parent.resolve()
    try:
        picture = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a NUL: no file has such a name
        raise _bad_row(file, number, f"names the picture {name!r}, which cannot be looked for: {error}") from error
    if not picture.is_relative_to(folder):
        raise _bad_row(file, number, f"names the picture {name!r}, which lies outside {folder}")
    return picture


def _bad_row(file: Path, number: int, fact: str) -> BadInput:
    return BadInput(f"row {number} {fact}", field=f"captions.source ({file})", remedy=FORMAT_REMEDY)
