"""What a training needs is foreseen: held against real trainings, and against sums that a person can make."""

from __future__ import annotations

import json
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
from reca_core.models.unified import AnswersInText, DrawsFromText, ReusesFeatures
from reca_core.training import estimate as estimating
from reca_core.training.feature_choice import frozen_of
from reca_core.training.host_needs import DRAWING, END, SAVING, STEP, Held, exporting
from reca_core.training.needs import (
    ACTIVATIONS,
    AVERAGE,
    BUCKETS,
    GATHERED,
    GRADIENTS,
    OPTIMIZER,
    WEIGHTS,
    Measured,
    OnePicture,
    Pass,
    _beside_gradients,
    measure,
)
from reca_core.training.optimizer import set_trainable, trainable
from reca_core.training.shapes import Allocations, FakeParameters
from tests.reca_core.loading_memory import MIB
from tests.reca_core.training_memory import compare

TOLERANCE = 0.15
"""How far the estimate may be from the measured peak, either way."""
SIZE = 200 * MIB
FLOAT = 4
ALONE = LossTerms(reconstruction=1, image_to_text=0, text_to_image=0, text=0)


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
    return measure(asked(directory, family, ALONE, **settings), "cpu")


def test_the_estimate_is_close_to_the_measured_peak(tmp_path: Path) -> None:
    found = compare("janus", tmp_path, SIZE)
    assert abs(found.ratio - 1) <= TOLERANCE, f"{found.estimated // MIB} MiB foreseen, {found.measured // MIB} measured"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_estimated_with_all_its_terms_and_nothing_is_read(family: str, tmp_path: Path) -> None:
    adapter = adapter_class(family)
    answers, draws = float(issubclass(adapter, AnswersInText)), float(issubclass(adapter, DrawsFromText))
    terms = LossTerms(reconstruction=1, image_to_text=answers, text_to_image=draws, text=answers, unconditional=draws)
    request = asked(tmp_path, family, terms, feature_cache="on")
    found = measure(request.model_copy(update={"feature_directory": str(tmp_path / "features")}), "cpu")
    model = adapter.load(tmp_path / family)
    set_trainable(model.network, model.trainable_names("post"))
    trained = sum(parameter.numel() for parameter in trainable(model.network).values())
    assert found.trained == trained
    assert found.need.process[OPTIMIZER] == 2 * FLOAT * trained
    assert found.need.process[WEIGHTS] >= FLOAT * sum(found.parameters.values())
    assert found.need.process[ACTIVATIONS] > 0
    assert isinstance(model, ReusesFeatures)
    parts = frozen_of(model.frozen_parts(), model.network, request.training).values()
    with torch.no_grad():
        features = [row for part in parts for row in part.encode(OnePicture(model, 64).images([0]))]
    assert found.need.features == request.pictures * sum(row.nbytes for row in features)


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


def test_a_rank_of_a_sharded_copy_holds_its_part_and_for_previews_everything(tmp_path: Path) -> None:
    plain, halves = need(tmp_path), need(tmp_path, processes=2, sharding="shard")
    whole, part = plain.need.process, halves.need.process
    assert GATHERED in part
    fed = halves.need.host[STEP] - 2 * sum(part.values())
    assert halves.need.host[DRAWING] == 2 * (part[WEIGHTS] + whole[WEIGHTS] + part[OPTIMIZER]) + fed
    on_gpu = measure(asked(tmp_path, "janus", ALONE, processes=2, sharding="shard"), "cuda").need
    assert on_gpu.device_peak >= part[WEIGHTS] + whole[WEIGHTS] + part[OPTIMIZER]
    assert DRAWING not in on_gpu.host


def test_gradients_that_are_divided_count_as_parts_beside_the_activations() -> None:
    found = Pass(peak=130, activations=100, batch=0)
    assert _beside_gradients(found, trained=40, share=1) == 90, "together they are the measured peak"
    assert _beside_gradients(found, trained=40, share=2) == 95, "half of the one peak and half of the other"
    assert _beside_gradients(found, trained=40, share=10) == 99


