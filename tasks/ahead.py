"""Judging overlapped with sampling, where the judge is on another machine: its waiting costs no GPU time here.

A second child (evaluation/ahead.py) asks about every picture as soon as it is there. It is a help, not a stage: where
it fails, the judging afterwards asks what is open and says what is wrong. Who judged on which date and what was spent
moves into the judging's directory, so that it is the same judging and finds every reply kept.
"""

from __future__ import annotations

import contextvars
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluation.judges.budget import SPENT_FILE
from evaluation.judges.opening import IDENTITY_FILE
from evaluation.records import JudgeRequest
from evaluation.registry import judged_elsewhere, numerics_version
from reca_core.contracts.errors import RecaError
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.requests import EvaluationPlan
from tasks import plan, processes
from tasks.home import benchmark_data, current_home
from tasks.judging import key_environment
from tasks.progress import note, progress_sink, run_logger

FOLDER = "asked-ahead"
"""Inside the samples directory: one folder per judge."""
NOT_YET = ""
"""Stands for the hash of samples that are still being made."""


def ahead_request(
    benchmark: str,
    samples: RunDirectory,
    prompts_sha256: str,
    evaluation: EvaluationPlan,
    judging: SettledJudge,
    occasion: str = "",
) -> JudgeRequest:
    """The judging of samples that are not complete yet."""
    data = benchmark_data()
    request = plan.judge_request(
        home=current_home(),
        benchmark=benchmark,
        numerics_version=numerics_version(benchmark, judging),
        samples=samples,
        prompts_sha256=prompts_sha256,
        samples_sha256=NOT_YET,
        evaluation=evaluation,
        judge=judging,
        benchmark_data=str(data) if data else "",
        occasion=occasion,
    )
    return request.model_copy(update={"output_directory": str(samples.path / FOLDER / request_hash(request))})


@contextmanager
def asking_ahead(request: JudgeRequest) -> Iterator[None]:
    """For the block, which makes the samples, a child asks about them; then it is waited for until it has asked all.

    Does nothing for a judge on this machine, or samples that are complete.
    """
    samples = RunDirectory(Path(request.samples_directory))
    if not judged_elsewhere(request.benchmark, request.judge) or samples.done.is_file():
        yield
        return
    stop = threading.Event()
    context = contextvars.copy_context()
    follower = threading.Thread(target=context.run, args=(_follow, request, stop), name="asking-ahead")
    follower.start()
    try:
        yield
        follower.join()
    finally:
        stop.set()
        follower.join()


def _follow(request: JudgeRequest, stop: threading.Event) -> None:
    directory = RunDirectory(Path(request.output_directory))
    atomic_write_text(directory.request, request.model_dump_json(indent=2) + "\n")
    command = processes.module_command("evaluation.launch", "ahead", str(directory.request))
    show = progress_sink(f"ahead-{request_hash(request)}", f"judge {request.benchmark} while sampling")
    try:
        processes.run_child(
            command, directory.log, run_logger().info, show, stop=stop, extra_environment=key_environment()
        )
    except RecaError as error:
        if not stop.is_set():
            note(f"judging while sampling stopped; the judging afterwards asks what is open: {error}")


def take_over(ahead: JudgeRequest, answers: RunDirectory) -> None:
    """Move identity and spending of an asking ahead into the judging's directory, unless that has begun by itself."""
    asked = Path(ahead.output_directory)
    if not (asked / IDENTITY_FILE).is_file():
        return
    answers.path.mkdir(parents=True, exist_ok=True)
    if not (answers.path / IDENTITY_FILE).exists():
        for name in (SPENT_FILE, IDENTITY_FILE):
            if (asked / name).is_file():
                os.replace(asked / name, answers.path / name)
    shutil.rmtree(asked, ignore_errors=True)
