"""A whole judging in words through an address: samples of edits in the rendered world, and servers that answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation import runner
from evaluation.benchmark import PromptPlan
from evaluation.judges.opening import JudgePlace
from evaluation.judges.selection import open_chosen
from evaluation.prompt_files import write_prompt_files
from evaluation.records import JudgeRequest, JudgeResult
from evaluation.registry import numerics_version, open_benchmark
from reca_core.contracts.files import append_jsonl, read_jsonl
from reca_core.contracts.hashing import sha256_file
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.records import Sample
from tests.evaluation.judging import save_picture
from tests.evaluation.serving import Request, Served

PLAN = PromptPlan(prompts_per_tag=1, pictures_per_prompt=1, first_seed=1000)
Words = Callable[[str], str]


class Judging:
    """One samples directory of edits in the rendered world, judged in words through an address."""

    def __init__(self, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.name, self.monkeypatch = folder, name, monkeypatch
        self.samples, self.output = folder / "samples", folder / "answers"
        self.occasion = ""
        benchmark = open_benchmark(f"{name}.shapeworld", PLAN, None)
        write_prompt_files(self.samples, benchmark)
        rows = []
        for number, prompt in enumerate(benchmark.prompts()):
            path = save_picture(self.samples / prompt.outputs[0], f"#0000{16 + number:02x}")
            given = {"prompt_id": prompt.prompt_id, "seed": prompt.seeds[0], "text": prompt.text}
            rows.append(Sample(**given, image_path=prompt.outputs[0], sha256=sha256_file(path)))
        self.count = len(rows)
        self.rows = rows
        append_jsonl(self.samples / "samples.jsonl", [row.model_dump() for row in rows])

    def run(self, server: Served, **settings: Any) -> JudgeResult:
        return runner.main(self.request(server, **settings))

    def request(self, server: Served, **settings: Any) -> JudgeRequest:
        """What is judged; from here on a judge that is opened asks this server."""
        given = {"judge": "openai", "url": f"{server.url}/v1", "model": "m", "attempts": 2, "concurrency": 2}
        chosen = SettledJudge.model_validate({**given, "date": "2026-01-02", "timeout_seconds": 5, **settings})
        place = JudgePlace(self.name, self.output, self.folder / "cache", occasion=self.occasion)
        self.monkeypatch.setattr(runner, "open_judge", lambda *given: open_chosen(place, chosen))
        benchmark_id, made = f"{self.name}.shapeworld", self.samples / "samples.jsonl"
        return JudgeRequest(
            benchmark=benchmark_id,
            prompts_sha256=sha256_file(self.samples / "prompts.jsonl"),
            samples_sha256=sha256_file(made) if made.is_file() else "",
            prompts_per_tag=PLAN.prompts_per_tag,
            pictures_per_prompt=PLAN.pictures_per_prompt,
            first_seed=PLAN.first_seed,
            resamples=200,
            numerics_version=numerics_version(benchmark_id),
            occasion=self.occasion,
            prompts_file=str(self.samples / "prompts.jsonl"),
            samples_directory=str(self.samples),
            output_directory=str(self.output),
        )

    def transcript(self) -> list[dict[str, Any]]:
        return list(read_jsonl(self.output / "transcript.jsonl"))


def answering(words: Words) -> Callable[[Request], None]:
    """Answers each question with what ``words`` makes of its text."""

    def handle(request: Request) -> None:
        parts = json.loads(request.content)["messages"][0]["content"]
        text = next(part["text"] for part in parts if part["type"] == "text")
        message = {"role": "assistant", "content": words(text)}
        answer = {"model": "m", "choices": [{"index": 0, "message": message}]}
        request.reply(200, json.dumps(answer).encode())

    return handle


def marks(value: int) -> Words:
    """The same mark under each of the labels that the text asks for."""
    from evaluation.benchmarks.imgedit.ratings import LABELS

    def words(text: str) -> str:
        asked = next(labels for labels in LABELS.values() if all(label in text for label in labels))
        return "\n".join(f"{label}: {value}" for label in asked)

    return words
