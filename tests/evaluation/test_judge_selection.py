"""A choice of judge gives one id, one class and one version; impossible choices name the possible ones."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from evaluation.benchmark import Judge
from evaluation.judges.detector_label import PUBLISHED_SHA256_PREFIX
from evaluation.judges.selection import (
    JUDGES,
    PUBLISHED,
    choice_faults,
    judge_version,
    judged_id,
    settled,
    upper_cost,
)
from reca_core.contracts.errors import BadInput
from reca_core.contracts.judging import JudgeSettings, SettledJudge


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_every_judge_is_there_and_opens_by_place_and_settings(name: str) -> None:
    module, _, kind = JUDGES[name].judge.partition(":")
    judge = getattr(importlib.import_module(module), kind)
    assert callable(judge.open)
    assert {"answer"} <= {member for member in dir(Judge) if not member.startswith("_")} & set(dir(judge))


def test_choosing_loads_no_model_library() -> None:
    program = (
        "import sys, json\nimport evaluation.judges.selection, evaluation.judges.opening\n"
        "import evaluation.judges.vlm_endpoint, evaluation.judges.local_vlm, evaluation.judges.vqa\n"
        "import evaluation.judges.detector_mask2former, evaluation.judges.onnx, evaluation.fetch\n"
        "heavy = ('torch', 'transformers', 'diffusers', 'openai', 'onnxruntime')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


@pytest.mark.parametrize(
    ("benchmark", "settings", "expected"),
    [
        (
            "geneval",
            {"judge": "published", "weights": "/w/x.pth", "weights_sha256": PUBLISHED_SHA256_PREFIX},
            "geneval",
        ),
        ("geneval", {"judge": "detector", "weights": "/w/mine"}, "geneval.mine"),
        ("geneval", {"judge": "onnx", "weights": "/w/yolov8m.onnx"}, "geneval.yolov8m"),
        ("dpg", {}, "dpg"),
        ("dpg", {"judge": "local", "model": "Qwen/Qwen3-VL-8B-Instruct"}, "dpg.qwen3-vl-8b-instruct"),
        ("gedit", {}, "gedit"),
        ("gedit", {"judge": "openai", "model": "gpt-4.1-2025-04-14"}, "gedit.gpt-4.1-2025-04-14"),
        ("imgedit", {"judge": "openai", "protocol": "published"}, "imgedit"),
    ],
)
def test_a_choice_gives_its_id(benchmark: str, settings: dict[str, str], expected: str) -> None:
    assert judged_id(benchmark, SettledJudge.model_validate(settings)) == expected


def test_the_published_judge_of_an_editing_benchmark_asks_as_published() -> None:
    for benchmark, judge in PUBLISHED.items():
        chosen = settled(benchmark, JudgeSettings())
        assert chosen.judge == judge
        assert (chosen.protocol == "published") == (judge == "openai")
        assert judge_version(benchmark, JudgeSettings()) >= 1


@pytest.mark.parametrize(
    ("benchmark", "judge"), [("geneval", "openai"), ("gedit", "detector"), ("imgedit", "vqa"), ("pope", "published")]
)
def test_an_impossible_choice_names_the_possible_ones(benchmark: str, judge: str) -> None:
    (fault,) = choice_faults(benchmark, JudgeSettings.model_validate({"judge": judge}))
    assert set(fault.choices) == {name for name, choice in JUDGES.items() if benchmark in choice.benchmarks}
    with pytest.raises(BadInput):
        judged_id(benchmark, JudgeSettings.model_validate({"judge": judge}))


def test_the_upper_cost_follows_the_prices() -> None:
    priced = JudgeSettings(dollars_per_million_input_tokens=2.0, dollars_per_million_output_tokens=8.0)
    assert upper_cost(1000, 2000, 2, priced) == pytest.approx(1000 * (5000 * 2e-6 + 1400 * 8e-6))
    assert upper_cost(1000, 2000, 2, JudgeSettings()) == 0.0
