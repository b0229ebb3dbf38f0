"""What one optimizer step computes, what it may change, and that twenty of them learn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch._dynamo.utils

from reca_core.contracts.errors import BadInput
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import request_hash
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import LossTerms, TrainingPlan, TrainRequest
from reca_core.data.feed import Share
from reca_core.draws import KeyedDraws
from reca_core.models.load import adapter_class
from reca_core.models.unified import UnifiedModel
from reca_core.training import setup
from reca_core.training.batch import Batch, needs_captions
from reca_core.training.loop import Updater
from reca_core.training.optimizer import learning_rate, make_optimizer, set_trainable, trainable
from reca_core.training.step import TrainingStep
from tests.reca_core.tiny_janus import tiny_janus
from tests.reca_core.training_rig import ALONE, ONE_PROCESS, RECA, plan, request, train, weights

ALL_TERMS = LossTerms(reconstruction=1, image_to_text=0.5, text_to_image=2, text=1, unconditional=0.3)


class Bench:
    """The parts of a training, with the optimizer step under the test's control."""

    def __init__(self, asked: TrainRequest) -> None:
        self.adapter: UnifiedModel = setup.load_model(asked, ONE_PROCESS)
        self.data = setup.open_data(asked, self.adapter, ONE_PROCESS)
        self.step = TrainingStep(self.adapter, asked.training, asked.losses)
        self.parameters = trainable(self.step.network)
        self.optimizer = make_optimizer(self.parameters, asked.training)
        self.updater = Updater(
            self.step,
            asked.training,
            self.step.weights,
            self.parameters,
            self.optimizer,
            None,
            ONE_PROCESS,
            lambda batches: "",
        )

    def batches(self, step: int = 0) -> list[Batch]:
        return [self.data.builder(share) for share in self.data.split.shares(step)]


def gradients(bench: Bench) -> Mapping[str, torch.Tensor]:
    sums = bench.updater._backward(bench.batches())
    assert all(float(part.count) > 0 for part in sums.values())
    return {name: parameter.grad for name, parameter in bench.parameters.items() if parameter.grad is not None}


@pytest.mark.parametrize("losses", [ALL_TERMS, ALONE, RECA], ids=["all terms", "one term", "reca"])
@pytest.mark.parametrize("per_pass", [3, 1])
def test_accumulated_gradients_are_those_of_one_pass(tmp_path: Path, losses: LossTerms, per_pass: int) -> None:
    whole = gradients(Bench(request(tmp_path, losses=losses, images_per_step=8)))
    split = gradients(Bench(request(tmp_path, losses=losses, images_per_step=8, images_per_pass=per_pass)))
    assert whole.keys() == split.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=2e-4, atol=2e-6, msg=name)


def test_the_loss_of_a_step_is_each_terms_sum_over_its_count(tmp_path: Path) -> None:
    bench = Bench(request(tmp_path, losses=ALL_TERMS, images_per_step=6))
    with torch.no_grad():
        sums = bench.step(bench.batches()[0])
    report = bench.updater.step(0, bench.batches(), stop=False)
    expected = {name: float(part.total / part.count) for name, part in sums.items()}
    assert report.losses == pytest.approx(expected, rel=1e-6)
    assert report.loss == pytest.approx(
        sum(getattr(ALL_TERMS, name) * value for name, value in expected.items()), rel=1e-6
    )


def test_a_sample_run_for_nothing_changes_no_gradient(tmp_path: Path) -> None:
    bench = Bench(request(tmp_path, images_per_step=4))
    (batch,) = bench.batches()
    filler = bench.data.builder(Share((0,), 0.0))
    bench.updater._backward([batch])
    alone = {name: parameter.grad.clone() for name, parameter in bench.parameters.items()}
    bench.optimizer.zero_grad()
    bench.updater._backward([batch, filler])
    for name, parameter in bench.parameters.items():
        torch.testing.assert_close(parameter.grad, alone[name], rtol=1e-5, atol=1e-7, msg=name)


def test_a_batch_depends_on_its_positions_only(tmp_path: Path) -> None:
    bench = Bench(request(tmp_path, losses=ALL_TERMS))
    together = bench.data.builder(Share((3, 8, 40), 1.0))
    alone = bench.data.builder(Share((8,), 1.0))
    assert torch.equal(together.pictures.target[1:2], alone.pictures.target)
    assert torch.equal(together.asked.understanding[1:2], alone.asked.understanding)
    assert (together.templates[1], together.captions[1], together.told[1]) == (
        alone.templates[0],
        alone.captions[0],
        alone.told[0],
    )
    assert together.drop_template[1] == alone.drop_template[0]