def test_ranks_that_write_parts_hold_a_file_twice_more_and_rank_0_that_writes_all_does_not(tmp_path: Path) -> None:
    plan = {"processes": 2, "checkpoint_every_steps": 2}
    parts, whole, asked_for = (
        need(tmp_path, **plan, **more).need
        for more in (
            {"sharding": "shard"},
            {"sharding": "shard", "checkpoint_format": "whole"},
            {"checkpoint_format": "shards"},
        )
    )
    saved = parts.checkpoint
    assert parts.host[SAVING] - parts.host[STEP] == saved + 2 * 2 * (saved // 2)
    adapter = adapter_class("janus").load(tmp_path / "janus")
    set_trainable(adapter.network, adapter.trainable_names("post"))
    largest = max(parameter.nbytes for parameter in trainable(adapter.network).values())
    assert whole.host[SAVING] - whole.host[STEP] == saved + 2 * largest, "both gather it, tensor by tensor"
    assert asked_for.host[SAVING] - asked_for.host[STEP] == 2 * saved + 2 * 2 * (saved // 2), "every rank copies all"


SHARDED = {"processes": 2, "sharding": "shard"}


@pytest.mark.parametrize(
    ("settings", "narrowed", "on_cpu", "expected"),
    [
        ({}, 0, True, 0),
        ({}, 0, False, 100),
        ({"ema_decay": 0.9}, 0, True, 40),
        ({}, 7, True, 107 + 3),
        ({}, 7, False, 107 + 3 + 40),
        ({"lora_rank": 2}, 0, True, 100 + 3 + 11),
        (SHARDED, 0, True, 100 + 3 + 40 + 2 * 9),
        ({**SHARDED, "ema_decay": 0.9}, 0, True, 100 + 3 + 40 + 2 * 20 + 2 * 9),
        ({**SHARDED, "ema_decay": 0.9}, 0, False, 100 + 3 + 40 + 2 * 9),
    ],
)
def test_what_the_export_puts_together(settings: dict[str, Any], narrowed: int, on_cpu: bool, expected: int) -> None:
    """100 bytes of weights of which 40 are trained, 3 in files of another type; LoRA adds to 11, a tensor has 9."""
    held = Held(100, narrowed, trained=40, converted=3, layer=0, outside=0, merged=11, largest=9)
    plan = TrainingPlan(steps=1, device="cpu", **settings)
    assert exporting(plan, held, plan.processes, on_cpu) == expected


def test_an_average_that_a_published_slip_asks_for_is_counted(tmp_path: Path) -> None:
    correct, parity = (need(tmp_path, "bagel", upstream_parity=slip).need for slip in (False, True))
    assert parity.checkpoint * 3 == correct.checkpoint * 4
    assert AVERAGE in parity.process


def test_replicas_keep_their_buckets_until_the_end(tmp_path: Path) -> None:
    two = need(tmp_path, processes=2).need
    part, fed = two.process, two.host[STEP] - 2 * sum(two.process.values())
    assert part[BUCKETS] == part[GRADIENTS]
    assert two.host[END] == 2 * (part[WEIGHTS] + part[OPTIMIZER] + part[BUCKETS]) + two.checkpoint + fed


def test_the_longest_texts_are_foreseen_because_a_run_has_its_peak_there(tmp_path: Path) -> None:
    def activations(*templates: str) -> int:
        (tmp_path / "janus" / "templates.txt").write_text("\n".join(templates))
        return need(tmp_path, drop_text=0.9).need.process[ACTIVATIONS]

    adapter_class("janus").smallest(seed=0).save(tmp_path / "janus")
    short, long = "see", " ".join(["see"] * 60)
    assert activations(short) < activations(long) == activations(*[short] * 50, long)


def test_caption_pictures_that_are_missing_do_not_keep_a_training_from_being_estimated(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image> how many?"}, {"from": "gpt", "value": "one"}]
    (tmp_path / "llava.json").write_text(json.dumps([{"image": "gone.png", "conversations": turns}]))
    wanted = asked(tmp_path, "janus", LossTerms(reconstruction=0, image_to_text=1, text=0))
    captions = CaptionSource(source=str(tmp_path / "llava.json"))
    assert measure(wanted.model_copy(update={"captions": captions}), "cpu").need.host_peak > 0


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


def test_pictures_per_pass_are_lessened_no_further_than_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked(tmp_path, "janus", images_per_step=1024, checkpoint_in_background=False, keep_checkpoints=1)
    peaks = {images: need(tmp_path, images_per_step=1024, images_per_pass=images).need.host_peak for images in (64, 16)}
    monkeypatch.setattr(estimating, "host_available", lambda: (peaks[64] + peaks[16]) // 2)
    request = request.model_copy(update={"losses": LossTerms(reconstruction=1, image_to_text=0, text=0)})
    changes = [remedy.changed for remedy in estimating.estimate(request, 0).remedies]
    assert {"images_per_pass": 16} in changes
    assert not any(change.get("images_per_pass") in (1, 4) for change in changes)


def test_the_answer_is_written_and_fits_a_machine_that_has_room(tmp_path: Path) -> None:
    request = asked(tmp_path, "janus")
    estimating.main(request)
    found = Estimate.model_validate_json(Path(request.answer).read_bytes())
    assert (found.shortages, found.remedies) == ([], [])
    assert found.imports > 100 * MIB
    assert found.host_available is not None
    assert found.host_available > found.need.host_peak


def test_nothing_free_is_known_and_refuses_while_unknown_does_not(tmp_path: Path) -> None:
    found = estimating.estimate(asked(tmp_path, "janus"), 0)

    def short(**free: Any) -> list[str]:
        return estimating.shortages_of(found.model_copy(update=free), found.need, 1)

    assert "0 KiB free" in short(host_available=0)[0]
    assert "GPU memory" in short(device_available=[0, 1 << 50])[0]
    assert short(host_available=None, device_available=[]) == []


def test_features_that_are_insisted_on_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Janus: of 12 pictures, 4 steps of 4."""
    features = tmp_path / "features"

    def wanted(**settings: Any) -> EstimateRequest:
        request = asked(tmp_path, "janus", ALONE, **settings)
        return request.model_copy(update={"feature_directory": str(features)})

    adapter = adapter_class("janus").load(tmp_path / "janus") if wanted().path else None
    assert isinstance(adapter, ReusesFeatures)
    parts = adapter.frozen_parts()
    images = OnePicture(adapter, 64).images([0])
    with torch.no_grad():
        each = sum(f.nbytes for part in (parts.understanding, parts.target) for f in part.encode(images))
    on = wanted(feature_cache="on")
    found = measure(on, "cpu").need
    assert found.features == 12 * each
    assert found.disk == found.checkpoint * found.checkpoints_kept + found.final + found.features
    assert measure(wanted(feature_cache="auto"), "cpu").need.features == 0
    features.mkdir()
    (features / "kept").write_bytes(bytes(each))
    assert measure(on, "cpu").need.features == 11 * each
    room = found.disk - 2 * each
    monkeypatch.setattr(estimating.disks, "free_bytes", lambda place: room)
    answer = estimating.estimate(on, 0)
    assert answer.shortages[0].startswith("disk: ")
    assert {"feature_cache": "auto"} in [remedy.changed for remedy in answer.remedies]
    assert estimating.estimate(on.model_copy(update={"written": each}), 0).shortages == []
    monkeypatch.setattr(estimating.disks, "number", lambda path: int(path == features))
    assert estimating.estimate(on, 0).shortages == []


def test_the_switch_is_no_part_of_a_training() -> None:
    assert request_hash(TrainingPlan(preflight="off")) == request_hash(TrainingPlan())
