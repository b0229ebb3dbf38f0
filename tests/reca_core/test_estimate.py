"""What a training needs is foreseen: held against real trainings, and against sums that a person can make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reca_core.contracts.estimate import Estimate, EstimateRequest
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import CaptionSource, LossTerms, TrainingPlan
from reca_core.models.load import adapter_class
from reca_core.models.unified import AnswersInText, DrawsFromText
from reca_core.training import estimate as estimating
from reca_core.training.needs import ACTIVATIONS, GRADIENTS, OPTIMIZER, SAVING, STEP, WEIGHTS, Measured, measure
from reca_core.training.optimizer import set_trainable, trainable
from reca_core.training.shapes import Allocations, FakeParameters
from tests.reca_core.loading_memory import MIB
from tests.reca_core.training_memory import compare

TOLERANCE = 0.15
"""How far the estimate may be from the measured peak, either way."""
SIZE = 200 * MIB
FLOAT = 4


def asked(directory: Path, family: str, losses: LossTerms = LossTerms(), **settings: Any) -> EstimateRequest:
    """The family's smallest model, written once."""
    path = directory / family
    if not path.exists():
        adapter_class(family).smallest(seed=0).save(path)
    plan = TrainingPlan(**{"steps": 4, "images_per_step": 4, "warmup_steps": 2, "device": "cpu", **settings})
    return EstimateRequest(
        family=family,
        path=str(path),
        losses=losses,
        captions=CaptionSource(),
        training=plan,
        picture_pixels=64,
        pictures=12,
        directory=str(directory),
        answer=str(directory / "estimate.json"),
    )


def need(directory: Path, family: str = "janus", **settings: Any) -> Measured:
    """With the reconstruction term alone."""
    alone = LossTerms(reconstruction=1, image_to_text=0, text_to_image=0, text=0)
    return measure(asked(directory, family, alone, **settings), "cpu")


def test_the_estimate_is_close_to_the_measured_peak(tmp_path: Path) -> None:
    found = compare("janus", tmp_path, SIZE)
    assert abs(found.ratio - 1) <= TOLERANCE, f"{found.estimated // MIB} MiB foreseen, {found.measured // MIB} measured"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_estimated_with_all_its_terms_and_nothing_is_read(family: str, tmp_path: Path) -> None:
    adapter = adapter_class(family)
    answers, draws = float(issubclass(adapter, AnswersInText)), float(issubclass(adapter, DrawsFromText))
    terms = LossTerms(reconstruction=1, image_to_text=answers, text_to_image=draws, text=answers)
    found = measure(asked(tmp_path, family, terms), "cpu")
    model = adapter.load(tmp_path / family)
    set_trainable(model.network, model.trainable_names("post"))
    trained = sum(parameter.numel() for parameter in trainable(model.network).values())
    assert found.trained == trained
    assert found.need.process[OPTIMIZER] == 2 * FLOAT * trained
    assert found.need.process[WEIGHTS] >= FLOAT * sum(found.parameters.values())
    assert found.need.process[ACTIVATIONS] > 0


def test_settings_change_what_they_are_there_to_change(tmp_path: Path) -> None:
    plain = need(tmp_path).need
    assert need(tmp_path, activation_checkpointing=True).need.process[ACTIVATIONS] < plain.process[ACTIVATIONS]
    assert need(tmp_path, images_per_pass=1).need.process[ACTIVATIONS] < plain.process[ACTIVATIONS]
    twenty, forty = (need(tmp_path, images_per_step=count).need for count in (20, 40))
    assert 1.5 < forty.process[ACTIVATIONS] / twenty.process[ACTIVATIONS] < 2.1
    averaged = need(tmp_path, ema_decay=0.9).need
    assert averaged.checkpoint * 3 == plain.checkpoint * 4
    halves = need(tmp_path, processes=2, sharding="shard").need
    assert halves.process[OPTIMIZER] * 2 == plain.process[OPTIMIZER]
    replicas = need(tmp_path, processes=2).need
    assert sum(replicas.process.values()) > sum(plain.process.values()) - plain.process[ACTIVATIONS]


def test_low_rank_additions_have_small_gradients(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    plain, low = need(tmp_path), need(tmp_path, lora_rank=2)
    assert low.need.process[GRADIENTS] * 2 < plain.need.process[GRADIENTS]


def test_a_checkpoint_that_is_written_meanwhile_is_counted_where_there_is_one(tmp_path: Path) -> None:
    during = need(tmp_path, checkpoint_every_steps=2).need
    assert during.host[SAVING] == during.host[STEP] + during.checkpoint
    assert SAVING not in need(tmp_path, checkpoint_every_steps=4).need.host
    assert during.checkpoints_kept == 2


def test_allocations_are_those_of_a_layer_that_a_person_can_add_up() -> None:
    network, fakes = nn.Linear(10, 1000, bias=False), FakeParameters()
    fakes.put_into(network)
    allocations = Allocations(fakes.mode)
    allocations.leave_out(network)
    network.weight.register_post_accumulate_grad_hook(allocations.is_gradient)
    inputs = torch.ones(7, 10)
    with allocations:
        (network(inputs) ** 2).sum().backward()
    assert allocations.gradients == FLOAT * 10 * 1000
    assert FLOAT * 2 * 7 * 1000 <= allocations.peak_without_gradients < FLOAT * (6 * 7 * 1000 + 2 * 10 * 1000)


def test_a_known_mask_chooses_as_many_rows_as_it_has(tmp_path: Path) -> None:
    network, fakes = nn.Linear(10, 10), FakeParameters()
    fakes.put_into(network)
    with Allocations(fakes.mode):
        rows = network(torch.ones(6, 10))[torch.tensor([True, False, True, False, False, True])]
    assert rows.shape == (3, 10)


def test_what_does_not_fit_is_refused_with_settings_that_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(tmp_path, "janus", images_per_step=8, checkpoint_every_steps=1)
    free = measure(request, "cpu").need.host_peak
    monkeypatch.setattr(estimating, "host_available", lambda: free - 1)
    found = estimating.estimate(request, 0)
    assert "host memory" in found.shortages[0]
    assert found.remedies
    assert all(remedy.changed and remedy.host_peak < free for remedy in found.remedies)
    changed = request.training.model_copy(update=found.remedies[0].changed)
    assert measure(request.model_copy(update={"training": changed}), "cpu").need.host_peak < free


def test_the_answer_is_written_and_fits_a_machine_that_has_room(tmp_path: Path) -> None:
    request = asked(tmp_path, "janus")
    estimating.main(request)
    found = Estimate.model_validate_json(Path(request.answer).read_bytes())
    assert (found.shortages, found.remedies) == ([], [])
    assert found.imports > 100 * MIB
    assert found.host_available > found.need.host_peak


@pytest.mark.parametrize(("limit", "free"), [("3000000", 2_000_000), ("max", 8_000_000)])
def test_a_control_group_counts_where_it_leaves_less(limit: str, free: int, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 7813 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert abs(estimating.host_available(tmp_path, tmp_path) - free) < 1024


def test_the_switch_is_no_part_of_a_training() -> None:
    assert request_hash(TrainingPlan(preflight="off")) == request_hash(TrainingPlan())
