"""BAGEL equals the original in every recorded tensor: packing, encoders, joint attention, losses, drawing, text.

Order of operations and names: the README beside the recorded numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reca_core.models.bagel import checkpoint, upstream
from reca_core.models.bagel.network import BagelNetwork, Noised, flow_loss, shifted_time
from reca_core.models.bagel.packing import Item, Pack, Packer, Specials
from reca_core.models.bagel.sampler import Context, Drawer, FlowSettings
from tests.parity.golden_models import Expected, GoldenSet, golden_sets

pytestmark = pytest.mark.goldens
MODES = ("causal", "full", "noise")
ANSWER_WEIGHT = 0.25
CLEAN_LOGIT = -1e30
PLANS = {
    "recon": ("vit", "text", "vae*"),
    "t2i": ("text", "vae*"),
    "vlm": ("vit", "text", "text*"),
    "edit": ("vae", "vit", "text", "vae*"),
}
"""Order of the items of each kind of sample; a star marks what the loss is about."""
DROPS = {"text": "text", "vit": "vit_image", "vae": "vae_image"}


@dataclass(frozen=True)
class Bench:
    config: dict[str, Any]
    network: BagelNetwork
    specials: Specials
    inputs: dict[str, Tensor]
    expected: Expected
    golden: GoldenSet

    def pack(self, name: str) -> Pack:
        packer = Packer(self.specials, self.network.sizes.grids())
        for row, sample in enumerate(self.config["packs"][name]):
            packer.add(self.items(f"{name}.{row}", sample))
        return packer.pack

    def items(self, name: str, sample: dict[str, Any]) -> list[Item]:
        texts, pictures, items = 0, 0, []
        dropped = sample.get("drop", [])
        times = iter(sample["t"])
        for part in PLANS[sample["kind"]]:
            kind, predict = part.rstrip("*"), part.endswith("*")
            drop = not predict and (DROPS[kind] in dropped or kind in dropped)
            if kind == "text":
                ids = tuple(self.inputs[f"{name}.text.{texts}"].tolist())
                items.append(Item("text", ids=ids, predict=predict, dropped=drop))
                texts += 1
            else:
                pixels = self.inputs[f"{name}.image.{pictures}"]
                time = next(times) if predict else 0.0
                items.append(Item(kind, pixels=pixels, predict=predict, dropped=drop, time_logit=time))  # type: ignore[arg-type]
                pictures += 1
        return items

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())


@lru_cache
def bench(golden: GoldenSet) -> Bench:
    config = golden.config
    found = upstream.find(golden.folder)
    network = BagelNetwork(found.configuration.sizes).eval()
    state = checkpoint.from_upstream(found.state, len(config["vae"]["ch_mult"]))
    network.load_state_dict(state, strict=True)
    special = config["special"]
    specials = Specials(
        special["bos_token_id"], special["eos_token_id"], special["start_of_image"], special["end_of_image"]
    )
    return Bench(config, network, specials, golden.tensors("inputs"), Expected(golden), golden)


@pytest.fixture(params=golden_sets("bagel"))
def case(request: pytest.FixtureRequest) -> Bench:
    return bench(request.param)


def test_fixed_position_tables(case: Bench) -> None:
    case.expected.agree("pos.vit", case.network.vit_pos_embed.pos_embed)
    case.expected.agree("pos.latent", case.network.latent_pos_embed.pos_embed)


def test_the_tables_are_recomputed_not_only_loaded(case: Bench) -> None:
    fresh = BagelNetwork(case.network.sizes)
    case.expected.agree("pos.vit", fresh.vit_pos_embed.pos_embed)
    case.expected.agree("pos.latent", fresh.latent_pos_embed.pos_embed)


def test_the_autoencoder_samples_and_decodes(case: Bench) -> None:
    pixels, noise = case.inputs["vae.image"], case.inputs["vae.noise"]
    with torch.no_grad():
        case.expected.agree("vae.moments", case.network.vae.encode(pixels).latent_dist.parameters)
    latent = case.network.encode_pixels(pixels, noise)
    case.expected.agree("vae.latent", latent)
    case.expected.agree("vae.decoded", case.network.decode_latents(latent))


def test_upstream_names_come_back(case: Bench) -> None:
    autoencoder = {checkpoint.AUTOENCODER + name: tensor for name, tensor in case.golden.tensors("vae").items()}
    theirs = case.golden.tensors("weights") | autoencoder
    ours = checkpoint.to_upstream(case.network.state_dict(), len(case.config["vae"]["ch_mult"]))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def pack_names(case: Bench) -> list[str]:
    return list(case.config["packs"])


def test_packing(case: Bench) -> None:
    for name in pack_names(case):
        pack = case.pack(name)
        lists = {
            "packed_text_ids": pack.text_ids,
            "packed_text_indexes": pack.text_index,
            "packed_position_ids": pack.positions,
            "packed_vit_token_indexes": pack.vit_index,
            "vit_token_seqlens": pack.vit_lengths,
            "packed_vae_token_indexes": pack.vae_index,
            "mse_loss_indexes": pack.noise_index,
            "packed_label_ids": pack.label_ids,
            "ce_loss_indexes": pack.label_index,
            "split_lens": pack.split_lengths,
            "sample_lens": pack.sample_lengths,
            "attn_mode_codes": [MODES.index(mode) for mode in pack.modes],
        }
        for key, values in lists.items():
            if f"{name}.{key}" in case.expected:
                case.expected.agree(f"{name}.{key}", torch.tensor(values))
        for key, rows in (
            ("packed_vit_position_ids", pack.vit_position_ids),
            ("packed_latent_position_ids", pack.vae_position_ids),
        ):
            if f"{name}.{key}" in case.expected:
                case.expected.agree(f"{name}.{key}", torch.cat(rows))
        for row, mask in enumerate(pack.masks()):
            case.expected.agree(f"{name}.attn_allowed.{row}", mask)
        if f"{name}.t_logit" in case.expected:
            logits = torch.tensor(pack.time_logits)
            case.expected.agree(f"{name}.t_logit", logits.clamp(min=CLEAN_LOGIT))
        if f"{name}.ce_loss_weights" in case.expected:
            case.expected.agree(f"{name}.ce_loss_weights", torch.tensor(pack.label_weights))


def test_forward_losses_and_gradients(case: Bench) -> None:
    for name in pack_names(case):
        loss = forward(case, name, name)
        case.expected.agree_gradients(name, loss, case.parameters())


def test_frozen_understanding_changes_gradients_not_results(case: Bench) -> None:
    for name in pack_names(case):
        frozen = f"{name}_frozen"
        if f"{frozen}.loss" in case.expected:
            loss = forward(case, name, frozen)
            case.expected.agree_gradients(frozen, loss, case.parameters())


def forward(case: Bench, name: str, recorded: str) -> Tensor:
    """The whole forward pass of a pack; every tensor recorded under ``recorded`` is compared."""
    network, pack, expected = case.network, case.pack(name), case.expected

    def agree(key: str, ours: Tensor) -> None:
        if f"{recorded}.{key}" in expected:
            expected.agree(f"{recorded}.{key}", ours)

    if pack.vit_patches:
        ids = torch.cat(pack.vit_position_ids)
        features = network.vit_model.vision_model(torch.cat(pack.vit_patches), ids, pack.vit_lengths)
        agree("vit_out", features)
        agree("connector_out", network.connector(features))
    noised = noised_tokens(case, name, pack) if pack.vae_pixels else None
    embedded = network.embed(pack, noised)
    agree("llm_inputs", embedded)
    states = network.hidden(pack, embedded, frozen_understanding=recorded != name)
    agree("llm_last_hidden_state", states)
    loss = torch.zeros(())
    if noised is not None:
        predicted = network.velocity(pack, states)
        agree("velocity_pred", predicted)
        place = {token: row for row, token in enumerate(pack.vae_index)}
        rows = [place[token] for token in pack.noise_index]
        agree("mse", (predicted - noised.velocity[rows]).square())
        flow = flow_loss(pack, noised, predicted).mean()
        agree("loss_mse", flow)
        loss = loss + flow
    if pack.label_ids:
        logits = network.logits(pack, states)
        agree("logits", logits)
        each = F.cross_entropy(logits, torch.tensor(pack.label_ids), reduction="none")
        agree("ce", each)
        agree("loss_ce", each.mean())
        weights = torch.tensor(pack.label_weights)
        agree("loss_ce_reweighted", (each * weights).sum() / weights.sum())
        loss = loss + ANSWER_WEIGHT * each.mean()
    expected.agree(f"{recorded}.loss", loss)
    return loss


def noised_tokens(case: Bench, name: str, pack: Pack) -> Noised:
    noise = case.inputs[f"{name}.vae_noise"]
    tallest = max(picture.shape[1] for picture in pack.vae_pixels)
    widest = max(picture.shape[2] for picture in pack.vae_pixels)
    padded = [F.pad(x, (0, widest - x.shape[2], 0, tallest - x.shape[1])) for x in pack.vae_pixels]
    case.expected.agree(f"{name}.padded_images", torch.stack(padded))
    case.expected.agree(f"{name}.padded_latent", case.network.encode_pixels(torch.stack(padded), noise))
    time = shifted_time(torch.tensor(pack.time_logits), case.config["timestep_shift"])
    return Noised(case.network.pack_latents(pack, noise), case.inputs[f"{name}.flow_noise"], time)


def test_drawing_traces(case: Bench) -> None:
    for name, settings in case.config["sampling"].items():
        drawer = Drawer(case.network, case.specials)
        contexts = drawer.contexts(prompt_items(case, name, settings), lambda _: case.inputs[f"{name}.vae_noise"])  # noqa: B023
        branches = (contexts.conditional, contexts.without_text, contexts.without_image)
        case.expected.agree(f"{name}.kv_lens", torch.tensor([branch.memory.length for branch in branches]))
        case.expected.agree(f"{name}.ropes", torch.tensor([branch.rotary for branch in branches]))
        case.expected.agree(f"{name}.kv_cache_k_last", contexts.conditional.memory.keys[-1])
        flow = FlowSettings(
            text_guidance=settings["cfg_text"],
            image_guidance=settings["cfg_img"],
            interval=tuple(settings["cfg_interval"]),
            renorm=settings["renorm_type"],
            renorm_minimum=settings["renorm_min"],
            times=settings["num_timesteps"],
            shift=settings["shift"],
        )
        seen: list[Tensor] = []
        size = tuple(settings["image_shape"])
        latent = drawer.draw(contexts, size, case.inputs[f"{name}.init_noise"], flow, seen.append)  # type: ignore[arg-type]
        case.expected.agree(f"{name}.velocity", torch.stack(seen))
        case.expected.agree(f"{name}.latent", latent)
        case.expected.agree(f"{name}.image", case.network.decode_latents(latent))


def prompt_items(case: Bench, name: str, settings: dict[str, Any]) -> list[Item]:
    items = []
    for entry in settings["inputs"]:
        if entry.startswith("text"):
            items.append(Item("text", ids=tuple(case.inputs[f"{name}.{entry}"].tolist())))
            continue
        if settings["use_vae"]:
            items.append(Item("vae", pixels=case.inputs[f"{name}.{entry}.vae"]))
        items.append(Item("vit", pixels=case.inputs[f"{name}.{entry}.vit"]))
    return items


def test_greedy_text(case: Bench) -> None:
    drawer = Drawer(case.network, case.specials)
    picture = Item("vit", pixels=case.inputs["gen_text.image.vit"])
    question = Item("text", ids=tuple(case.inputs["gen_text.text"].tolist()))
    context = Context()
    for item in (picture, question):
        context = drawer.extended(context, item, torch.zeros)
    recorded = case.expected["gen_text.tokens"][:, 0].tolist()
    logits: list[Tensor] = []
    reply = drawer.greedy_text(context, end=-1, max_tokens=len(recorded), observe=logits.append)
    case.expected.agree("gen_text.logits", torch.stack(logits))
    assert [case.specials.bos, *reply][: len(recorded)] == recorded
