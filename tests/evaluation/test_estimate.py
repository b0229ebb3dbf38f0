"""What is announced before asking bounds what is then asked, from both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from evaluation import runner
from evaluation.benchmark import PromptPlan
from evaluation.estimate import estimate
from evaluation.registry import open_benchmark
from reca_core.contracts.files import read_jsonl
from tests.evaluation.drawn import BENCHMARK, PLAN, draw_samples, request_for


def test_a_judging_asks_no_less_and_no_more_than_was_announced(tmp_path: Path) -> None:
    draw_samples(tmp_path / "samples", scene_seed=5)
    result = runner.main(request_for(tmp_path / "samples", tmp_path / "answers"))
    expected = estimate(open_benchmark(BENCHMARK, PLAN, None))
    assert expected.pictures == result.judged
    assert expected.least <= result.asked <= expected.most
    assert expected.least < expected.most
    per_picture = Counter((row["prompt_id"], row["seed"]) for row in read_jsonl(tmp_path / "answers/transcript.jsonl"))
    benchmark = open_benchmark(BENCHMARK, PLAN, None)
    most = {prompt.prompt_id: benchmark.most_asks(prompt) for prompt in benchmark.prompts()}
    assert all(count <= most[prompt_id] for (prompt_id, _), count in per_picture.items())


@pytest.mark.parametrize(
    "benchmark_id, least, most, sent",
    [
        ("imgedit.shapeworld", 7, 21, 2),
        ("gedit.shapeworld", 10, 30, 2),
        ("pope.shapeworld", 2, 2, 1),
    ],
)
def test_requests_of_one_prompt_per_tag(benchmark_id: str, least: int, most: int, sent: int) -> None:
    found = estimate(open_benchmark(benchmark_id, PromptPlan(prompts_per_tag=1), None))
    assert (found.least, found.most, found.pictures_sent) == (least, most, sent)
    assert found.text_bytes > 10


@pytest.mark.benchmark_data
def test_the_published_suites_take_so_many_requests(benchmark_data: Path) -> None:
    imgedit, gedit = (estimate(open_benchmark(name, PromptPlan(), benchmark_data)) for name in ("imgedit", "gedit"))
    assert (imgedit.pictures, imgedit.least, imgedit.most) == (737, 737, 2211)
    assert (gedit.pictures, gedit.least, gedit.most) == (604, 1208, 3624)