def test_one_term_of_a_stage_without_weights_is_divided_once(tmp_path: Path) -> None:
    """Harmon's autoencoder has one term that does not depend on which pictures are together."""
    adapter_class("harmon").smallest(seed=0).save(tmp_path / "harmon")
    model = ResolvedModel(name="harmon", family="harmon", path=str(tmp_path / "harmon"), sha256="0" * 64)
    whole, divided = (
        gradients(
            Bench(
                request(tmp_path, stage="decoder", images_per_step=4, images_per_pass=size).model_copy(
                    update={"model": model}
                )
            )
        )
        for size in (0, 2)
    )
    assert whole.keys() == divided.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(divided[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("stage", ["tokenizer", "decoder"])
@pytest.mark.parametrize("settings", [{"processes": 2}, {"images_per_pass": 2}])
def test_a_step_of_an_autoencoder_is_not_divided(tmp_path: Path, stage: str, settings: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=f"'{stage}' cannot be divided"):
        train(request(tmp_path, stage=stage, **settings))


@pytest.mark.parametrize("stage", ["post", "base", "tokenizer"])
def test_frozen_parameters_have_neither_gradient_nor_optimizer_state(tmp_path: Path, stage: str) -> None:
    bench = Bench(request(tmp_path, losses=ALL_TERMS, stage=stage))
    bench.updater._backward(bench.batches())
    allowed = bench.adapter.trainable_names(stage)
    touched = {name for name, parameter in bench.adapter.network.named_parameters() if parameter.grad is not None}
    assert touched
    assert touched <= allowed
    bench.optimizer.step()
    stepped = {id(parameter) for parameter in bench.optimizer.state}
    frozen = [p for name, p in bench.adapter.network.named_parameters() if name not in allowed]
    assert stepped.isdisjoint(map(id, frozen))
    assert all(parameter.dtype == torch.float32 for parameter in bench.adapter.network.parameters())


def test_only_modules_that_train_are_in_training_mode(tmp_path: Path) -> None:
    network = tiny_janus().network
    set_trainable(network, tiny_janus().trainable_names("post"))
    assert network.model.language_model.layers[0].training
    assert not network.model.vqmodel.training
    assert not any(module.training for module in network.model.vision_model.modules())


def test_a_name_that_does_not_exist_cannot_be_trained() -> None:
    with pytest.raises(BadInput, match=r"do not exist.*lm_haed"):
        set_trainable(tiny_janus().network, frozenset({"lm_haed.weight"}))
    with pytest.raises(BadInput, match="no parameter is trainable"):
        set_trainable(tiny_janus().network, frozenset())


def test_weight_decay_pulls_matrices_only(tmp_path: Path) -> None:
    bench = Bench(request(tmp_path, weight_decay=0.1))
    for group in bench.optimizer.param_groups:
        assert {parameter.ndim >= 2 for parameter in group["params"]} == {group["weight_decay"] > 0}
    assert sum(len(group["params"]) for group in bench.optimizer.param_groups) == len(bench.parameters)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [0.5, 1.0, 0.853553, 0.5, 0.146447, 0.0]),
    ],
)
def test_the_rate_warms_up_and_then_follows_its_schedule(schedule: str, rates: list[float]) -> None:
    course = plan(steps=6, warmup_steps=2, learning_rate=1.0, schedule=schedule)
    assert [learning_rate(course, step) for step in range(6)] == pytest.approx(rates, abs=1e-6)


