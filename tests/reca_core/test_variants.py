"""Departures from the published settings: reachable from the request, recorded with the weights, refused elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.requests import LossTerms, SamplingSettings, TrainingPlan
from reca_core.models.load import adapter_class
from reca_core.models.showo.adapter import Showo
from reca_core.models.unified import DrawRequest, UnifiedModel
from reca_core.models.variants import TRAINING, VariesTraining, following
from reca_core.training.optimizer import learning_rate, make_optimizer
from tests.reca_core.test_models_contract_training import family_request, trained
from tests.reca_core.training_rig import ALONE, plan, train

GUIDANCE = {"janus": 5.0, "harmon": 3.0, "bagel": 4.0, "showo": 6.0, "openuni": 4.5}
"""Published: reference "reca_recipe", section 1.8; Show-o's 5 is written (1 + w) c - w u."""
WITHOUT_SLIPS = ("janus", "openuni")


def smallest(family: str) -> Any:
    return adapter_class(family).smallest(seed=0)


def drawn(adapter: UnifiedModel, **settings: Any) -> bytes:
    request = [DrawRequest(adapter.templates[0], 3)]
    return next(iter(adapter.generate(request, SamplingSettings(**settings)))).tobytes()


@pytest.mark.parametrize("family", GUIDANCE)
def test_zero_draws_with_the_published_guidance(family: str) -> None:
    adapter = smallest(family)
    assert drawn(adapter) == drawn(adapter, guidance_scale=GUIDANCE[family]) != drawn(adapter, guidance_scale=1.0)


@pytest.mark.parametrize("family", [name for name in GUIDANCE if name != "janus"])
def test_the_number_of_steps_can_be_chosen(family: str) -> None:
    adapter = smallest(family)
    assert drawn(adapter) != drawn(adapter, steps=2)


@pytest.mark.parametrize("family", ["showo", "harmon"])
def test_more_rounds_than_tokens_are_refused(family: str) -> None:
    with pytest.raises(BadInput, match="17 rounds cannot draw 16 tokens"):
        drawn(smallest(family), steps=17)


@pytest.mark.parametrize("family", GUIDANCE)
@pytest.mark.parametrize(
    "settings", [{"steps": 3}, {"image_guidance_scale": 2.0}, {"renorm": "channel"}], ids=lambda one: next(iter(one))
)
def test_what_a_family_cannot_draw_with_is_refused_not_ignored(family: str, settings: dict[str, Any]) -> None:
    known = {"steps": family != "janus", "image_guidance_scale": False, "renorm": family == "bagel"}
    (name,) = settings
    if known[name]:
        drawn(smallest(family), **settings)
        return
    with pytest.raises(BadInput, match="has no such choice"):
        drawn(smallest(family), **settings)


def test_a_guidance_between_none_and_one_is_refused() -> None:
    with pytest.raises(ValueError, match="choices: 0"):
        SamplingSettings(guidance_scale=0.5)


@pytest.mark.parametrize("family", GUIDANCE)
def test_upstream_parity_is_there_where_upstream_had_slips(family: str) -> None:
    adapter, asked = smallest(family), TrainingPlan(upstream_parity=True)
    if family in WITHOUT_SLIPS:
        with pytest.raises(BadInput, match="has no such choice"):
            following(adapter, asked)
        return
    assert isinstance(adapter, VariesTraining)
    assert following(adapter, asked).family == family
    assert adapter.parity


@pytest.mark.parametrize("family", ["harmon", "showo"])
def test_a_plan_without_parity_trains_correctly_whatever_the_base_was_trained_with(family: str) -> None:
    parity = following(smallest(family), TrainingPlan(upstream_parity=True))
    assert parity.configuration.upstream_parity  # type: ignore[attr-defined]
    assert not following(parity, TrainingPlan()).configuration.upstream_parity  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("clip", "asked"),
    [
        (True, {"understanding_downscale": 2}),
        (True, {"understanding_picture": "blurred"}),
        (False, {"upstream_parity": True}),
    ],
    ids=["downscale", "blurred", "parity"],
)
def test_each_variant_refuses_what_the_other_can_vary(clip: bool, asked: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="showo has no such choice"):
        following(Showo.smallest(clip=clip), TrainingPlan(**asked))


