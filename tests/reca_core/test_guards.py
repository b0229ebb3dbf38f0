"""A training that goes wrong stops, says why and keeps what was good."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.lifeline import StopRequest
from reca_core.contracts.requests import LossTerms
from reca_core.models.janus.adapter import Janus
from reca_core.training import guards
from reca_core.training.guards import (
    FORGETTING_FLOOR,
    WINDOW_STEPS,
    Collapsed,
    CollapseMonitor,
    NotFinite,
    check_bottleneck,
)
from reca_core.training.run import Training
from tests.reca_core.tiny_janus import tiny_janus
from tests.reca_core.training_rig import ALONE, ONE_PROCESS, RECA, request, train

PICTURE = Image.new("RGB", (16, 16), (200, 30, 30))


def poison(monkeypatch: pytest.MonkeyPatch, position: int, value: float) -> None:
    """Make the reconstruction loss of one sample of the stream ``value``."""
    honest = Janus.reconstruction_loss

    def loss(self, condition, target, draws):
        found = honest(self, condition, target, draws)
        return type(found)(found.total * value, found.count) if position in draws.positions else found

    monkeypatch.setattr(Janus, "reconstruction_loss", loss)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_weights_and_names_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    asked = request(tmp_path, steps=6, images_per_step=4, checkpoint_every_steps=1)
    poison(monkeypatch, 13, value)
    with pytest.raises(NotFinite, match=r"step 4: reconstruction loss (nan|inf).*positions \[13\]: .*\.png"):
        train(asked)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept[-1] == "step-00000003"
    assert not (tmp_path / "run" / "final").exists()


@pytest.mark.parametrize("rendered", [True, False])
def test_a_replay_term_that_is_not_finite_names_what_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rendered: bool
) -> None:
    losses = LossTerms(reconstruction=0, image_to_text=0, text_to_image=1, text=0)
    asked = request(tmp_path, losses=losses, steps=3, images_per_step=2)
    wanted = r"positions \[\d+\]: text_to_image of rendered scene \d+$"
    if not rendered:
        PICTURE.save(tmp_path / "red.png")
        turns = [{"from": "human", "value": "draw a ring"}, {"from": "gpt", "value": "<image>"}]
        rows = [{"image": "red.png", "conversations": turns}]
        (tmp_path / "captions.json").write_text(json.dumps(rows))
        captions = asked.captions.model_copy(update={"source": str(tmp_path / "captions.json")})
        asked = asked.model_copy(update={"captions": captions})
        wanted = r"text_to_image of row 0 of .*captions\.json with .*red\.png"
    honest = Janus.text_to_image_loss
    seen: list[str] = []

    def loss(self, captions, target, drop, draws):
        found = honest(self, captions, target, drop, draws)
        seen.append(captions[0])
        return type(found)(found.total * math.nan, found.count) if seen[0] in captions else found

    monkeypatch.setattr(Janus, "text_to_image_loss", loss)
    with pytest.raises(NotFinite, match=wanted):
        train(asked)


def test_after_the_cause_is_gone_the_run_goes_on_from_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tmp_path, steps=6, images_per_step=4, checkpoint_every_steps=1)
    with monkeypatch.context() as patch:
        poison(patch, 13, math.nan)
        with pytest.raises(NotFinite):
            train(asked)
    assert train(asked).resumed_from_step == 3


def test_a_gradient_that_is_not_finite_is_noticed_where_every_loss_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Janus.reconstruction_loss

    class Explode(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.inf

    def loss(self, condition, target, draws):
        found = honest(self, condition, target, draws)
        return type(found)(Explode.apply(found.total), found.count)

    monkeypatch.setattr(Janus, "reconstruction_loss", loss)
    with pytest.raises(NotFinite, match=r"gradient norm (nan|inf).*each is finite by itself"):
        train(request(tmp_path))


def test_a_frozen_weight_that_changed_is_an_error_and_nothing_is_exported(tmp_path: Path) -> None:
    training = Training(request(tmp_path, steps=2), ONE_PROCESS, StopRequest())
    with torch.no_grad():
        training.adapter.network.model.vqmodel.quantize.embedding.weight[0, 0] += 1e-6
    with pytest.raises(StageFailed, match=r"1 frozen tensors changed: model\.vqmodel\.quantize"):
        training.complete()
    assert not (tmp_path / "run" / "final").exists()
    assert not (tmp_path / "run" / "checkpoints" / "step-00000002").exists(), "a second attempt must not skip the fault"


def test_a_trained_weight_equal_to_the_base_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="trained but equal to the base"):
        train(request(tmp_path, steps=1, schedule="cosine", warmup_steps=0))


def test_changed_weights_are_told_from_idle_ones() -> None:
    before = {"a": "1", "b": "2"}
    guards.check_changed(before, {"a": "9", "b": "2"}, idle=["b"])
    with pytest.raises(StageFailed, match=r"equal to the base: \['b'\]"):
        guards.check_changed(before, {"a": "9", "b": "2"}, idle=[])
    with pytest.raises(StageFailed, match=r"without gradient but different: \['b'\]"):
        guards.check_changed(before, {"a": "9", "b": "3"}, idle=["b"])


def test_janus_has_a_bottleneck() -> None:
    check_bottleneck(tiny_janus(), PICTURE)


def test_the_targets_own_tokens_as_condition_are_refused() -> None:
    class Copying(Janus):
        understanding_space = Janus.target_space

    adapter = tiny_janus()
    adapter.__class__ = Copying
    with pytest.raises(BadInput, match="the condition is the target itself: 16 tokens"):
        check_bottleneck(adapter, PICTURE)


def test_fewer_tokens_of_the_same_space_are_a_bottleneck() -> None:
    class Blurred(Janus):
        understanding_space = Janus.target_space

        def understand(self, images):
            return super().understand(images)[:, ::4]

    adapter = tiny_janus()
    adapter.__class__ = Blurred
    check_bottleneck(adapter, PICTURE)


def test_a_family_that_does_not_say_what_it_looks_at_is_refused() -> None:
    class Silent:
        family = "silent"

    with pytest.raises(BadInput, match="does not name its understanding and target spaces"):
        check_bottleneck(Silent(), PICTURE)


def feed(monitor: CollapseMonitor, name: str, *levels: float) -> None:
    """A window of steps at each level, one after another."""
    step = 0
    for level in levels:
        for _ in range(WINDOW_STEPS):
            step += 1
            monitor.observe(step, {name: level})


@pytest.mark.parametrize(
    ("name", "level", "warns", "stops"),
    [
        ("reconstruction", 0.6, False, False),
        ("reconstruction", 0.45, True, False),
        ("reconstruction", 0.25, True, True),
        ("image_to_text", 1.05, False, False),
        ("image_to_text", 1.1, True, False),
        ("image_to_text", 1.2, True, True),
        ("text", 9.0, False, False),
    ],
)
def test_the_monitor_warns_half_way_and_stops_at_the_published_thresholds(
    name: str, level: float, warns: bool, stops: bool
) -> None:
    patient, strict = CollapseMonitor(stops=False), CollapseMonitor(stops=True)
    feed(patient, name, 1.0, level)
    assert bool(patient.warnings) == warns
    if stops:
        with pytest.raises(Collapsed, match=f"{name} loss 1 ->"):
            feed(strict, name, 1.0, level)
    else:
        feed(strict, name, 1.0, level)


def test_a_rise_within_the_noise_of_a_loss_near_zero_is_no_forgetting() -> None:
    monitor = CollapseMonitor(stops=True)
    feed(monitor, "image_to_text", 0.01, 0.01 + FORGETTING_FLOOR * 0.9)
    assert monitor.warnings == []


def test_a_warning_is_given_once() -> None:
    monitor = CollapseMonitor(stops=False)
    feed(monitor, "reconstruction", 1.0, 0.4, 0.4, 0.4)
    assert len(monitor.warnings) == 1


def test_a_run_that_collapses_stops_with_a_checkpoint_from_before(tmp_path: Path) -> None:
    settings = {"steps": 80, "images_per_step": 4, "learning_rate": 1e-2, "checkpoint_every_steps": 10}
    eager = request(tmp_path, losses=ALONE, pictures=4, drop_text=0.0, on_collapse="stop", **settings)
    with pytest.raises(Collapsed, match="may be copying its input"):
        train(eager)
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "final").exists()
    patient = request(tmp_path, losses=ALONE, pictures=4, drop_text=0.0, on_collapse="warn", **settings)
    result = train(patient)
    assert result.resumed_from_step > 0
    assert any("reconstruction" in warning for warning in result.warnings)


def test_reca_alone_says_nothing_of_terms_it_does_not_have(tmp_path: Path) -> None:
    assert train(request(tmp_path, losses=RECA, steps=2)).warnings == []
