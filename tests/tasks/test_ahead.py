"""Sampling and a remote judge at once: a child asks while samples are made, and the judging takes over from it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evaluation.judges.vlm_endpoint import KEY_VARIABLE
from evaluation.prompt_files import prompts_text
from evaluation.records import JudgeRequest
from evaluation.registry import judged_elsewhere, open_benchmark
from reca_core.contracts.files import append_jsonl, atomic_write_text
from reca_core.contracts.hashing import sha256_file, sha256_text
from reca_core.contracts.home import HOME_VARIABLE, Home, RunDirectory
from reca_core.contracts.judging import JudgeSettings, SettledJudge
from reca_core.contracts.records import Sample
from reca_core.contracts.requests import EvaluationPlan
from tasks.ahead import ahead_request, asking_ahead, take_over
from tasks.home import BENCHMARK_DATA_VARIABLE
from tasks.sample import prompt_plan
from tests.evaluation.endpoint_rig import answering, marks
from tests.evaluation.judging import save_picture
from tests.evaluation.serving import Served, served

EVALUATION = EvaluationPlan(benchmarks=["imgedit"], prompts_per_tag=1, pictures_per_prompt=1)
PATIENCE_SECONDS = 120


@pytest.fixture
def server() -> Iterator[Served]:
    with served(answering(marks(4))) as started:
        yield started


@pytest.fixture
def request_of(
    tmp_path: Path, benchmark_data: Path, server: Served, monkeypatch: pytest.MonkeyPatch
) -> tuple[JudgeRequest, list[Sample]]:
    """Samples of edits that are still to be made, and the judging of them by an endpoint."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setenv(BENCHMARK_DATA_VARIABLE, str(benchmark_data))
    monkeypatch.setenv(KEY_VARIABLE, "sk-of-this-test")
    judging = SettledJudge(judge="openai", url=f"{server.url}/v1", model="m", concurrency=2, attempts=1)
    benchmark = open_benchmark("imgedit.m", prompt_plan(EVALUATION), benchmark_data)
    samples = Home(tmp_path / "home").samples("s")
    text = prompts_text(benchmark)
    atomic_write_text(samples.path / "prompts.jsonl", text)
    rows = []
    for number, prompt in enumerate(benchmark.prompts()):
        save_picture(samples.path / prompt.source_image)
        path = save_picture(samples.path / prompt.outputs[0], f"#0000{16 + number:02x}")
        given = {"prompt_id": prompt.prompt_id, "seed": prompt.seeds[0], "text": prompt.text}
        rows.append(Sample(**given, image_path=prompt.outputs[0], sha256=sha256_file(path)))
    return ahead_request("imgedit.m", samples, sha256_text(text), EVALUATION, judging), rows


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.benchmark_data
def test_a_child_asks_while_samples_are_made_and_its_date_and_spending_move_on(
    request_of: tuple[JudgeRequest, list[Sample]], server: Served, tmp_path: Path
) -> None:
    request, rows = request_of
    samples = RunDirectory(Path(request.samples_directory))
    with asking_ahead(request):
        append_jsonl(samples.path / "samples.jsonl", [rows[0].model_dump()])
        wait_for(lambda: bool(server.paths))
        append_jsonl(samples.path / "samples.jsonl", [row.model_dump() for row in rows[1:]])
        samples.done.write_text("{}")
    assert len(server.paths) == len(rows)
    answers = RunDirectory(tmp_path / "answers")
    take_over(request, answers)
    assert json.loads((answers.path / "judge.json").read_text())["settings"]["date"]
    assert json.loads((answers.path / "spent.json").read_text())["requests"] == len(rows)
    assert not Path(request.output_directory).exists()
    with asking_ahead(request):
        pass  # the samples are complete: nobody is asked
    assert not Path(request.output_directory).exists()


@pytest.mark.benchmark_data
def test_sampling_that_fails_ends_the_child_at_once(request_of: tuple[JudgeRequest, list[Sample]]) -> None:
    request, rows = request_of
    log = RunDirectory(Path(request.output_directory)).log
    append_jsonl(Path(request.samples_directory) / "samples.jsonl", [rows[0].model_dump()])

    def sampling() -> None:
        with asking_ahead(request):
            wait_for(log.is_file)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        sampling()
    assert "sk-of-this-test" not in log.read_text() + Path(request.output_directory, "request.json").read_text()


def test_only_a_judge_on_another_machine_is_asked_ahead() -> None:
    endpoint = JudgeSettings(judge="openai", model="m")
    assert judged_elsewhere("dpg.m", endpoint)
    assert judged_elsewhere("imgedit", JudgeSettings())
    assert not judged_elsewhere("geneval.shapeworld", JudgeSettings())
    assert not judged_elsewhere("dpg", JudgeSettings(judge="vqa"))
    assert not judged_elsewhere("pope", JudgeSettings())


def test_a_judging_that_began_by_itself_keeps_its_own_identity(tmp_path: Path) -> None:
    asked, answers = tmp_path / "asked", RunDirectory(tmp_path / "answers")
    for folder, name in ((asked, "ahead"), (answers.path, "own")):
        atomic_write_text(folder / "judge.json", json.dumps({"name": name}))
    request = JudgeRequest.model_construct(output_directory=str(asked))
    take_over(request, answers)
    assert json.loads((answers.path / "judge.json").read_text())["name"] == "own"
    assert not asked.exists()
