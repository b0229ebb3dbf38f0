"""The tiny Janus can say everything in its world, and its image codes stand for patches, not for whole pictures."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from reca_core.contracts.world import COLOURS, SHAPES, VOCABULARY, WORLD_TEMPLATES, geneval_metadata
from reca_core.data.shapeworld import (
    Scene,
    Thing,
    description,
    drawing_caption,
    questions,
    render,
    scene_from_seed,
    text_questions,
)
from reca_core.models.janus.adapter import Janus
from reca_core.models.janus.tiny_start import (
    CODES,
    PATCH_PIXELS,
    SIDE_PIXELS,
    set_local_encoder,
    spherical_kmeans,
    tiny_start,
)
from reca_core.models.janus.word_tokenizer import word_tokenizer

SCENES = [scene_from_seed(seed) for seed in range(800)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def start() -> Janus:
    torch.set_num_threads(1)
    return tiny_start([render(scene, SIDE_PIXELS) for scene in SCENES], seed=0)


def test_every_text_of_the_world_has_words_for_all_of_it(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [record["prompt"] for seed in (0, 1000) for record in geneval_metadata(seed, 50)]
    texts += WORLD_TEMPLATES
    for seed, scene in enumerate(SCENES[:100]):
        texts += [drawing_caption(scene, seed, rich) for rich in (False, True)] + [description(scene)]
        texts += [
            text for pairs in (questions(scene, seed), text_questions(scene, seed)) for pair in pairs for text in pair
        ]
    unknown = {text for text in texts if tokenizer.unk_token_id in tokenizer(text).input_ids}
    assert not unknown


def test_a_word_of_another_world_is_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("a zebra").input_ids[-1] == tokenizer.unk_token_id


def test_text_survives_encoding_and_decoding(tokenizer: PreTrainedTokenizerFast) -> None:
    answer = "a red ring"
    assert tokenizer.decode(tokenizer(answer).input_ids) == answer


def test_drawing_prompts_end_with_begin_of_image_and_hold_the_caption(start: Janus) -> None:
    (row,) = start.chat.drawing_prompts(["a red ring"])
    assert (row[0], row[-1]) == (start.chat.ids.bos, start.chat.ids.boi)
    assert start.tokenizer("a red ring").input_ids == row[2:-2]


def codes_of_patches(adapter: Janus) -> dict[bytes, Counter[int]]:
    """How often each code stands for each patch of pixels, over the scenes."""
    pictures = [render(scene, SIDE_PIXELS) for scene in SCENES]
    ids = adapter.encode_target(adapter.prepare(pictures)).ids
    assert ids is not None
    found: dict[bytes, Counter[int]] = defaultdict(Counter)
    side = SIDE_PIXELS // PATCH_PIXELS
    for picture, codes in zip(pictures, ids.tolist(), strict=True):
        pixels = np.asarray(picture)
        for position, code in enumerate(codes):
            top, left = (PATCH_PIXELS * part for part in divmod(position, side))
            found[pixels[top : top + PATCH_PIXELS, left : left + PATCH_PIXELS].tobytes()][code] += 1
    return found


def agreement(found: dict[bytes, Counter[int]]) -> float:
    """Share of patches that have their own commonest code, the empty patch aside."""
    drawn = sorted(found.values(), key=Counter.total)[:-1]
    return sum(counts.most_common(1)[0][1] for counts in drawn) / sum(map(Counter.total, drawn))


def test_a_patch_has_one_code_wherever_it_stands(start: Janus) -> None:
    assert agreement(codes_of_patches(start)) > 0.75


def test_without_the_local_start_a_patch_has_many_codes(start: Janus) -> None:
    torch.manual_seed(0)
    usual = Janus.from_configuration(start.network.config, start.tokenizer, WORLD_TEMPLATES)
    assert agreement(codes_of_patches(usual)) < agreement(codes_of_patches(start)) - 0.2


def test_most_codes_are_used(start: Janus) -> None:
    used = {code for counts in codes_of_patches(start).values() for code in counts}
    assert len(used) > 0.8 * CODES


def test_different_objects_have_different_codes(start: Janus) -> None:
    scenes = [Scene((Thing(shape, colour, 0),)) for shape in SHAPES for colour in COLOURS]
    ids = start.encode_target(start.prepare([render(scene, SIDE_PIXELS) for scene in scenes])).ids
    assert ids is not None
    assert len({tuple(row) for row in ids.tolist()}) == len(scenes)


def test_the_start_depends_on_its_seed_and_leaves_the_global_generator_alone() -> None:
    pictures = [render(scene, SIDE_PIXELS) for scene in SCENES[:60]]
    before = torch.get_rng_state()
    first, again, other = (tiny_start(pictures, seed).network.state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    name = "model.vqmodel.quantize.embedding.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_kmeans_finds_separate_clusters() -> None:
    axes = torch.eye(4)
    points = torch.nn.functional.normalize(axes.repeat(10, 1) + 0.01 * torch.randn(40, 4), dim=-1)
    centres = spherical_kmeans(points, 4)
    assert sorted((centres @ axes.T).argmax(-1).tolist()) == [0, 1, 2, 3]


def test_setting_the_encoder_leaves_the_understanding_encoder_alone() -> None:
    pictures = [render(scene, SIDE_PIXELS) for scene in SCENES[:60]]
    start = tiny_start(pictures, seed=0)
    vision = start.network.model.vision_model.state_dict()
    before = {name: tensor.clone() for name, tensor in vision.items()}
    with torch.random.fork_rng():
        set_local_encoder(start.network.model.vqmodel, start.prepare(pictures).target)
    assert all(torch.equal(before[name], tensor) for name, tensor in vision.items())