def test_a_run_may_end_with_its_warm_up() -> None:
    ramp = plan(steps=4, warmup_steps=4, learning_rate=1.0, schedule="cosine")
    assert [learning_rate(ramp, step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_gradients_are_clipped_to_the_limit_and_reported_before(tmp_path: Path) -> None:
    free = Bench(request(tmp_path, gradient_clip=0.0))
    free.updater._backward(free.batches())
    norm = float(free.updater._clip())
    assert norm > 0.1
    after = torch.stack([p.grad.norm() for p in free.parameters.values() if p.grad is not None]).norm()
    assert float(after) == pytest.approx(norm, rel=1e-5)
    tight = Bench(request(tmp_path, gradient_clip=0.01))
    tight.updater._backward(tight.batches())
    assert float(tight.updater._clip()) == pytest.approx(norm, rel=1e-5)
    clipped = torch.stack([p.grad.norm() for p in tight.parameters.values() if p.grad is not None]).norm()
    assert float(clipped) == pytest.approx(0.01, rel=1e-3)


def test_autocast_keeps_the_weights_in_float32_and_the_loss_close(tmp_path: Path) -> None:
    exact, half = (Bench(request(tmp_path, precision=precision)).updater for precision in ("float32", "bfloat16"))
    batches = Bench(request(tmp_path)).batches()
    reports = [updater.step(0, batches, stop=False) for updater in (exact, half)]
    assert reports[1].loss == pytest.approx(reports[0].loss, rel=0.02)
    assert reports[1].loss != reports[0].loss
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters)


def test_compiled_layers_train_as_plain_ones_do(tmp_path: Path) -> None:
    frames = torch._dynamo.utils.counters["frames"]
    plain, compiled = (
        request(tmp_path, name, ALONE, steps=2, images_per_step=2, compile=name) for name in ("off", "aot_eager")
    )
    train(plain)
    before = frames["ok"]
    train(compiled)
    assert frames["ok"] > before
    rows = [list(read_jsonl(tmp_path / name / "metrics.jsonl")) for name in ("off", "aot_eager")]
    for one, other in zip(*rows, strict=True):
        for key in ("train/loss", "train/gradient_norm"):
            assert other[key] == pytest.approx(one[key], rel=1e-5)
    torch._dynamo.reset()


def test_the_schedule_may_be_longer_than_the_run() -> None:
    whole = plan(steps=100, warmup_steps=2, learning_rate=1.0, schedule="cosine")
    part = plan(steps=5, warmup_steps=2, learning_rate=1.0, schedule="cosine", schedule_steps=100)
    assert [learning_rate(part, step) for step in range(5)] == [learning_rate(whole, step) for step in range(5)]


def test_the_optimizer_has_the_plans_epsilon(tmp_path: Path) -> None:
    optimizer = Bench(request(tmp_path, epsilon=1e-15)).optimizer
    assert {group["eps"] for group in optimizer.param_groups} == {1e-15}
    assert all(group["fused"] for group in optimizer.param_groups)


def test_twenty_steps_on_a_folder_lower_the_loss_on_those_very_pictures(tmp_path: Path) -> None:
    asked = request(tmp_path, losses=ALONE, pictures=8, steps=20, images_per_step=8, learning_rate=5e-3, drop_text=0.0)
    result = train(asked)
    assert result.last_losses["train/reconstruction_loss"] < 0.8 * result.first_losses["train/reconstruction_loss"]
    trained = request(tmp_path, losses=ALONE, pictures=8, images_per_step=8, drop_text=0.0)
    before, after = (
        Bench(trained.model_copy(update={"model": trained.model.model_copy(update={"path": path})}))
        for path in (trained.model.path, str(Path(asked.run_directory) / "final"))
    )
    with torch.no_grad():
        losses = [float(bench.step(bench.batches()[0])["reconstruction"].mean()) for bench in (before, after)]
    assert losses[1] < 0.8 * losses[0]


def test_looking_does_not_change_what_is_learned(tmp_path: Path) -> None:
    blind = request(tmp_path, run="blind")
    watched = request(tmp_path, run="watched", preview_every_steps=2)
    train(blind)
    train(watched)
    assert weights(blind) == weights(watched)
    rows = list(read_jsonl(tmp_path / "watched" / "previews" / "index.jsonl"))
    assert [row["step"] for row in rows if row["task"] == "draw"][::8] == [0, 2, 4, 6]
    assert {row["task"] for row in rows} == {"draw", "reconstruct"}
    assert all((tmp_path / "watched" / "previews" / row["path"]).is_file() for row in rows)
    assert all((tmp_path / "watched" / "previews" / row["source"]).is_file() for row in rows if row["source"])


def test_the_moving_average_is_kept_beside_the_weights_never_instead(tmp_path: Path) -> None:
    plain, averaged = request(tmp_path, run="plain"), request(tmp_path, run="averaged", ema_decay=0.5)
    train(plain)
    train(averaged)
    assert weights(plain) == weights(averaged)
    average = tmp_path / "averaged" / "final-average" / "model.safetensors"
    assert average.read_bytes() != weights(averaged)
    assert not (tmp_path / "plain" / "final-average").exists()


def test_the_tokenizer_stage_trains_the_tokenizer_alone(tmp_path: Path) -> None:
    result = train(request(tmp_path, stage="tokenizer", steps=8, learning_rate=2e-3, checkpoint_every_steps=8))
    assert result.last_losses["train/loss"] < result.first_losses["train/loss"]
    assert all(not name.startswith("train/image_to_text") for name in result.last_losses)


def test_replay_may_come_from_a_llava_file(tmp_path: Path) -> None:
    asked = request(tmp_path, losses=ALL_TERMS, steps=2, preview_every_steps=1)
    turns = [("<image> what is in the picture?", "a red ring"), ("draw a moon", "<image>"), ("how many?", "one")]
    rows = [
        {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
        | ({"image": "pictures/000.png"} if "<image>" in question + answer else {})
        for question, answer in turns
    ]
    (tmp_path / "llava.json").write_text(json.dumps(rows))
    captions = asked.captions.model_copy(update={"source": str(tmp_path / "llava.json")})
    result = train(asked.model_copy(update={"captions": captions}))
    assert {"train/image_to_text_loss", "train/text_to_image_loss", "train/text_loss"} <= result.last_losses.keys()
    drawn = [row for row in read_jsonl(tmp_path / "run" / "previews" / "index.jsonl") if row["task"] == "draw"]
    assert {row["text"] for row in drawn} == {"draw a moon"}


def test_parameters_that_no_active_term_reaches_are_listed_and_unchanged(tmp_path: Path) -> None:
    only_text = LossTerms(reconstruction=0, image_to_text=0, text_to_image=0, text=1)
    result = train(request(tmp_path, losses=only_text, steps=2))
    assert any("generation_head" in name for name in result.idle_tensors)
    assert not any("language_model" in name for name in result.idle_tensors)


def test_the_unconditional_term_draws_the_same_pictures_from_the_prompt_that_guidance_compares_with(
    tmp_path: Path,
) -> None:
    bench = Bench(request(tmp_path, losses=LossTerms(image_to_text=0, text=0, unconditional=0.1), images_per_step=4))
    (batch,) = bench.batches()
    sums, adapter = bench.step(batch), bench.step.adapter
    assert list(sums) == ["reconstruction", "unconditional"]
    target = adapter.encode_target(batch.pictures)
    everything, draws = torch.ones(4, dtype=torch.bool), KeyedDraws(bench.step.plan.seed, batch.positions)
    nothing_said = adapter.text_to_image_loss(batch.templates, target, everything, draws)
    other_words = adapter.text_to_image_loss(batch.templates, target, ~everything, draws)
    assert torch.equal(sums["unconditional"].total, nothing_said.total)
    assert not torch.equal(nothing_said.total, other_words.total)


def test_the_unconditional_term_needs_no_captions_and_may_stand_alone(tmp_path: Path) -> None:
    alone = LossTerms(reconstruction=0, image_to_text=0, text_to_image=0, text=0, unconditional=1)
    assert not needs_captions(plan(), alone)
    result = train(request(tmp_path, losses=alone, steps=2))
    assert set(result.last_losses) >= {"train/unconditional_loss"}
    assert "train/reconstruction_loss" not in result.last_losses


def test_a_term_that_a_family_cannot_compute_is_refused_before_training() -> None:
    class Mute:
        family = "mute"
        network = torch.nn.Linear(1, 1)

    with pytest.raises(BadInput, match=r"losses\.image_to_text.*offers no AnswersInText"):
        TrainingStep(Mute(), TrainingPlan(), RECA)
    with pytest.raises(BadInput, match="every loss term has weight 0"):
        TrainingStep(Mute(), TrainingPlan(), LossTerms(reconstruction=0, image_to_text=0, text=0))
    with pytest.raises(BadInput, match="no tokenizer training"):
        TrainingStep(Mute(), TrainingPlan(stage="tokenizer"), RECA)


def test_the_control_is_shown_its_own_tokens_and_says_so_in_its_identity(tmp_path: Path) -> None:
    shown = request(tmp_path, run="shown", losses=ALONE, steps=2)
    control = request(tmp_path, run="control", losses=ALONE, steps=2, condition="own_tokens")
    assert request_hash(shown) != request_hash(control)
    first = [train(asked).first_losses["train/reconstruction_loss"] for asked in (shown, control)]
    assert first[0] != first[1]
    assert weights(shown) != weights(control)


def test_a_family_that_cannot_be_shown_its_own_tokens_is_refused() -> None:
    class Plain:
        family = "plain"
        network = torch.nn.Linear(1, 1)

    with pytest.raises(BadInput, match=r"training\.condition.*its own tokens"):
        TrainingStep(Plain(), TrainingPlan(condition="own_tokens"), ALONE)
