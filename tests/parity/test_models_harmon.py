"""Harmon equals the original in every recorded tensor: latents, seeing, both drawing losses, text, drawing traces.

Order of operations and names: the README beside the recorded numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reca_core.models.harmon import checkpoint, sampler, upstream
from reca_core.models.harmon.mar import masked_by_order, masked_count
from reca_core.models.harmon.network import (
    Drawing,
    HarmonNetwork,
    diffusion_rows,
    scaled_gradient,
)
from reca_core.objectives import gaussian_diffusion, next_token
from tests.parity.golden_models import Expected, GoldenSet, golden_sets

pytestmark = pytest.mark.goldens
TRAIN_STEPS = 1000
RATIO_DIGITS = 6
"""Of a mask ratio, which the original had in full: in float32 0.8 of 25 tokens are more than 20."""
IMAGE_PLACE = -200
"""Id that stands where the picture goes."""


@dataclass(frozen=True)
class Bench:
    config: dict[str, Any]
    network: HarmonNetwork
    golden: GoldenSet
    inputs: dict[str, Tensor]
    expected: Expected
    tables: gaussian_diffusion.DiffusionTables
    latents: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(self.config["grid"])

    def parameters(self) -> dict[str, nn.Parameter]:
        named = dict(self.network.named_parameters(remove_duplicate=False))
        return {name: parameter for name, parameter in named.items() if not name.startswith("vae.")}

    def drawing_tables(self) -> gaussian_diffusion.DiffusionTables:
        kept = int(self.config["mar"]["num_sampling_steps"])
        return self.tables.kept(gaussian_diffusion.evenly_spaced(TRAIN_STEPS, kept))


@lru_cache
def bench(golden: GoldenSet) -> Bench:
    config = golden.config
    found = upstream.find(golden.folder)
    network = HarmonNetwork(found.configuration.sizes).eval()
    levels = len(config["vae"]["ch_mult"])
    network.load_state_dict(checkpoint.from_upstream(found.state, levels), strict=True)
    inputs = golden.tensors("inputs")
    tables = gaussian_diffusion.cosine_tables(TRAIN_STEPS)
    latents = network.encode_pixels(inputs["pixel_values"])
    return Bench(config, network, golden, inputs, Expected(golden), tables, latents)


@pytest.fixture(params=golden_sets("harmon"))
def case(request: pytest.FixtureRequest) -> Bench:
    return bench(request.param)


def test_the_autoencoder(case: Bench) -> None:
    with torch.no_grad():
        moments = case.network.vae.encode(case.inputs["pixel_values"]).latent_dist.parameters
    case.expected.agree("vae.moments", moments)
    case.expected.agree("vae.latents", case.latents)
    case.expected.agree("vae.decoded", case.network.decode_latents(case.latents))


def test_upstream_names_come_back(case: Bench) -> None:
    autoencoder = {checkpoint.AUTOENCODER + name: tensor for name, tensor in case.golden.tensors("vae").items()}
    theirs = case.golden.tensors("weights") | autoencoder
    ours = checkpoint.to_upstream(case.network.state_dict(), len(case.config["vae"]["ch_mult"]))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_schedule_and_position_tables(case: Bench) -> None:
    case.expected.agree("diffusion.train_alphas_cumprod", case.tables.alphas_cumprod.float())
    kept = case.drawing_tables()
    case.expected.agree("diffusion.gen_timestep_map", kept.steps)
    case.expected.agree("diffusion.gen_alphas_cumprod", kept.alphas_cumprod.float())
    for name in ("encoder", "decoder", "diffusion"):
        case.expected.agree(f"mar.{name}_pos_embed", case.network.mar.table(name, case.grid))


def test_seeing(case: Bench) -> None:
    rows = case.latents.flatten(1, 2)
    everything = torch.ones(rows.shape[:2], dtype=torch.bool)
    encoded = case.network.mar.encode(rows, everything, case.grid)
    case.expected.agree("und.x_enc", encoded)
    case.expected.agree("und.z_enc", case.network.to_language(encoded))
    assert torch.equal(case.network.understand(case.latents), case.network.to_language(encoded))


def test_text_to_image_loss(case: Bench) -> None:
    condition = case.network.embed(case.inputs["t2i.input_ids"])
    loss = drawing_loss(case, "t2i", condition, case.inputs["t2i.attention_mask"])
    case.expected.agree_gradients("t2i", loss, case.parameters())


def test_reconstruction_loss(case: Bench) -> None:
    condition, attention = with_picture(case, "recon")
    loss = drawing_loss(case, "recon", condition, attention)
    case.expected.agree_gradients("recon", loss, case.parameters())


def with_picture(case: Bench, name: str) -> tuple[Tensor, Tensor]:
    """Word embeddings with h_v in place of the one id that stands for it, and the attention mask to match."""
    ids, attention = case.inputs[f"{name}.input_ids"], case.inputs[f"{name}.attention_mask"]
    place = int((ids[0] == IMAGE_PLACE).nonzero())
    seen = scaled_gradient(case.network.understand(case.latents), case.config["grad_scale"])
    words = case.network.embed(ids.clamp(min=0))
    embedded = torch.cat([words[:, :place], seen, words[:, place + 1 :]], dim=1)
    ones = attention.new_ones(seen.shape[:2])
    return embedded, torch.cat([attention[:, :place], ones, attention[:, place + 1 :]], dim=1)


def drawing_loss(case: Bench, name: str, condition: Tensor, attention: Tensor) -> Tensor:
    """Everything from the condition to the loss; every tensor recorded under ``name`` is compared."""
    expected, inputs = case.expected, case.inputs
    tokens = case.grid[0] * case.grid[1]
    ratio = round(float(inputs[f"{name}.mask_ratio"]), RATIO_DIGITS)
    masked = masked_by_order(inputs[f"{name}.orders"], masked_count(tokens, ratio))
    expected.agree(f"{name}.mask", masked.float())
    drawing = case.network.draw_states(condition, attention, case.latents, masked)
    agree_drawing(case, name, drawing)
    steps, noise = inputs[f"{name}.t"], inputs[f"{name}.noise"]
    rows = diffusion_rows(case.network, case.tables, drawing.told, case.latents, masked, steps, noise)
    expected.agree(f"{name}.net_out", rows.output)
    expected.agree(f"{name}.row_mse", rows.terms.squared_error)
    expected.agree(f"{name}.row_vb", rows.terms.bound)
    expected.agree(f"{name}.row_loss", rows.terms.total)
    loss = rows.loss().mean()
    expected.agree(f"{name}.loss", loss)
    return loss


def agree_drawing(case: Bench, name: str, drawing: Drawing) -> None:
    expected = case.expected
    expected.agree(f"{name}.llm_inputs_embeds", drawing.inputs)
    expected.agree(f"{name}.llm_attention_mask", drawing.attention)
    expected.agree(f"{name}.llm_position_ids", drawing.positions)
    agree_where_attended(case, f"{name}.llm_last_hidden_state", drawing.states, drawing.attention)
    expected.agree(f"{name}.x_enc", drawing.encoded)
    expected.agree(f"{name}.z", drawing.told)


def agree_where_attended(case: Bench, name: str, ours: Tensor, attention: Tensor) -> None:
    """Values at padded positions mean nothing."""
    real = attention.bool()[..., None]
    expected = case.expected[name]
    case.expected.agree(name, torch.where(real, ours, expected))


def test_image_to_text_loss(case: Bench) -> None:
    embedded, attention = with_picture(case, "i2t")
    ids, labels = case.inputs["i2t.input_ids"], case.inputs["i2t.labels"]
    place = int((ids[0] == IMAGE_PLACE).nonzero())
    hidden = torch.full((len(ids), embedded.shape[1] - ids.shape[1] + 1), next_token.IGNORED)
    expanded = torch.cat([labels[:, :place], hidden, labels[:, place + 1 :]], dim=1)
    case.expected.agree("i2t.llm_inputs_embeds", embedded)
    states = case.network.llm.model(inputs_embeds=embedded, attention_mask=attention).last_hidden_state
    agree_where_attended(case, "i2t.llm_last_hidden_state", states, attention)
    logits = case.network.llm.lm_head(states)
    agree_where_attended(case, "i2t.logits", logits, attention)
    loss = next_token.cross_entropy(logits[:, :-1], expanded[:, 1:]).mean()
    case.expected.agree("i2t.loss", loss)
    case.expected.agree_gradients("i2t", loss, case.parameters())


def test_greedy_text(case: Bench) -> None:
    ids = case.inputs["gen_text.input_ids"]
    place = ids == IMAGE_PLACE
    with torch.no_grad():
        seen = case.network.understand(case.latents)[:1]
        words = case.network.embed(ids.clamp(min=0)).masked_scatter(place[..., None], seen)
    recorded = case.expected["gen_text.tokens"]
    logits: list[Tensor] = []
    replies = sampler.greedy_text(
        case.network, words, end=-1, max_tokens=recorded.shape[1], observe=lambda row: logits.append(row[0])
    )
    case.expected.agree("gen_text.logits", torch.stack(logits))
    case.expected.agree("gen_text.tokens", torch.tensor(replies))


def test_one_guided_denoising_step_at_every_level(case: Bench) -> None:
    tables, settings = case.drawing_tables(), case.config["sample"]
    samples, estimates = [], []
    with torch.no_grad():
        for step, (noisy, noise) in enumerate(
            zip(case.inputs["p_sample.x_t"], case.inputs["p_sample.noise"], strict=True)
        ):
            output = sampler.guided_output(
                case.network, noisy, int(tables.steps[step]), case.inputs["p_sample.c"], settings["cfg"]
            )
            sample, estimate = gaussian_diffusion.ancestral_step(
                tables, noisy, output, step, noise, settings["temperature"]
            )
            samples.append(sample)
            estimates.append(estimate)
    case.expected.agree("p_sample.sample", torch.stack(samples))
    case.expected.agree("p_sample.pred_xstart", torch.stack(estimates))


def test_text_to_image_trace(case: Bench) -> None:
    words = case.network.embed(case.inputs["sample.input_ids"]).detach()
    tables = case.tables.kept(case.expected["sample.timestep_map"].tolist())
    draw_trace(case, "sample", words, case.inputs["sample.attention_mask"], tables)


def test_reconstruction_trace(case: Bench) -> None:
    prompt, null = case.inputs["sample_recon.prompt_ids"], case.inputs["sample_recon.uncond_ids"]
    with torch.no_grad():
        seen = case.network.understand(case.latents[:1])[0]
        words = case.network.embed(prompt)
        place = picture_place(case)
        given = torch.cat([words[:place], seen, words[place:]])
        padded = torch.full((len(given),), case.config["pad_token_id"])
        padded[: len(null)] = null
        prefix = torch.stack([given, case.network.embed(padded)])
    attention = sampler.null_attention([len(given), len(null)], len(given))
    draw_trace(case, "sample_recon", prefix, attention, case.drawing_tables())


def picture_place(case: Bench) -> int:
    """The picture goes where it does in training."""
    return int((case.inputs["recon.input_ids"][0] == IMAGE_PLACE).nonzero())


def draw_trace(
    case: Bench, name: str, prefix: Tensor, attention: Tensor, tables: gaussian_diffusion.DiffusionTables
) -> None:
    settings = case.config[name]
    rounds: list[sampler.Round] = []
    tokens = sampler.draw_tokens(
        case.network,
        tables,
        prefix,
        attention,
        case.inputs[f"{name}.orders"][:1],
        case.grid,
        rounds=settings["num_iter"],
        guidance=settings["cfg"],
        temperature=settings["temperature"],
        linear_guidance=settings.get("cfg_schedule") == "linear",
        draws=lambda index, count: sampler.HeadDraws(
            case.inputs[f"{name}.noise_init.{index}"], case.inputs[f"{name}.noise_step.{index}"]
        ),
        observe=rounds.append,
    )
    for index, trace in enumerate(rounds):
        case.expected.agree(f"{name}.iter{index}.cfg", torch.tensor(trace.guidance))
        case.expected.agree(f"{name}.iter{index}.z", trace.told)
        case.expected.agree(f"{name}.iter{index}.latents", trace.latents)
    case.expected.agree(f"{name}.tokens", tokens)
    case.expected.agree(f"{name}.image", case.network.decode_latents(tokens[:1]))
