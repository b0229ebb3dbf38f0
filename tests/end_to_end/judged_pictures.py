"""Folders of edited pictures in the published layouts, and `reca evaluate` over them as a process of its own.

Instructions and judge texts are the benchmarks' own (RECA_BENCHMARK_DATA, checked by hash as always); the pictures to
edit, whose hashes nobody pinned, are painted here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.benchmark import PromptPlan
from evaluation.registry import open_benchmark
from reca_core.contracts.records import Prompt
from tests.evaluation.endpoint_rig import answering, marks
from tests.evaluation.judging import save_picture
from tests.evaluation.serving import Request, Served

RUN_SECONDS = 300.0
KEY = "sk-of-this-test"
Handle = Callable[[Request], None]


def prompts_of(benchmark: str, data: Path, per_tag: int) -> list[Prompt]:
    return list(open_benchmark(benchmark, PromptPlan(per_tag, 1, 1000), data).prompts())


class Place:
    """One home, one copy of a benchmark's files with painted pictures to edit, one folder of edits."""

    def __init__(self, root: Path, benchmark: str, published: Path, per_tag: int, sources: str = "data") -> None:
        self.root, self.home, self.data, self.pictures = root, root / "home", root / "data", root / "edits"
        self.benchmark, self.per_tag = benchmark, per_tag
        for file in sorted((published / benchmark).iterdir()):
            (self.data / benchmark).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, self.data / benchmark / file.name)
        self.prompts = prompts_of(benchmark, self.data, per_tag)
        beside = self.data / benchmark if sources == "data" else self.pictures
        for number, prompt in enumerate(self.prompts):
            save_picture(self.pictures / prompt.outputs[0], f"#00{number:02x}80")
            if prompt.source_image:
                save_picture(beside / prompt.source_image, f"#{number:02x}0000", (24, 16))

    def command(self, server: Served, *words: str, pictures: bool) -> list[str]:
        given = ["evaluate", "--benchmark", self.benchmark, "--judge", "openai"]
        given += ["--images", str(self.pictures)] if pictures else []
        endpoint = ["--judge-url", f"{server.url}/v1", "--judge-model", "judge-1"]
        return reca_command(self.home, self.data, *given, *endpoint, *self.plan(), *words)

    def plan(self) -> list[str]:
        return ["--set", f"evaluation.prompts_per_tag={self.per_tag}"]

    def start(self, server: Served, *words: str, pictures: bool = True) -> subprocess.Popen[str]:
        """``reca evaluate`` over the folder of edits, or of a model that ``words`` name."""
        return start(self.command(server, *words, pictures=pictures), self.root)

    def run(self, server: Served, *words: str) -> tuple[int, dict[str, Any], str]:
        return ended(self.start(server, *words))


def reca_command(home: Path, data: Path, *words: str) -> list[str]:
    shared = ["--json", "--home", str(home), "--benchmark-data", str(data)]
    return [str(Path(sys.executable).with_name("reca")), *shared, *words]


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OPENAI_API_KEY": KEY}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Exit status, the JSON object, and what was said besides."""
    said, told = process.communicate(timeout=RUN_SECONDS)
    return process.returncode, json.loads(said), told


def mark_of(text: str) -> int:
    """Another mark for another question, so that a lost or doubled reply shows in the score."""
    return 1 + len(text) % 5


def faithful(request: Request) -> None:
    answering(lambda text: marks(mark_of(text))(text))(request)


def two_scores(request: Request) -> None:
    """What GEdit asks for."""
    answering(lambda text: json.dumps({"score": [len(text) % 11, 9], "reasoning": "as it is"}))(request)


class Holding:
    """Answers so many requests and holds the next one until it is let go."""

    def __init__(self, count: int, handle: Handle) -> None:
        self._left, self._handle = count, handle
        self.reached, self.let_go = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> None:
        self._left -= 1
        if self._left < 0:
            self.reached.set()
            self.let_go.wait(RUN_SECONDS)
        self._handle(request)


def no_permission_after(count: int, handle: Handle) -> Handle:
    left = [count]

    def answer(request: Request) -> None:
        left[0] -= 1
        handle(request) if left[0] >= 0 else request.reply(401, b'{"error": {"message": "expired"}}')

    return answer
