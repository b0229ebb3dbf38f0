"""A bfloat16 training keeps frozen matrices in bfloat16 where they lose nothing, and trains as if it did not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.lifeline import StopRequest
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import TrainRequest
from reca_core.models.load import adapter_class
from reca_core.training import run as training_run
from reca_core.training.narrow import narrow_frozen
from reca_core.training.optimizer import set_trainable
from reca_core.training.run import Training
from tests.reca_core.training_rig import ALONE, ONE_PROCESS, plan, request, train, weights

HALF = {"precision": "bfloat16", "steps": 3, "preview_every_steps": 2}


def rounded(directory: Path, family: str) -> ResolvedModel:
    """The smallest model with values that bfloat16 holds, as published ones are."""
    model = adapter_class(family).smallest(seed=0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.copy_(parameter.bfloat16())
    model.save(directory / family)
    return ResolvedModel(
        name=family, family=family, path=str(directory / family), sha256=sha256_tree(directory / family)
    )


def asked(root: Path, name: str, model: ResolvedModel, **settings: object) -> TrainRequest:
    return request(root, name, ALONE, **{**HALF, **settings}).model_copy(update={"model": model})


@pytest.mark.parametrize("family", FAMILIES)
def test_training_previews_and_result_are_those_of_float32_copies(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rounded(tmp_path, family)
    train(asked(tmp_path, "narrow", model))
    monkeypatch.setattr(training_run, "narrow_frozen", lambda *given: 0)
    train(asked(tmp_path, "wide", model))
    losses = [[row["train/loss"] for row in read_jsonl(tmp_path / run / "metrics.jsonl")] for run in ("narrow", "wide")]
    assert losses[0] == losses[1]
    for name in ("narrow", "wide"):
        assert {tensor.dtype for tensor in load_file(tmp_path / name / "final" / "model.safetensors").values()} == {
            torch.float32
        }
    assert weights(asked(tmp_path, "narrow", model)) == weights(asked(tmp_path, "wide", model))
    drawn = [sorted((tmp_path / run / "previews").rglob("*.png")) for run in ("narrow", "wide")]
    assert len(drawn[0]) > 0
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]


def test_only_frozen_matrices_outside_the_image_tokenizer_are_halved(tmp_path: Path) -> None:
    run = Training(asked(tmp_path, "run", rounded(tmp_path, "bagel")), ONE_PROCESS, StopRequest())
    network, tokenizer = run.adapter.network, f"{run.adapter.image_tokenizer}."
    narrow = {name for name, p in network.named_parameters() if p.dtype == torch.bfloat16}
    matrices = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    assert narrow
    assert not any(network.get_parameter(name).requires_grad or name.startswith(tokenizer) for name in narrow)
    wanted = {
        f"{name}.weight"
        for name in matrices
        if not network.get_submodule(name).weight.requires_grad and not name.startswith(tokenizer)
    }
    assert wanted <= narrow
    assert run.narrowed == sum(2 * network.get_parameter(name).numel() for name in narrow)


def test_a_matrix_that_would_lose_a_bit_and_a_float32_training_are_left_alone() -> None:
    model = adapter_class("janus").smallest(seed=0)
    set_trainable(model.network, model.trainable_names("post"))
    before = {name: p.clone() for name, p in model.network.named_parameters()}
    assert narrow_frozen(model.network, plan(precision="float32"), model.image_tokenizer) == 0
    narrow_frozen(model.network, plan(precision="bfloat16"), model.image_tokenizer)
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter.float(), before[name]), name
    assert any(p.dtype == torch.float32 for p in model.network.model.vision_model.parameters())
