"""Sampling and judging on several machines: one setting, ``RECA_RAY_ADDRESS``; unset, everything runs in one child.

Files stay the boundary. A share is the ordinary child with the ordinary request, told to do every n-th item into
``<output>/shares/<i>``; what it made is then moved into the output directory as if an interrupted child had left it
there. The ordinary local child follows and concludes: it finds everything made, makes what a share may have missed, and
writes DONE.json. So results are those of one process, and any kill at any moment leaves work to resume, shares
included. Judges behind an address are not shared: they answer no faster, and every share would have its own budget.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evaluation.records import JudgeRequest
from evaluation.registry import asks_endpoint
from reca_core.contracts.base import Config
from reca_core.contracts.errors import RunLocked, StageFailed
from reca_core.contracts.files import append_jsonl, atomic_write_text, read_jsonl, run_lock
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.progress import Progress
from reca_core.contracts.records import Prompt, Sample
from reca_core.contracts.requests import SampleRequest
from reca_core.contracts.sharing import Share
from tasks.processes import module_command

ADDRESS_VARIABLE = "RECA_RAY_ADDRESS"
"""``auto`` (the cluster that this machine is part of) or ``HOST:PORT``; unset: no cluster."""
SHARES, COLUMNS = "shares", "columns"
SAMPLES_FILE, TRANSCRIPT_FILE, IDENTITY_FILE = "samples.jsonl", "transcript.jsonl", "judge.json"
PROGRESS_FILE = "progress.json"
LEAST_ITEMS = 4
"""Per share: below it, loading the model once more costs more than it gains."""
SAMPLE, JUDGE = ("reca_core.launch", "sample"), ("evaluation.launch", "judge")
GRAPHICS = ("auto", "cuda")

Shared = SampleRequest | JudgeRequest


@dataclass(frozen=True)
class ShareJob:
    """One child to run somewhere."""

    command: tuple[str, ...]
    directory: str
    wants_gpu: bool


class Cluster(Protocol):
    """Something that runs children elsewhere."""

    def slots(self, *, gpu: bool) -> int:
        """How many children can run at once."""
        ...

    def run(self, jobs: list[ShareJob], look: Callable[[], None]) -> None:
        """Run them all, looking in now and then. Raises the RecaError of the first that failed for good."""
        ...


def to_share(request: Config) -> Shared | None:
    """The request, if it is one to share out; else None."""
    if isinstance(request, JudgeRequest):
        return None if asks_endpoint(request.benchmark, request.judge) else request
    return request if isinstance(request, SampleRequest) else None


def share_out(
    request: Shared, directory: RunDirectory, cluster: Cluster, on_progress: Callable[[Progress], None]
) -> None:
    """Have the cluster do what is missing; afterwards it lies in the directory, and nothing is concluded.

    Where another process works in the directory nothing is done: the child waits for its result.
    """
    try:
        with run_lock(directory.lock, wait_seconds=0):
            gather(directory.path)  # what an attempt before this one left
            missing = missing_items(request, directory.path)
            gpu = _wants_gpu(request) and cluster.slots(gpu=True) > 0
            count = min(cluster.slots(gpu=gpu), missing // LEAST_ITEMS)
            if count > 1:
                jobs = [_prepare(request, directory.path, Share(index=i, count=count), gpu) for i in range(count)]
                cluster.run(jobs, lambda: on_progress(progress_of(directory.path, request, missing)))
                gather(directory.path)
    except RunLocked:
        return


def _wants_gpu(request: Shared) -> bool:
    settings = request.sampling if isinstance(request, SampleRequest) else request.judge
    return settings.device in GRAPHICS


def missing_items(request: Shared, whole: Path) -> int:
    """Pictures that are not made, or not asked about at all, as far as the rows tell."""
    if isinstance(request, SampleRequest):
        prompts = [Prompt.model_validate(row) for row in read_jsonl(Path(request.prompts_file))]
        return sum(len(prompt.seeds) for prompt in prompts) - sum(1 for _ in read_jsonl(whole / SAMPLES_FILE))
    pictures = sum(1 for _ in read_jsonl(Path(request.samples_directory) / SAMPLES_FILE))
    asked = {(row["prompt_id"], row["seed"]) for row in read_jsonl(whole / TRANSCRIPT_FILE)}
    return pictures - len(asked)


def _prepare(request: Shared, whole: Path, share: Share, gpu: bool) -> ShareJob:
    """The share's directory with its request; a judge's share knows what was said before."""
    directory = whole / SHARES / f"{share.index}-of-{share.count}"
    directory.mkdir(parents=True, exist_ok=True)
    own = request.model_copy(
        update={"output_directory": str(directory), "share": share.model_copy(update={"whole": str(whole)})}
    )
    for name in (TRANSCRIPT_FILE, IDENTITY_FILE):
        if isinstance(request, JudgeRequest) and (whole / name).is_file():
            shutil.copyfile(whole / name, directory / name)
    file = RunDirectory(directory).request
    atomic_write_text(file, own.model_dump_json(indent=2) + "\n")
    module, command = (
        ("reca_core.launch", "sample") if isinstance(own, SampleRequest) else ("evaluation.launch", "judge")
    )
    return ShareJob(tuple(module_command(module, command, str(file))), str(directory), gpu)


def progress_of(whole: Path, request: Shared, missing: int) -> Progress:
    """What all shares have done so far."""
    reports = [Progress.model_validate_json(file.read_text()) for file in whole.glob(f"{SHARES}/*/{PROGRESS_FILE}")]
    _, stage = SAMPLE if isinstance(request, SampleRequest) else JUDGE
    done = min(sum(report.done for report in reports), missing)
    return Progress(stage=stage, done=done, total=missing, unit=reports[0].unit if reports else "picture")


def gather(whole: Path) -> None:
    """Move what the shares made into the whole and remove them. May be interrupted and done again."""
    for directory in sorted((whole / SHARES).glob("*-of-*")):
        _gather_samples(directory, whole)
        _gather_replies(directory, whole)
        shutil.rmtree(directory)
    shutil.rmtree(whole / SHARES, ignore_errors=True)


def _gather_samples(directory: Path, whole: Path) -> None:
    """Pictures first, then the rows that promise them. A row is there once."""
    known = {(row["prompt_id"], row["seed"]) for row in read_jsonl(whole / SAMPLES_FILE)}
    rows = [Sample.model_validate(row) for row in read_jsonl(directory / SAMPLES_FILE)]
    new = [row for row in rows if (row.prompt_id, row.seed) not in known]
    for row in new:
        for relative in (row.image_path, f"{COLUMNS}/{row.image_path}"):
            if row.image_path and (directory / relative).is_file():
                (whole / relative).parent.mkdir(parents=True, exist_ok=True)
                os.replace(directory / relative, whole / relative)
    if new:
        append_jsonl(whole / SAMPLES_FILE, [row.model_dump() for row in new])


def _gather_replies(directory: Path, whole: Path) -> None:
    """Replies that the whole lacks, in the share's order, all at once.

    Raises StageFailed where another judge answered here: answers of two judges never mix.
    """
    rows = [json.dumps(row, sort_keys=True) for row in read_jsonl(directory / TRANSCRIPT_FILE)]
    if not rows:
        return
    identity = whole / IDENTITY_FILE
    found = (directory / IDENTITY_FILE).read_text()
    if identity.is_file() and json.loads(identity.read_text()) != json.loads(found):
        raise StageFailed(f"another judge answered in {directory}", field=str(whole), remedy=f"remove {directory}")
    known = {json.dumps(row, sort_keys=True) for row in read_jsonl(whole / TRANSCRIPT_FILE)}
    lines = [json.dumps(row, ensure_ascii=False) for row in read_jsonl(whole / TRANSCRIPT_FILE)]
    lines += [json.dumps(json.loads(row), ensure_ascii=False) for row in rows if row not in known]
    atomic_write_text(identity, found)
    atomic_write_text(whole / TRANSCRIPT_FILE, "".join(f"{line}\n" for line in lines))
