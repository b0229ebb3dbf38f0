"""Detectors of real size take the cores of a CPU, tiny ones one thread; what they see does not depend on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import load_model, numpy_helper, save_model

from evaluation.judges.detector_convert import build
from evaluation.judges.detector_mask2former import Mask2FormerDetector
from evaluation.judges.devices import REAL_SIZE_BYTES, available_cores, cpu_threads, use_cpu_threads
from evaluation.judges.onnx import open_session
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.test_onnx import PLANTED, network, raw
from tests.evaluation.tiny_detector import TINY, random_state

SCORE_TOLERANCE = 1e-4
AUTO, THREE = JudgeSettings(), JudgeSettings(cpu_threads=3)


@pytest.fixture(autouse=True)
def _threads_of_the_test() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_cores_for_real_sizes_one_for_small_ones_and_what_is_set_for_both() -> None:
    small, real = REAL_SIZE_BYTES - 1, REAL_SIZE_BYTES
    assert [cpu_threads(AUTO, size) for size in (small, real)] == [1, available_cores()]
    assert [cpu_threads(THREE, size) for size in (small, real)] == [3, 3]


def test_cores_are_those_that_this_process_may_use() -> None:
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    script += "from evaluation.judges.devices import available_cores; print(available_cores())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
    assert available_cores() == len(os.sched_getaffinity(0))


def test_a_small_model_beside_a_large_one_takes_no_thread_away() -> None:
    large, small = torch.nn.Linear(2048, 1024), torch.nn.Linear(2, 2)
    use_cpu_threads(small, AUTO, "small")
    assert torch.get_num_threads() == 1
    use_cpu_threads(large, AUTO, "large")
    use_cpu_threads(small, AUTO, "small")
    assert torch.get_num_threads() == available_cores()
    use_cpu_threads(large, THREE, "large")
    assert torch.get_num_threads() == 3


def test_an_onnx_file_of_real_size_gets_the_cores(tmp_path: Path) -> None:
    tiny = network(tmp_path / "tiny.onnx", raw(PLANTED, "v8"))
    model = load_model(str(tiny))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(REAL_SIZE_BYTES // 4, np.float32), "ballast"))
    save_model(model, str(tmp_path / "real.onnx"))
    for name, settings, threads in (("tiny", AUTO, 1), ("real", AUTO, available_cores()), ("tiny", THREE, 3)):
        session = open_session(str(tmp_path / f"{name}.onnx"), settings)
        assert session.get_session_options().intra_op_num_threads == threads


def test_a_detector_sees_the_same_with_any_number_of_threads() -> None:
    model = build(random_state(), TINY).eval()
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    seen = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        (found,) = Mask2FormerDetector(model, 1).detect([picture], [frozenset(range(80))])
        seen.append([(item.index, item.box, item.score) for item in found])
    assert seen[0], "a detector that sees nothing would pass"
    for other in seen[1:]:
        assert [item[:2] for item in other] == [item[:2] for item in seen[0]]
        assert [item[2] for item in other] == pytest.approx([item[2] for item in seen[0]], abs=SCORE_TOLERANCE)
