"""``python -m reca_core.launch sample REQUEST.json``: prompts.jsonl in, pictures or replies and samples.jsonl out.

The sampler knows no benchmark: every prompt says where its pictures go (relative, inside the output folder, checked).
A sample depends on its prompt and seed alone, so a run that was stopped makes only what is missing: a row whose picture
is there with the recorded hash is kept, everything else is made, nothing twice. ``DONE.json`` is written last.

Tasks: ``draw`` text to image; ``reconstruct`` image to image through the understanding encoder; ``edit`` a picture
changed as told; ``describe`` a question about an image; ``view`` what the encoder saw; ``ceiling`` the image tokenizer
alone. ``reconstruct`` also writes ``columns/<output>``: photograph, what the encoder saw, the tokenizer's ceiling and
the reconstruction side by side.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from pydantic import ValidationError

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.files import (
    append_jsonl,
    atomic_write_text,
    read_jsonl,
    remove_leftovers,
    write_json,
)
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.lifeline import Interrupted, StopRequest, stop_requests, turn
from reca_core.contracts.progress import Progress, report_progress
from reca_core.contracts.records import Prompt, Sample, SampleResult, UnmadeSample
from reca_core.contracts.requests import SampleRequest
from reca_core.contracts.sharing import Share
from reca_core.data.images import PictureUnusable, load_picture
from reca_core.data.png import strip, write_png
from reca_core.device import choose_device
from reca_core.models.load import load_adapter
from reca_core.models.unified import (
    AnswersInText,
    DrawRequest,
    EditRequest,
    EditsImages,
    RedrawRequest,
    UnifiedModel,
)

log = logging.getLogger(__name__)

SAMPLES = "samples.jsonl"
COLUMNS = "columns"
PICTURE_SUFFIX = ".png"
STAGE = "sample"
WINDOW_BATCHES = 8
"""Source pictures in memory at a time, in batches; families sort that many by prompt length to fill their batches."""
FLUSH_SECONDS = 1.0
"""Longest time that a made sample waits for its row and its progress line."""
DRAW, RECONSTRUCT, EDIT, DESCRIBE, VIEW, CEILING = "draw", "reconstruct", "edit", "describe", "view", "ceiling"


@dataclass(frozen=True)
class Job:
    """One sample to make."""

    prompt: Prompt
    seed: int
    output: str
    """Relative path of the picture; empty for a description."""

    @property
    def key(self) -> tuple[str, int]:
        """What makes it the same sample in another attempt."""
        return self.prompt.prompt_id, self.seed


@dataclass(frozen=True)
class Made:
    """What the model returned for a job."""

    picture: Image.Image | None = None
    reply: str = ""
    columns: tuple[Image.Image, ...] = ()


def main(request: SampleRequest) -> None:
    """Make the samples that are asked for. Raises RecaError of the kind that fits."""
    directory = RunDirectory(Path(request.output_directory))
    with stop_requests() as stop, turn(directory.lock, stop):
        remove_leftovers(directory.path)
        if directory.done.exists():
            log.info("%s is done already", directory.path)
            return
        jobs = plan_jobs(read_prompts(request), request, directory.path)
        Sampling(request, directory, stop).complete(shared(jobs, request.share))


def read_prompts(request: SampleRequest) -> list[Prompt]:
    """The prompts file. Raises BadInput if it is not the one that was asked for, or a row is no Prompt."""
    file = Path(request.prompts_file)
    found = sha256_file(file) if file.is_file() else "no file"
    if found != request.prompts_sha256:
        raise BadInput(
            f"has SHA-256 {found}, the request was made for {request.prompts_sha256}",
            field=str(file),
            remedy="write the prompts again and make a new request",
        )
    try:
        return [Prompt.model_validate(row) for row in read_jsonl(file)]
    except (ValidationError, ValueError) as error:
        raise BadInput(f"is no prompts file: {error}", field=str(file)) from error


def plan_jobs(prompts: Sequence[Prompt], request: SampleRequest, directory: Path) -> list[Job]:
    """One job per prompt and seed, in the file's order.

    Raises BadInput naming a prompt whose outputs do not fit its seeds, leave the folder, or are another's.
    """
    jobs = [job for prompt in prompts for job in _jobs_of(prompt, request.task)]
    root = directory.resolve()
    seen: set[object] = set()
    for job in jobs:
        if job.output:
            _check_output(job, root)
        for mark in [job.key] + ([job.output] if job.output else []):
            if mark in seen:
                raise BadInput(f"{mark} comes twice", field=f"prompt {job.prompt.prompt_id}")
            seen.add(mark)
    return jobs


def shared(jobs: Sequence[Job], share: Share) -> Sequence[Job]:
    """The jobs of a share: of what the whole lacks, so that nothing is made twice."""
    if not share.is_part:
        return jobs
    whole = Path(share.whole)
    there = valid_rows(whole / SAMPLES, jobs, whole)
    return share.of([job for job in jobs if job.key not in there])


def _jobs_of(prompt: Prompt, task: str) -> list[Job]:
    field = f"prompt {prompt.prompt_id}"
    outputs = prompt.outputs if task != DESCRIBE else [""] * len(prompt.seeds)
    if len(outputs) != len(prompt.seeds):
        raise BadInput(f"{len(prompt.seeds)} seeds and {len(outputs)} outputs", field=field)
    if task != DRAW and not prompt.source_image:
        raise BadInput(f"has no source image, which the task {task} needs", field=field)
    if task in (DRAW, EDIT, DESCRIBE) and not prompt.text.strip():
        raise BadInput(f"has no text, which the task {task} needs", field=field)
    return [Job(prompt, seed, output) for seed, output in zip(prompt.seeds, outputs, strict=True)]


def _check_output(job: Job, root: Path) -> None:
    """The picture must be a PNG below the output folder, links resolved."""
    field = f"prompt {job.prompt.prompt_id}, output {job.output!r}"
    relative = Path(job.output)
    if "\0" in job.output or relative.is_absolute() or ".." in relative.parts:
        raise BadInput("is not a plain relative path", field=field, remedy="name a file below the output folder")
    if relative.suffix != PICTURE_SUFFIX or relative.parts[0] == COLUMNS:
        raise BadInput(f"must end in {PICTURE_SUFFIX} and not begin with {COLUMNS}/", field=field)
    if not (root / relative).parent.resolve().is_relative_to(root):
        raise BadInput(f"leads out of {root} through a link", field=field)


class Sampling:
    """One attempt at a sampling."""

    def __init__(self, request: SampleRequest, directory: RunDirectory, stop: StopRequest) -> None:
        """The model is loaded only when there is something to make."""
        self.request, self.directory, self.stop = request, directory, stop
        self.began = self.spoke = time.monotonic()
        self.rows = directory.path / SAMPLES
        self.waiting: list[Sample] = []
        self.unmade: list[UnmadeSample] = []
        self.done = 0

    def complete(self, jobs: Sequence[Job]) -> None:
        """Make what is missing and write DONE.json. Raises Interrupted when asked to stop; what is made is kept."""
        kept = valid_rows(self.rows, jobs, self.directory.path)
        self._write_rows(jobs, kept)
        missing = [job for job in jobs if job.key not in kept]
        log.info("%d samples asked for, %d are there already", len(jobs), len(kept))
        self.done = len(kept)
        made = self._make(missing, len(jobs)) if missing else []
        samples = kept | {(sample.prompt_id, sample.seed): sample for sample in made}
        self._write_rows(jobs, samples)
        result = SampleResult(
            samples=len(samples), made=len(made), seconds=time.monotonic() - self.began, unmade=self.unmade
        )
        write_json(self.directory.done, result.model_dump())

    def _make(self, missing: Sequence[Job], total: int) -> list[Sample]:
        device, precision = choose_device(self.request.sampling.device), self.request.sampling.precision
        maker = Maker(load_adapter(self.request.model, str(device), precision), self.request)
        window = self.request.sampling.images_per_batch * WINDOW_BATCHES
        made: list[Sample] = []
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            for start in range(0, len(missing), window):
                jobs, sources = self._with_sources(missing[start : start + window])
                for job, result in zip(jobs, maker.make(jobs, sources), strict=True):
                    made.append(self._store(job, result))
                    self._speak(total)
                    self._stop_if_asked(total)
        self._flush(total)
        return made

    def _with_sources(self, jobs: Sequence[Job]) -> tuple[list[Job], list[Image.Image]]:
        """The jobs whose source picture can be decoded, with it; the others are listed as unmade."""
        if self.request.task == DRAW:
            return list(jobs), []
        folder = Path(self.request.prompts_file).parent
        good: list[Job] = []
        pictures: list[Image.Image] = []
        for job in jobs:
            try:
                pictures.append(load_picture(folder / job.prompt.source_image))
                good.append(job)
            except PictureUnusable as error:
                self.unmade.append(UnmadeSample(prompt_id=job.prompt.prompt_id, seed=job.seed, reason=str(error)))
        return good, pictures

    def _store(self, job: Job, made: Made) -> Sample:
        digest = ""
        if made.picture is not None:
            digest = write_png(self.directory.path / job.output, made.picture)
        if made.columns:
            write_png(self.directory.path / COLUMNS / job.output, strip(made.columns))
        sample = Sample(
            prompt_id=job.prompt.prompt_id,
            seed=job.seed,
            text=job.prompt.text,
            image_path=job.output,
            sha256=digest,
            reply=made.reply,
        )
        self.waiting.append(sample)
        self.done += 1
        return sample

    def _speak(self, total: int) -> None:
        if time.monotonic() - self.spoke > FLUSH_SECONDS:
            self._flush(total)

    def _flush(self, total: int) -> None:
        """Rows first, then the progress that promises them."""
        append_jsonl(self.rows, [sample.model_dump() for sample in self.waiting])
        self.waiting = []
        self.spoke = time.monotonic()
        unit = "reply" if self.request.task == DESCRIBE else "picture"
        report_progress(Progress(stage=STAGE, done=self.done, total=total, unit=unit))

    def _stop_if_asked(self, total: int) -> None:
        if self.stop.requested and self.done < total:
            self._flush(total)
            raise Interrupted(
                f"stopped on request after {self.done} of {total} samples",
                field=str(self.directory.path),
                remedy="run it again: what is made is kept",
            )

    def _write_rows(self, jobs: Sequence[Job], samples: dict[tuple[str, int], Sample]) -> None:
        """samples.jsonl in the order of the prompts, whatever attempts it took."""
        rows = [samples[job.key].model_dump() for job in jobs if job.key in samples]
        atomic_write_text(self.rows, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def valid_rows(file: Path, jobs: Sequence[Job], directory: Path) -> dict[tuple[str, int], Sample]:
    """Recorded samples that are asked for and whose picture is there as recorded."""
    asked = {job.key: job for job in jobs}
    found: dict[tuple[str, int], Sample] = {}
    for sample in _read_samples(file):
        job = asked.get((sample.prompt_id, sample.seed))
        if job and sample.image_path == job.output and _intact(directory / sample.image_path, sample):
            found[job.key] = sample
    return found


def _read_samples(file: Path) -> list[Sample]:
    try:
        return [Sample.model_validate(row) for row in read_jsonl(file)]
    except ValueError as error:
        raise StageFailed(
            f"is damaged: {error}", field=str(file), remedy="delete it to make all samples again"
        ) from error


def _intact(picture: Path, sample: Sample) -> bool:
    return not sample.image_path or (picture.is_file() and sha256_file(picture) == sample.sha256)


class Maker:
    """The model, asked for one task."""

    def __init__(self, adapter: UnifiedModel, request: SampleRequest) -> None:
        self.adapter, self.task, self.settings = adapter, request.task, request.sampling
        if self.task == DESCRIBE and not isinstance(adapter, AnswersInText):
            raise BadInput(f"the family {adapter.family} does not answer questions", field="task")
        if self.task == EDIT and not isinstance(adapter, EditsImages):
            raise BadInput(f"the family {adapter.family} does not edit pictures", field="task")

    @torch.no_grad()
    def make(self, jobs: Sequence[Job], sources: Sequence[Image.Image]) -> Iterator[Made]:
        """One result per job, in order; ``sources`` are the decoded source pictures, one per job where needed."""
        if not jobs:
            return
        if self.task == DRAW:
            requests = [DrawRequest(job.prompt.text, job.seed) for job in jobs]
            yield from (Made(picture) for picture in self.adapter.generate(requests, self.settings))
        elif self.task == EDIT:
            yield from (Made(picture) for picture in self._edited(jobs, sources))
        elif self.task == DESCRIBE:
            yield from (Made(reply=reply) for reply in self._describe(jobs, sources))
        elif self.task == VIEW:
            yield from (Made(picture) for picture in self.adapter.understanding_view(sources))
        elif self.task == CEILING:
            yield from (Made(picture) for picture in self._ceiling(sources))
        else:
            yield from self._reconstruct(jobs, sources)

    def _edited(self, jobs: Sequence[Job], sources: Sequence[Image.Image]) -> Iterator[Image.Image]:
        assert isinstance(self.adapter, EditsImages)  # checked on construction
        asked = [EditRequest(source, job.prompt.text, job.seed) for job, source in zip(jobs, sources, strict=True)]
        return self.adapter.edit(asked, self.settings)

    def _describe(self, jobs: Sequence[Job], sources: Sequence[Image.Image]) -> list[str]:
        assert isinstance(self.adapter, AnswersInText)  # checked on construction
        return self.adapter.describe(sources, [job.prompt.text for job in jobs], self.settings)

    def _ceiling(self, sources: Sequence[Image.Image]) -> Iterator[Image.Image]:
        size = self.settings.images_per_batch
        for start in range(0, len(sources), size):
            yield from self.adapter.tokenizer_ceiling(sources[start : start + size])

    def _reconstruct(self, jobs: Sequence[Job], sources: Sequence[Image.Image]) -> Iterator[Made]:
        template = self.adapter.templates[0]
        requests = [
            RedrawRequest(picture, job.seed, job.prompt.text or template)
            for job, picture in zip(jobs, sources, strict=True)
        ]
        redrawn = self.adapter.reconstruct(requests, self.settings)
        seen = self.adapter.understanding_view(sources)
        for columns in zip(sources, seen, self._ceiling(sources), redrawn, strict=True):
            yield Made(columns[-1], columns=columns)
