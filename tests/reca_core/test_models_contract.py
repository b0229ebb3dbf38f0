"""What every registered family must keep, whatever it is made of. A new family is covered by its registry line alone.

Each family brings its smallest model (``smallest``); its losses, training stages, checkpoints and drawing are held
against the promises of reca_core/models/unified.py.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from reca_core.contracts.errors import BadInput, CheckpointRefused
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import SamplingSettings
from reca_core.draws import KeyedDraws
from reca_core.models.load import adapter_class
from reca_core.models.unified import (
    AnswersInText,
    Dialogue,
    DrawRequest,
    DrawsFromText,
    RedrawRequest,
    TrainsTokenizer,
    UnifiedModel,
)
from reca_core.objectives.loss_sum import LossSum

PICTURES = 6
STAGES = ("base", "post")
SETTINGS = SamplingSettings(images_per_batch=4, max_reply_tokens=4)


def with_capability(capability: type) -> list[str]:
    return [family for family in FAMILIES if issubclass(adapter_class(family), capability)]


def pictures(count: int = PICTURES, seed: int = 0) -> list[Image.Image]:
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(block).resize((32, 32), Image.Resampling.NEAREST) for block in blocks]


def words(adapter: UnifiedModel, count: int) -> list[str]:
    return [adapter.templates[index % len(adapter.templates)] for index in range(count)]


def keep_text(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.bool)


def losses(adapter: UnifiedModel, shown: Sequence[Image.Image], first: int = 0) -> dict[str, LossSum]:
    """Every loss the family has, on pictures at stream positions ``first``, ``first + 1``, ..."""
    count = len(shown)
    images, texts = adapter.prepare(shown), words(adapter, first + count)[first:]
    draws, target = KeyedDraws(0, range(first, first + count)), adapter.encode_target(images)
    condition = adapter.condition(adapter.understand(images), texts, keep_text(count))
    terms = {"reconstruction": adapter.reconstruction_loss(condition, target, draws)}
    if isinstance(adapter, AnswersInText):
        asked = [Dialogue(text, text, row) for row, text in enumerate(texts)]
        terms["image_to_text"] = adapter.image_to_text_loss(images, asked)
        terms["text"] = adapter.text_loss([Dialogue(text, text) for text in texts])
    if isinstance(adapter, DrawsFromText):
        terms["text_to_image"] = adapter.text_to_image_loss(texts, target, keep_text(count), draws)
        terms["unconditional"] = adapter.text_to_image_loss(texts, target, ~keep_text(count), draws)
    return terms


def select_stage(adapter: UnifiedModel, stage: str) -> frozenset[str]:
    names = adapter.trainable_names(stage)
    for name, parameter in adapter.network.named_parameters():
        parameter.requires_grad_(name in names)
        parameter.grad = None
    return names


def pixels(made: Sequence[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in made]


@pytest.fixture(params=list(FAMILIES))
def adapter(request: pytest.FixtureRequest) -> UnifiedModel:
    return adapter_class(request.param).smallest(seed=0)


def test_an_adapter_follows_the_protocol(adapter: UnifiedModel) -> None:
    assert isinstance(adapter, UnifiedModel)
    assert adapter.family in FAMILIES
    assert adapter.templates


def test_every_loss_is_finite_positive_and_counted(adapter: UnifiedModel) -> None:
    for name, loss in losses(adapter, pictures()).items():
        assert torch.isfinite(loss.total), name
        assert loss.mean().item() > 0, name
        assert loss.count.item() >= PICTURES, name


def test_losses_of_parts_add_up_to_the_loss_of_the_whole(adapter: UnifiedModel) -> None:
    shown = pictures()
    whole, head, tail = losses(adapter, shown), losses(adapter, shown[:2]), losses(adapter, shown[2:], first=2)
    for name, loss in whole.items():
        parts = head[name] + tail[name]
        assert parts.count.item() == loss.count.item(), name
        assert parts.total.item() == pytest.approx(loss.total.item(), rel=1e-5), name


def test_dropped_text_changes_the_condition_and_nothing_but_the_dropped_row(adapter: UnifiedModel) -> None:
    seen = adapter.understand(adapter.prepare(pictures(2)))
    texts = [adapter.templates[0]] * 2
    kept = adapter.condition(seen, texts, keep_text(2))
    dropped = adapter.condition(seen, texts, torch.tensor([False, True]))
    same_length = kept.embeddings.shape == dropped.embeddings.shape
    assert not same_length or not torch.equal(kept.embeddings[1], dropped.embeddings[1])
    first = dropped.attention[0].bool()
    assert torch.equal(kept.embeddings[0, kept.attention[0].bool()], dropped.embeddings[0, first])


def test_with_all_text_dropped_the_words_do_not_matter(adapter: UnifiedModel) -> None:
    assert isinstance(adapter, DrawsFromText)
    target, draws = adapter.encode_target(adapter.prepare(pictures(2))), KeyedDraws(0, range(2))
    said = words(adapter, 2)
    turned = [" ".join(reversed(text.split())) for text in said]
    one, other = (adapter.text_to_image_loss(texts, target, ~keep_text(2), draws) for texts in (said, turned))
    assert torch.equal(one.total, other.total)
    kept = [adapter.text_to_image_loss(texts, target, keep_text(2), draws).total for texts in (said, turned)]
    assert not torch.equal(*kept)


@pytest.mark.parametrize("stage", STAGES)
def test_only_declared_parameters_get_gradient_and_all_of_them_do(adapter: UnifiedModel, stage: str) -> None:
    declared = select_stage(adapter, stage)
    sum(loss.mean() for loss in losses(adapter, pictures()).values()).backward()
    touched = {n for n, p in adapter.network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert touched <= declared
    assert declared - touched == set()


@pytest.mark.parametrize("stage", STAGES)
def test_frozen_weights_keep_their_bits_and_trained_ones_move(adapter: UnifiedModel, stage: str) -> None:
    declared = select_stage(adapter, stage)
    before = copy.deepcopy(dict(adapter.network.named_parameters()))
    optimizer = torch.optim.AdamW([p for p in adapter.network.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        sum(loss.mean() for loss in losses(adapter, pictures()).values()).backward()
        optimizer.step()
    changed = {n for n, p in adapter.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed == declared


@pytest.mark.parametrize("family", with_capability(TrainsTokenizer))
def test_the_tokenizer_stage_trains_the_tokenizer_alone(family: str) -> None:
    adapter = adapter_class(family).smallest(seed=0)
    assert isinstance(adapter, TrainsTokenizer)
    declared = select_stage(adapter, "tokenizer")
    terms = adapter.tokenizer_loss(adapter.prepare(pictures()))
    sum(term.mean() for term in terms.values()).backward()
    touched = {n for n, p in adapter.network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert touched == declared


def test_an_unknown_stage_is_refused_with_the_choices(adapter: UnifiedModel) -> None:
    with pytest.raises(BadInput, match="post"):
        adapter.trainable_names("warmup")


def test_targets_carry_no_gradient_and_ignore_autocast(adapter: UnifiedModel) -> None:
    images = adapter.prepare(pictures())
    plain = adapter.encode_target(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = adapter.encode_target(images)
    for value, again in ((plain.ids, under_autocast.ids), (plain.latents, under_autocast.latents)):
        if value is not None:
            assert not value.requires_grad
            assert again is not None
            assert torch.equal(value, again)


def test_a_saved_model_comes_back_bit_equal(adapter: UnifiedModel, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    again = type(adapter).load(tmp_path)
    ours, theirs = adapter.network.state_dict(), again.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.templates == adapter.templates
    model_type = json.loads((tmp_path / "config.json").read_text())["model_type"]
    assert [family for family, entry in FAMILIES.items() if model_type in entry.model_types] == [adapter.family]
    for name, loss in losses(adapter, pictures()).items():
        assert losses(again, pictures())[name].total.item() == loss.total.item(), name


def test_saving_a_loaded_model_writes_the_same_bytes(adapter: UnifiedModel, tmp_path: Path) -> None:
    adapter.save(tmp_path / "first")
    type(adapter).load(tmp_path / "first").save(tmp_path / "second")
    names = sorted(path.name for path in (tmp_path / "first").rglob("*"))
    assert names == sorted(path.name for path in (tmp_path / "second").rglob("*"))
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_a_model_can_be_saved_over_the_directory_it_came_from(adapter: UnifiedModel, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    again = type(adapter).load(tmp_path)
    again.save(tmp_path)
    ours = adapter.network.state_dict()
    assert all(
        torch.equal(ours[name], tensor) for name, tensor in type(adapter).load(tmp_path).network.state_dict().items()
    )


def largest_matrix(state: dict[str, Tensor]) -> str:
    uneven = (name for name, tensor in state.items() if tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1])
    return max(uneven, key=lambda name: state[name].numel())


@pytest.mark.parametrize("damage", ["missing", "extra", "renamed", "transposed"])
def test_a_damaged_checkpoint_is_refused_by_name(adapter: UnifiedModel, damage: str, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    file = next(tmp_path.rglob("*.safetensors"))
    state = load_file(file)
    name = largest_matrix(state)
    tensor = state.pop(name)
    changed = {"missing": {}, "extra": {name: tensor, "extra.weight": tensor.clone()}}
    changed |= {"renamed": {f"{name}_": tensor}, "transposed": {name: tensor.T.contiguous()}}
    save_file(state | changed[damage], file, metadata={"format": "pt"})
    with pytest.raises(CheckpointRefused) as refusal:
        type(adapter).load(tmp_path)
    assert ("extra.weight" if damage == "extra" else name) in str(refusal.value)


def test_a_truncated_checkpoint_is_refused(adapter: UnifiedModel, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointRefused, match=file.name):
        type(adapter).load(tmp_path)


def test_config_of_another_size_is_refused(adapter: UnifiedModel, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    path = tmp_path / "config.json"
    text = path.read_text()
    changed = json.loads(text, object_hook=lambda part: part | {"num_hidden_layers": part["num_hidden_layers"] + 1}
                         if "num_hidden_layers" in part else part)  # fmt: skip
    path.write_text(json.dumps(changed))
    with pytest.raises(CheckpointRefused, match="missing"):
        type(adapter).load(tmp_path)


def test_drawing_is_repeatable_and_depends_on_text_and_seed_only(adapter: UnifiedModel) -> None:
    requests = [DrawRequest(text, seed) for seed, text in enumerate(words(adapter, 9))]
    drawn = pixels(list(adapter.generate(requests, SETTINGS)))
    assert drawn == pixels(list(adapter.generate(requests, SETTINGS)))
    for size in (1, 3, 64):
        settings = SETTINGS.model_copy(update={"images_per_batch": size})
        assert pixels(list(adapter.generate(requests, settings))) == drawn, size
    assert pixels(list(adapter.generate(requests[::-1], SETTINGS))) == drawn[::-1]
    assert len(set(drawn)) == len(drawn)


def test_reconstruction_is_repeatable_and_independent_of_its_batch(adapter: UnifiedModel) -> None:
    shown = pictures(5)
    requests = [RedrawRequest(p, seed, t) for seed, (p, t) in enumerate(zip(shown, words(adapter, 5), strict=True))]
    redrawn = pixels(list(adapter.reconstruct(requests, SETTINGS)))
    single = SETTINGS.model_copy(update={"images_per_batch": 1})
    assert pixels(list(adapter.reconstruct(requests, single))) == redrawn
    assert pixels(list(adapter.reconstruct(requests[2:], SETTINGS))) == redrawn[2:]


def test_a_reconstruction_looks_at_the_picture(adapter: UnifiedModel) -> None:
    first, second = (RedrawRequest(picture, 0, adapter.templates[0]) for picture in pictures(2))
    drawn = pixels(list(adapter.reconstruct([first, second], SETTINGS)))
    assert drawn[0] != drawn[1]


def test_guidance_and_temperature_change_the_drawing(adapter: UnifiedModel) -> None:
    request = [DrawRequest(adapter.templates[0], 1)]
    plain, guided = (
        pixels(list(adapter.generate(request, SETTINGS.model_copy(update={"guidance_scale": scale}))))
        for scale in (1.0, 50.0)
    )
    assert plain != guided


def test_drawing_leaves_no_gradient_and_no_changed_weight(adapter: UnifiedModel) -> None:
    before = copy.deepcopy(adapter.network.state_dict())
    list(adapter.generate([DrawRequest(adapter.templates[0], 0)], SETTINGS))
    assert all(torch.equal(before[name], tensor) for name, tensor in adapter.network.state_dict().items())
    assert all(parameter.grad is None for parameter in adapter.network.parameters())


@pytest.mark.parametrize("family", with_capability(AnswersInText))
def test_answers_do_not_depend_on_the_batch(family: str) -> None:
    adapter = adapter_class(family).smallest(seed=0)
    assert isinstance(adapter, AnswersInText)
    questions, shown = words(adapter, 5), pictures(5)
    together = adapter.describe(shown, questions, SETTINGS)
    alone = [adapter.describe([p], [q], SETTINGS)[0] for p, q in zip(shown, questions, strict=True)]
    assert together == alone


def test_ceiling_and_view_give_one_picture_each(adapter: UnifiedModel) -> None:
    shown = pictures(3)
    assert len(adapter.tokenizer_ceiling(shown)) == len(adapter.understanding_view(shown)) == len(shown)
    assert pixels(adapter.tokenizer_ceiling(shown[:1])) == pixels(adapter.tokenizer_ceiling(shown)[:1])
