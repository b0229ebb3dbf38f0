"""What the tiny families begin with: words for everything in their world, and codes that say a patch, not a picture."""

from __future__ import annotations

import copy
from collections import Counter
from importlib import import_module
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.world import WORLD_TEMPLATES, geneval_metadata
from reca_core.data.shapeworld import description, drawing_caption, questions, render, scene_from_seed, text_questions
from reca_core.models import patchwise
from reca_core.models.showo.adapter import Showo
from reca_core.models.unified import Images

SIDE_PIXELS, PATCH_PIXELS = 16, 4
STARTING, LOOKED_AT = range(300_000, 300_400), range(2_000, 2_300)
LATENT_FAMILIES = ("harmon", "openuni")
MADE = sorted(name for name, entry in FAMILIES.items() if entry.tiny)


def pictures(seeds: range) -> list[Any]:
    return [render(scene_from_seed(seed), SIDE_PIXELS) for seed in seeds]


def start_of(family: str, seed: int = 0, seeds: range = STARTING) -> Any:
    torch.set_num_threads(1)
    return import_module(FAMILIES[family].tiny).tiny_start(pictures(seeds), seed)


@pytest.fixture(scope="module")
def starts() -> dict[str, Any]:
    return {family: start_of(family) for family in MADE}


def kinds_of_patch(images: Images) -> Tensor:
    """Which of the different patches each cell of the targets shows."""
    patches = rearrange(images.target, "b c (h p) (w q) -> (b h w) (c p q)", p=PATCH_PIXELS, q=PATCH_PIXELS)
    return torch.unique(patches, dim=0, return_inverse=True)[1]


def words(adapter: Any) -> Any:
    """The tokenizer of a start, wherever the family keeps it."""
    return adapter.tokenizer if hasattr(adapter, "tokenizer") else adapter.turns.tokenizer


@pytest.mark.parametrize("family", MADE)
def test_every_text_of_the_world_has_words_for_all_of_it(starts: dict[str, Any], family: str) -> None:
    tokenizer = words(starts[family])
    texts = [record["prompt"] for seed in (0, 1000) for record in geneval_metadata(seed, 50)] + list(WORLD_TEMPLATES)
    for seed in range(100):
        scene = scene_from_seed(seed)
        texts += [drawing_caption(scene, seed, rich) for rich in (False, True)] + [description(scene)]
        pairs = (*questions(scene, seed), *text_questions(scene, seed))
        texts += [text for pair in pairs for text in pair]
    assert not {text for text in texts if tokenizer.unk_token_id in tokenizer(text).input_ids}


@pytest.mark.parametrize("family", LATENT_FAMILIES)
def test_what_stands_around_a_drawing_prompt_has_words_too(starts: dict[str, Any], family: str) -> None:
    turns = starts[family].turns
    rows = [*turns.drawing_prompts(["a red ring"]), turns.null_prompt()]
    assert not {turns.tokenizer.unk_token_id} & {token for row in rows for token in row}
    assert len(rows[1]) < len(rows[0])


def test_nothing_that_a_show_o_is_told_is_cut(starts: dict[str, Any]) -> None:
    showo = starts["showo"]
    assert isinstance(showo, Showo)
    captions = [drawing_caption(scene_from_seed(seed), seed, True) for seed in range(500_000, 502_000)]
    longest = max(map(len, showo.wording.captions([*captions, *WORLD_TEMPLATES])))
    instructed = max(map(len, showo.wording.instructions(WORLD_TEMPLATES)))
    assert longest <= showo.configuration.max_text - 2
    assert instructed <= showo.configuration.max_text - 5
    assert showo.tokenizer.unk_token_id not in showo.wording.instructions(WORLD_TEMPLATES)[0]


def test_a_patch_has_one_code_wherever_it_stands_and_hardly_ever_that_of_another(starts: dict[str, Any]) -> None:
    images = starts["showo"].prepare(pictures(LOOKED_AT))
    codes, kinds = starts["showo"].encode_target(images).ids.flatten(), kinds_of_patch(images)
    commonest = {int(kind): Counter(codes[kinds == kind].tolist()).most_common(1)[0] for kind in kinds.unique()}
    agreeing = sum(count for _, count in commonest.values())
    assert agreeing / len(codes) > 0.999
    assert len({code for code, _ in commonest.values()}) > 0.9 * len(commonest)


def test_codes_survive_half_precision(starts: dict[str, Any]) -> None:
    showo, images = copy.deepcopy(starts["showo"]), starts["showo"].prepare(pictures(LOOKED_AT))
    codes = showo.encode_target(images).ids
    patchwise.as_shipped(showo.network)
    assert torch.equal(codes, showo.encode_target(images).ids)


@pytest.mark.parametrize("family", LATENT_FAMILIES)
def test_a_patch_has_one_latent_wherever_it_stands(starts: dict[str, Any], family: str) -> None:
    images = starts[family].prepare(pictures(LOOKED_AT))
    latents, kinds = starts[family].encode_target(images).latents.flatten(0, 1), kinds_of_patch(images)
    means = torch.stack([latents[kinds == kind].mean(0) for kind in kinds.unique()])
    assert (latents - means[kinds]).abs().max() < 0.01
    apart = torch.cdist(means, means) + 10 * torch.eye(len(means))
    assert apart.min() > 0.5


@pytest.mark.parametrize("family", LATENT_FAMILIES)
def test_latents_have_unit_variance(starts: dict[str, Any], family: str) -> None:
    latents = starts[family].encode_target(starts[family].prepare(pictures(STARTING))).latents.flatten(0, 1)
    assert torch.allclose(latents.mean(0), torch.zeros(latents.shape[1]), atol=0.02)
    assert torch.allclose(torch.cov(latents.T), torch.eye(latents.shape[1]), atol=0.05)


@pytest.mark.parametrize("family", MADE)
def test_a_start_depends_on_its_seed_and_leaves_the_global_generator_alone(family: str) -> None:
    few, before = STARTING[:60], torch.get_rng_state()
    first, again, other = (start_of(family, seed, few).network.state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


def test_planes_tell_points_apart_that_few_bits_can() -> None:
    torch.manual_seed(0)
    points = torch.randn(16, 6)
    planes = patchwise.separating_planes(points, bits=6)
    sides = points @ planes.weight.T + planes.bias > 0
    assert len({tuple(row) for row in sides.tolist()}) >= 15


def test_whitened_rows_are_uncorrelated_and_the_largest_directions_are_kept() -> None:
    torch.manual_seed(0)
    rows = torch.randn(4000, 5) * torch.tensor([3.0, 0.01, 2.0, 0.01, 1.0])
    affine = patchwise.whitening(rows, channels=3)
    white = rows @ affine.weight.T + affine.bias
    assert torch.allclose(torch.cov(white.T), torch.eye(3), atol=1e-3)
    assert affine.weight[:, [1, 3]].norm() < 0.1
