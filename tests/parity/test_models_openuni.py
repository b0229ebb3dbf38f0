"""OpenUni equals the original in every recorded tensor: latents, seeing, queries, both losses, drawing trace.

Order of operations and names: the README beside the recorded numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from reca_core.models.openuni import checkpoint, sampler, upstream
from reca_core.models.openuni.configuration import DrawingPlan, LearningPlan
from reca_core.models.openuni.network import OpenUniNetwork
from tests.parity.golden_models import Expected, GoldenSet, golden_sets

pytestmark = pytest.mark.goldens
SHUFFLE = 0.5


@dataclass(frozen=True)
class Bench:
    config: dict[str, Any]
    network: OpenUniNetwork
    golden: GoldenSet
    inputs: dict[str, Tensor]
    expected: Expected
    scheduler: FlowMatchEulerDiscreteScheduler

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())


@lru_cache
def bench(golden: GoldenSet) -> Bench:
    config = golden.config
    found = upstream.find(golden.folder)
    network = OpenUniNetwork(found.configuration.sizes).eval()
    network.load_state_dict(checkpoint.from_upstream(found.state), strict=True)
    network.lmm.requires_grad_(False)
    network.vae.requires_grad_(False)
    scheduler = FlowMatchEulerDiscreteScheduler(**config["train_scheduler"])
    return Bench(config, network, golden, golden.tensors("inputs"), Expected(golden), scheduler)


@pytest.fixture(params=golden_sets("openuni"))
def case(request: pytest.FixtureRequest) -> Bench:
    return bench(request.param)


def test_upstream_names_come_back(case: Bench) -> None:
    theirs = case.golden.tensors("weights")
    ours = checkpoint.to_upstream(case.network.state_dict())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_the_autoencoder(case: Bench) -> None:
    latents = case.network.encode_pixels(case.inputs["pixel_values"])
    case.expected.agree("vae.latents", latents)
    case.expected.agree("vae.decoded", case.network.decode_latents(latents))


def test_seeing(case: Bench) -> None:
    case.expected.agree("und.embeddings", case.network.understand(case.inputs["pixel_values_src"]))
    direct = case.inputs["vit_direct"]
    with torch.no_grad():
        states = case.network.lmm.model.vision_tower(direct).last_hidden_state
    case.expected.agree("und.vit_last_hidden_state", states)
    case.expected.agree("und.vit_direct_features", case.network.features(direct))


def test_the_training_schedule(case: Bench) -> None:
    case.expected.agree("scheduler.train_timesteps", case.scheduler.timesteps)
    recorded = case.expected["scheduler.train_sigmas"]
    case.expected.agree("scheduler.train_sigmas", case.scheduler.sigmas[: len(recorded)])


def test_reconstruction_loss(case: Bench) -> None:
    pictures = case.network.understand(case.inputs["pixel_values_src"])
    words = case.network.embed(case.inputs["recon.input_ids"], pictures)
    latents = case.network.encode_pixels(case.inputs["pixel_values"])
    loss = drawing_loss(case, "recon", words, latents)
    case.expected.agree_gradients("recon", loss, case.parameters())


def test_text_to_image_loss(case: Bench) -> None:
    words = case.network.embed(case.inputs["t2i.input_ids"])
    latents = case.network.encode_pixels(case.inputs["pixel_values"])
    loss = drawing_loss(case, "t2i", words, latents)
    case.expected.agree_gradients("t2i", loss, case.parameters())


def test_text_to_image_loss_on_given_latents(case: Bench) -> None:
    caption = case.network.ask(case.network.embed(case.inputs["t2i.input_ids"]), case.inputs["t2i.attention_mask"])
    latents = case.inputs["t2i_latents.latents"]
    draws = case.inputs["t2i.u"], case.inputs["t2i.noise"]
    step = case.network.denoise(caption.condition, latents, *draws, case.scheduler)
    case.expected.agree("t2i_latents.loss", step.loss.mean())
    case.expected.agree_gradients("t2i_latents", step.loss.mean(), case.parameters())


def drawing_loss(case: Bench, name: str, words: Tensor, latents: Tensor) -> Tensor:
    """Everything from the words to the loss; every tensor recorded under ``name`` is compared."""
    expected = case.expected
    caption = case.network.ask(words, case.inputs[f"{name}.attention_mask"])
    expected.agree(f"{name}.llm_inputs_embeds", caption.inputs)
    expected.agree(f"{name}.llm_attention_mask", caption.attention)
    expected.agree(f"{name}.llm_position_ids", caption.positions)
    expected.agree(f"{name}.query_hidden", caption.states)
    expected.agree(f"{name}.connector_out", caption.connected)
    expected.agree(f"{name}.caption_cond", caption.condition)
    draws = case.inputs[f"{name}.u"], case.inputs[f"{name}.noise"]
    step = case.network.denoise(caption.condition, latents, *draws, case.scheduler)
    expected.agree(f"{name}.timesteps", step.timesteps)
    expected.agree(f"{name}.noisy_latents", step.noisy)
    expected.agree(f"{name}.velocity_pred", step.velocity)
    loss = step.loss.mean()
    expected.agree(f"{name}.loss", loss)
    return loss


def test_drawing_trace(case: Bench) -> None:
    settings = case.config["sample"]
    with torch.no_grad():
        words = case.network.embed(case.inputs["sample.input_ids"])
        told = case.network.ask(words, case.inputs["sample.attention_mask"]).condition
    conditional, unconditional = told.chunk(2)
    case.expected.agree("sample.caption_cond", torch.cat([unconditional, conditional]))
    scheduler = DPMSolverMultistepScheduler(**case.config["test_scheduler"])
    steps: list[sampler.Step] = []
    latents = sampler.draw_latents(
        case.network,
        conditional,
        unconditional,
        case.inputs["sample.init_latents"],
        scheduler,
        steps=settings["num_steps"],
        guidance=settings["cfg_scale"],
        observe=steps.append,
    )
    case.expected.agree("sample.timesteps", scheduler.timesteps)
    case.expected.agree("sample.sigmas", scheduler.sigmas)
    case.expected.agree("sample.steps", torch.stack([torch.stack([s.velocity, s.before, s.after]) for s in steps]))
    case.expected.agree("sample.latents", latents)
    case.expected.agree("sample.image", case.network.decode_latents(latents))


def test_our_schedules_are_the_recorded_ones(case: Bench) -> None:
    """So far as a plan of ours says them; a set may be drawn with another solver than the published one."""
    recorded = DPMSolverMultistepScheduler(**case.config["test_scheduler"])
    drawing = DrawingPlan(flow_shift=case.config["test_scheduler"]["flow_shift"]).scheduler()
    for name in ("prediction_type", "use_flow_sigmas", "flow_shift"):
        assert drawing.config[name] == recorded.config[name]
    shift = case.config["train_scheduler"]["shift"]
    learning = LearningPlan(case.config["train_scheduler"]["num_train_timesteps"], shift).scheduler()
    assert torch.equal(learning.timesteps, case.scheduler.timesteps)
    assert torch.equal(learning.sigmas, case.scheduler.sigmas)
