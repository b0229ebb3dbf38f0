"""What is judged: every picture or reply that the prompts ask for, and why some of them cannot be looked at.

A missing or undecodable picture is a fact about the sampling, never a wrong answer of the model: it becomes an Unscored
judgment. What the prompts did not ask for is not judged. A prompt without outputs is a question: its sample is a reply.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image
from pydantic import ValidationError

from evaluation.benchmark import JudgeTask
from evaluation.prompt_files import inside
from evaluation.records import Question
from reca_core.contracts.base import Record
from reca_core.contracts.errors import BadInput
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.records import Prompt, Sample

R = TypeVar("R", bound=Record)

SAMPLES_FILE = "samples.jsonl"
UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for files that are no pictures, or only halves of one."""


@dataclass(frozen=True)
class Subject:
    """One picture or reply that a prompt asks for."""

    prompt: Prompt
    seed: int
    sample: Sample | None
    """None if it was not made."""
    picture: Path
    """What there is to look at; for a reply the picture that was asked about."""
    source: Path | None

    @property
    def is_reply(self) -> bool:
        """Whether the model was asked for words."""
        return not self.prompt.outputs

    @property
    def key(self) -> tuple[str, int]:
        """prompt_id and seed."""
        return self.prompt.prompt_id, self.seed

    def task(self, sample: Sample, question: Question, ask: int = 0) -> JudgeTask:
        """A question about this picture, asked ``ask`` times before."""
        return JudgeTask(self.prompt, sample, self.picture, self.source, question, ask)


def read_prompts(path: Path) -> list[Prompt]:
    """A prompts file. Raises BadInput naming the file for lines that are no prompts, or ids that repeat."""
    prompts = _records(path, Prompt)
    ids = [prompt.prompt_id for prompt in prompts]
    repeated = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    if repeated:
        raise BadInput(f"prompt ids repeat: {', '.join(repeated)}", field=str(path))
    return prompts


def read_subjects(prompts: Sequence[Prompt], prompts_file: Path, samples_directory: Path) -> list[Subject]:
    """One subject per prompt and seed, in the order of the prompts file."""
    rows = _records(samples_directory / SAMPLES_FILE, Sample)
    samples = {(row.prompt_id, row.seed): row for row in rows}
    return [
        _subject(prompt, number, samples.get((prompt.prompt_id, seed)), prompts_file.parent, samples_directory)
        for prompt in prompts
        for number, seed in enumerate(prompt.seeds)
    ]


def _subject(prompt: Prompt, number: int, sample: Sample | None, folder: Path, directory: Path) -> Subject:
    """The n-th subject of a prompt; its picture lies where its row says, or would lie where the prompt says."""
    source = folder / prompt.source_image if prompt.source_image else None
    place = (sample.image_path if sample else "") or (prompt.outputs[number] if prompt.outputs else "")
    if not place and source is None:
        raise BadInput(f"prompt {prompt.prompt_id} has neither outputs nor a source picture", field="prompts")
    picture = inside(directory, place) if place else folder / prompt.source_image
    return Subject(prompt, prompt.seeds[number], sample, picture, source)


def _records(path: Path, record: type[R]) -> list[R]:
    try:
        return [record.model_validate(row) for row in read_jsonl(path)]
    except (ValueError, ValidationError) as error:
        raise BadInput(f"holds a line that is no {record.__name__.lower()}: {error}", field=str(path)) from error


def why_not(subject: Subject) -> str:
    """Why a picture cannot be judged; empty if it can. Decodes it once."""
    if subject.sample is None:
        return "the reply was not made" if subject.is_reply else "the picture was not made"
    if subject.is_reply:
        return ""
    if not subject.picture.is_file():
        return "the picture is missing"
    if subject.sample.sha256 and sha256_file(subject.picture) != subject.sample.sha256:
        return "the picture is not the one that was made"
    if subject.source is not None and not subject.source.is_file():
        return "the source picture is missing"
    return next((f"{path.name} {reason}" for path in _looked_at(subject) if (reason := undecodable(path))), "")


def _looked_at(subject: Subject) -> list[Path]:
    return [subject.picture] if subject.source is None else [subject.picture, subject.source]


def undecodable(path: Path) -> str:
    """Why a file is no picture that can be decoded; empty if it is one."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except UNDECODABLE as error:
        return f"cannot be decoded: {type(error).__name__}"
    return ""
