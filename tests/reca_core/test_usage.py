"""Memory and arithmetic of a step: counted exactly, without changing a bit, and beside the same rows after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from reca_core.contracts.files import read_jsonl
from reca_core.contracts.lifeline import Interrupted
from reca_core.contracts.registry import FAMILIES
from reca_core.training import setup
from reca_core.training.blocks import recomputed
from reca_core.training.distributed import Layout
from reca_core.training.loop import DATA_SECONDS, PICTURES_PER_SECOND, SECONDS
from reca_core.training.usage import (
    DEVICE_MEMORY,
    HOST_MEMORY,
    TFLOPS,
    UTILISATION,
    FlopCount,
    peak_tflops,
    row,
)
from tests.reca_core.test_models_contract_training import family_request
from tests.reca_core.test_resume import StopAfter
from tests.reca_core.test_training import Bench
from tests.reca_core.training_rig import ONE_PROCESS, RECA, plan, request, train

MEASURED = {SECONDS, PICTURES_PER_SECOND, DATA_SECONDS, HOST_MEMORY, TFLOPS}
"""Columns that depend on the machine and the moment."""
ROWS, INNER, OUTER = 4, 8, 16
PRODUCT = 2 * ROWS * INNER * OUTER
"""Operations of one product of matrices of these sizes."""


def counted(forward) -> int:
    count = FlopCount(wanted=True)
    with count.one_pass():
        forward(torch.ones(ROWS, INNER, requires_grad=True)).sum().backward()
    return count.total


def test_forward_and_both_products_of_backward_are_counted() -> None:
    assert counted(nn.Linear(INNER, OUTER)) == 3 * PRODUCT


def test_what_is_computed_again_is_no_work_of_the_model() -> None:
    block = nn.Sequential(nn.Linear(INNER, OUTER), nn.Tanh(), nn.Linear(OUTER, INNER), nn.Tanh())
    assert counted(recomputed(block)) == counted(block) == 6 * PRODUCT


def test_attention_on_a_cpu_is_counted() -> None:
    """Two products forward, five backward: scores, and the gradients of scores, query, key and value."""

    def attend(values: torch.Tensor) -> torch.Tensor:
        heads = values.reshape(1, 1, ROWS, INNER)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads)

    assert counted(attend) == 7 * 2 * ROWS * ROWS * INNER


def test_a_count_ends_with_its_step_and_an_unwanted_one_never_begins() -> None:
    for count in (FlopCount(wanted=False), FlopCount(wanted=True)):
        count.close()
        with count.one_pass():
            nn.Linear(INNER, OUTER)(torch.ones(ROWS, INNER)).sum().backward()
        assert count.total == 0


def test_compiled_code_is_not_counted() -> None:
    assert FlopCount.of(plan()).open
    assert not FlopCount.of(plan(compile="aot_eager")).open
    assert not FlopCount.of(plan(attention="flex")).open


@pytest.mark.parametrize("family", FAMILIES)
def test_counting_changes_no_bit(family: str, tmp_path: Path) -> None:
    benches = [Bench(family_request(tmp_path, family, "run")) for _ in range(2)]
    benches[0].updater.flops = FlopCount(wanted=True)
    reports = [bench.updater.step(0, bench.batches(), stop=False) for bench in benches]
    assert reports[0] == reports[1]
    assert benches[0].updater.flops.total > 0
    for name, parameter in benches[0].parameters.items():
        assert torch.equal(parameter, benches[1].parameters[name]), name


def test_forward_passes_that_only_count_tokens_are_left_out(tmp_path: Path) -> None:
    """A step in passes counts its tokens ahead; texts are padded less in them, so there is a little less to do."""
    totals = []
    for per_pass in (0, 2):
        bench = Bench(request(tmp_path, losses=RECA, images_per_step=4, images_per_pass=per_pass))
        bench.updater.flops = FlopCount(wanted=True)
        bench.updater.step(0, bench.batches(), stop=False)
        totals.append(bench.updater.flops.total)
    assert 0.8 * totals[0] < totals[1] <= totals[0]


def test_rows_are_the_same_after_a_resume_except_what_is_measured(tmp_path: Path) -> None:
    straight, broken = (request(tmp_path, run, steps=4) for run in ("straight", "broken"))
    train(straight)
    with pytest.raises(Interrupted):
        train(broken, StopAfter(2))
    train(broken)
    one, other = (list(read_jsonl(Path(asked.run_directory) / "metrics.jsonl")) for asked in (straight, broken))
    assert all(row[TFLOPS] > 0 and row[HOST_MEMORY] > 0 and UTILISATION not in row for row in one + other)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys() > MEASURED
        assert all(first[name] == second[name] for name in first if name not in MEASURED)


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40", None),
        ("NVIDIA GH200 480GB", None),
        ("Tesla T4", None),
    ],
)
def test_a_peak_is_that_of_the_longest_name(device: str, peak: float | None) -> None:
    assert peak_tflops(device) == peak


def test_utilisation_is_operations_over_the_peak_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 << 30)
    found = row(156_000_000_000_000, 2.0, torch.device("cuda"))
    assert (found[TFLOPS], found[UTILISATION], found[DEVICE_MEMORY]) == (78.0, 0.25, 3.0)
    assert row(0, 2.0, torch.device("cpu")).keys() == {HOST_MEMORY}


def test_batches_for_a_gpu_are_pinned_and_copied_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, pinned, copied = request(tmp_path), [], []
    adapter = setup.load_model(asked, ONE_PROCESS)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor)
    on_cpu = setup.open_data(asked, adapter, ONE_PROCESS)
    on_gpu = setup.open_data(asked, adapter, Layout(0, 1, torch.device("cuda")))
    next(iter(on_cpu.steps(0, 1)))
    assert (on_cpu.pins, on_gpu.pins, pinned) == (False, True, [])
    (batch,) = next(iter(on_gpu.steps(0, 1)))
    assert len(pinned) == 4, "both sides of the pictures to redraw and of those asked about"
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *to, **named: copied.append(named) or tensor)
    batch.to(torch.device("cuda"))
    assert copied == [{"non_blocking": True}] * 4