def test_the_vq_variant_looks_at_the_picture_that_the_plan_names() -> None:
    base = Showo.smallest(clip=False)
    blurred = following(base, TrainingPlan(understanding_downscale=4, understanding_picture="blurred"))
    assert (blurred.configuration.shown.downscale, blurred.configuration.shown.blurred) == (4, True)  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="multiple"):
        following(base, TrainingPlan(understanding_downscale=5))


def test_a_variant_is_another_training() -> None:
    plain = TrainingPlan()
    changes: dict[str, Any] = {"upstream_parity": True, "understanding_downscale": 2, "understanding_picture": "small"}
    assert changes.keys() == TRAINING.keys() - {"attention"}
    hashes = {request_hash(plain.model_copy(update={name: value})) for name, value in changes.items()}
    assert len({*hashes, request_hash(plain)}) == len(changes) + 1


def card(run: Path) -> str:
    return (run / "final" / "README.md").read_text()


@pytest.mark.parametrize("parity", [False, True])
def test_the_card_of_a_checkpoint_says_whether_slips_were_repeated(tmp_path: Path, parity: bool) -> None:
    asked = family_request(tmp_path, "showo", "run", steps=3, upstream_parity=parity)
    train(asked.model_copy(update={"losses": ALONE}))
    text = card(Path(asked.run_directory))
    assert ("upstream parity: yes: CLIP looked" in text) == parity
    assert ("upstream parity: no: the correct behaviour" in text) != parity
    settings = json.loads((Path(asked.run_directory) / "final" / "config.json").read_text())
    assert settings["upstream_parity"] is parity


def test_bagels_parity_exports_the_average_and_nothing_else_does(tmp_path: Path) -> None:
    plain, averaged, parity = (
        family_request(tmp_path, "bagel", run, steps=3, **settings).model_copy(
            update={"losses": LossTerms(reconstruction=1, image_to_text=0, text=0)}
        )
        for run, settings in (
            ("plain", {}),
            ("averaged", {"ema_decay": 0.9999}),
            ("parity", {"upstream_parity": True}),
        )
    )
    for asked in (plain, averaged, parity):
        train(asked)
    base = adapter_class("bagel").load(Path(plain.model.path)).network.state_dict()
    exported = {asked.run_directory: trained(asked) for asked in (plain, averaged, parity)}

    def moved(asked: Any) -> float:
        return float(sum((exported[asked.run_directory][name] - base[name]).abs().sum() for name in base))

    assert moved(plain) == moved(averaged) > 1000 * moved(parity) > 0
    kept = adapter_class("bagel").load(Path(averaged.run_directory) / "final-average").network.state_dict()
    assert all(torch.equal(kept[name], exported[parity.run_directory][name]) for name in kept)
    assert "the moving average of the weights was exported" in card(Path(parity.run_directory))


def test_a_schedule_may_be_longer_than_the_run() -> None:
    long = plan(steps=10, warmup_steps=2, schedule="cosine", schedule_steps=1_000_000, learning_rate=1.0)
    assert learning_rate(long, 9) == pytest.approx(1.0, abs=1e-6)
    ends = plan(steps=10, warmup_steps=2, schedule="cosine", learning_rate=1.0)
    assert learning_rate(ends, 9) == pytest.approx(0.0, abs=1e-6)
    short = plan(steps=10, warmup_steps=2, schedule="linear", schedule_steps=6, learning_rate=1.0)
    assert [learning_rate(short, step) for step in (3, 5, 9)] == pytest.approx([0.5, 0.0, 0.0])


def test_the_optimizer_follows_the_plan_and_the_family() -> None:
    adapter = smallest("harmon")
    parameters = dict(adapter.network.named_parameters())
    optimizer = make_optimizer(parameters, plan(epsilon=1e-15, weight_decay=0.02), adapter.undecayed)
    decayed = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.0]
    assert {group["eps"] for group in optimizer.param_groups} == {1e-15}
    for name, parameter in parameters.items():
        assert (id(parameter) in decayed) == (parameter.ndim >= 2 and not name.startswith("mar.diffloss.")), name
