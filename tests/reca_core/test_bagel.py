"""BAGEL's geometry, packing, frozen experts, drawing and editing: the rules that the contract tests cannot know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from reca_core.contracts.errors import BadInput, CheckpointRefused
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.home import Home
from reca_core.contracts.lifeline import Interrupted
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.requests import ImageSource, LossTerms, SamplingSettings, TrainRequest
from reca_core.data.prepare import prepare
from reca_core.draws import KeyedDraws
from reca_core.models.bagel.adapter import Bagel
from reca_core.models.bagel.configuration import BagelConfiguration, Bounds, DrawingPlan, PicturePlan
from reca_core.models.bagel.packing import Item, Pack, Packer
from reca_core.models.bagel.pictures import Size, VariedImages, fitted_size
from reca_core.models.bagel.sampler import Context, Contexts, Drawer, FlowSettings
from reca_core.models.bagel.sequence import seen_rows
from reca_core.models.unified import Dialogue, DrawRequest, EditRequest, EditsImages, Images, RedrawRequest, Target
from reca_core.objectives.loss_sum import LossSum
from tests.reca_core.test_distributed import logged, train_on_two
from tests.reca_core.test_resume import StopAfter
from tests.reca_core.tiny_janus import tiny_pictures
from tests.reca_core.training_rig import ALONE, request, train, weights

SETTINGS = SamplingSettings(max_reply_tokens=4)
KEEP = torch.tensor([False])


@pytest.fixture
def bagel() -> Bagel:
    return Bagel.smallest(seed=0)


def shapes() -> list[Image.Image]:
    """Pictures of three aspects."""
    return [
        picture.resize(size) for picture, size in zip(tiny_pictures(3), ((32, 32), (60, 20), (10, 30)), strict=True)
    ]


# ---- geometry --------------------------------------------------------------------------------------------------

PUBLISHED = PicturePlan()


@pytest.mark.parametrize(
    ("size", "bounds", "stride", "expected"),
    [
        ((1024, 1024), PUBLISHED.understanding, 14, (224, 224)),
        ((512, 1024), PUBLISHED.understanding, 14, (112, 224)),
        ((100, 50), PUBLISHED.understanding, 14, (224, 112)),
        ((300, 400), PUBLISHED.target, 16, (512, 688)),
        ((2048, 2048), PUBLISHED.target, 16, (1024, 1024)),
        ((600, 800), PUBLISHED.target, 16, (608, 800)),
        ((100, 1000), PUBLISHED.target, 16, (96, 1024)),
        ((3000, 2000), PUBLISHED.questions, 14, (980, 658)),
        ((1, 500), PUBLISHED.understanding, 14, (14, 224)),
    ],
)
def test_pictures_keep_their_aspect_within_the_bounds(size: Size, bounds: Bounds, stride: int, expected: Size) -> None:
    assert fitted_size(size, bounds, stride) == expected


def test_both_sides_of_a_picture_have_their_own_size(bagel: Bagel) -> None:
    images = bagel.prepare(shapes())
    assert images.target_sizes == ((24, 24), (8, 24), (24, 8))
    assert images.understanding_sizes == ((16, 16), (4, 16), (16, 4))
    assert bagel.prepare(shapes(), whole=True).understanding_sizes == ((24, 24), (8, 24), (24, 8))
    assert images.to("cpu").target_sizes == images.target_sizes


def test_pictures_are_taken_apart_and_joined_without_their_padding(bagel: Bagel) -> None:
    images = bagel.prepare(shapes())
    apart = [images.picture(row) for row in range(3)]
    assert [tuple(one.target.shape[2:]) for one in apart] == list(images.target_sizes)
    again = VariedImages.joined([apart[2], apart[0]])
    assert again.target_sizes == ((24, 8), (24, 24))
    assert torch.equal(again.target[1], images.target[0])
    assert torch.equal(again.understanding[0, :, :, :4], images.understanding[2, :, :, :4])


# ---- packing ---------------------------------------------------------------------------------------------------


def losses(bagel: Bagel, pictures: list[Image.Image], first: int = 0) -> tuple[LossSum, LossSum]:
    """The reconstruction and image-to-text losses of pictures at stream positions from ``first`` on."""
    images, texts = bagel.prepare(pictures), list(bagel.templates[first : first + len(pictures)])
    dropped = torch.zeros(len(pictures), dtype=torch.bool)
    condition = bagel.condition(bagel.understand(images), texts, dropped)
    draws = KeyedDraws(0, range(first, first + len(pictures)))
    loss = bagel.reconstruction_loss(condition, bagel.encode_target(images), draws)
    return loss, bagel.image_to_text_loss(images, [Dialogue(text, text, row) for row, text in enumerate(texts)])


def test_a_picture_s_loss_does_not_depend_on_pictures_of_other_sizes_beside_it(bagel: Bagel) -> None:
    together = losses(bagel, shapes())
    alone = [losses(bagel, [picture], first) for first, picture in enumerate(shapes())]
    for kind, whole in enumerate(together):
        parts = [part[kind] for part in alone]
        assert sum(part.count.item() for part in parts) == whole.count.item()
        assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-5)
    assert together[0].count.item() == 36 + 12 + 12, "one count per VAE token"


def test_targets_and_conditions_of_a_picture_are_the_same_in_any_company(bagel: Bagel) -> None:
    images = bagel.prepare(shapes())
    target, seen = bagel.encode_target(images), seen_rows(bagel.understand(images))
    for row, picture in enumerate(shapes()):
        alone = bagel.prepare([picture])
        (tokens,) = seen_rows(bagel.understand(alone))
        torch.testing.assert_close(seen[row], tokens, rtol=1e-5, atol=1e-5)
        one = bagel.encode_target(alone)
        assert one.grids == target.grids[row : row + 1]
        torch.testing.assert_close(target.latents[row, : one.latents.shape[1]], one.latents[0], rtol=1e-5, atol=1e-5)
    assert [len(rows) for rows in seen] == [16, 4, 4]


def test_a_picture_that_is_encoded_already_takes_the_same_places(bagel: Bagel) -> None:
    grids, specials = bagel.network.sizes.grids(), bagel.words.specials
    text = bagel.words.item("draw it")
    packs = []
    for items in (
        [Item("vit", pixels=torch.zeros(3, 8, 16)), text, Item("vae", pixels=torch.zeros(3, 16, 24), predict=True)],
        [Item("vit", embedded=8), text, Item("vae", grid=(4, 6), predict=True)],
    ):
        packer = Packer(specials, grids)
        packer.add(items)
        packs.append(packer.pack)
    for name in ("positions", "text_ids", "text_index", "vit_index", "vae_index", "noise_index", "modes", "vae_grids"):
        assert getattr(packs[0], name) == getattr(packs[1], name), name
    assert torch.equal(packs[0].vae_position_ids[0], packs[1].vae_position_ids[0])


def test_a_dropped_instruction_leaves_the_picture_alone(bagel: Bagel) -> None:
    seen = bagel.understand(bagel.prepare(tiny_pictures(1) * 2))
    condition = bagel.condition(seen, [bagel.templates[0]] * 2, torch.tensor([False, True]))
    kept, dropped = condition.rows()
    assert len(dropped) == 16 + 2, "start of image, tokens, end of image"
    assert torch.equal(kept[: len(dropped)], dropped)


def test_all_captions_of_a_batch_may_be_dropped(bagel: Bagel) -> None:
    target = bagel.encode_target(bagel.prepare(tiny_pictures(2)))
    loss = bagel.text_to_image_loss(["a", "b"], target, torch.tensor([True, True]), KeyedDraws(0, [0, 1]))
    assert torch.isfinite(loss.total)


def test_time_and_noise_are_drawn_per_picture(bagel: Bagel) -> None:
    images = bagel.prepare(tiny_pictures(1))
    condition = bagel.condition(bagel.understand(images), [bagel.templates[0]], KEEP)
    target = bagel.encode_target(images)
    first, second, again = (
        bagel.reconstruction_loss(condition, target, KeyedDraws(0, [position])).total.item() for position in (0, 1, 0)
    )
    assert first == again
    assert first != second


# ---- what is frozen --------------------------------------------------------------------------------------------


def test_post_trains_the_generation_experts_alone(bagel: Bagel) -> None:
    names = bagel.trainable_names("post")
    assert {name.split(".")[0] for name in names} == {"language_model", "time_embedder", "vae2llm", "llm2vae"}
    assert all("_moe_gen" in name for name in names if name.startswith("language_model"))
    assert "language_model.model.norm_moe_gen.weight" in names
    assert not any(name.startswith("vae.") for name in bagel.trainable_names("base"))
    assert names < bagel.trainable_names("base")


def gradient(stage: str, detached: bool) -> Tensor:
    model = Bagel.smallest(seed=0)
    names = model.trainable_names(stage)
    for name, parameter in model.network.named_parameters():
        parameter.requires_grad_(name in names or not detached)
    assert model.understanding_is_frozen == (stage == "post" and detached)
    losses(model, tiny_pictures(2))[0].mean().backward()
    grad = model.network.get_parameter("language_model.model.layers.0.self_attn.v_proj_moe_gen.weight").grad
    assert grad is not None
    return grad


def test_a_frozen_understanding_passes_no_gradient_on() -> None:
    frozen, free = gradient("post", detached=True), gradient("base", detached=False)
    assert not torch.allclose(frozen, free, rtol=1e-3), "soi and eoi of the noised block are understanding tokens"
    assert torch.allclose(frozen, free, rtol=0.5, atol=0.5 * float(free.abs().max()))


# ---- drawing ---------------------------------------------------------------------------------------------------


def test_drawings_have_the_configured_side_and_reconstructions_the_picture_s_aspect(bagel: Bagel) -> None:
    (drawn,) = bagel.generate([DrawRequest("a red circle", 0)], SETTINGS)
    assert drawn.size == (16, 16)
    requests = [RedrawRequest(picture, 0, bagel.templates[0]) for picture in shapes()]
    assert [picture.size for picture in bagel.reconstruct(requests, SETTINGS)] == [(24, 24), (24, 8), (8, 24)]
    assert [picture.size for picture in bagel.tokenizer_ceiling(shapes())] == [(24, 24), (24, 8), (8, 24)]
    assert [picture.size for picture in bagel.understanding_view(shapes())] == [(16, 16), (16, 4), (4, 16)]


def test_editing_is_repeatable_and_listens_to_picture_instruction_and_seed(bagel: Bagel) -> None:
    assert isinstance(bagel, EditsImages)
    one, other, _ = shapes()
    requests = [
        EditRequest(one, "make it red", 0),
        EditRequest(one, "make it red", 0),
        EditRequest(one, "make it blue", 0),
        EditRequest(one, "make it red", 1),
        EditRequest(other, "make it red", 0),
    ]
    made = [picture.tobytes() for picture in bagel.edit(requests, SETTINGS)]
    assert made[0] == made[1]
    assert len(set(made)) == 4
    assert [picture.size for picture in bagel.edit(requests[-1:], SETTINGS)] == [(24, 8)]


@pytest.mark.parametrize("renorm", ["global", "channel", "text_channel"])
def test_every_renormalisation_edits_differently_from_none(bagel: Bagel, renorm: str) -> None:
    def edited(plan: DrawingPlan) -> bytes:
        bagel.configuration = replace(bagel.configuration, drawing=plan)
        return next(bagel.edit([EditRequest(shapes()[0], "make it red", 0)], SETTINGS)).tobytes()

    plan = replace(bagel.configuration.drawing, edit_renorm=renorm)
    assert edited(plan) != edited(replace(plan, renorm_minimum=1.0)), "a smallest factor of 1 switches it off"


def test_image_guidance_changes_an_edit(bagel: Bagel) -> None:
    (one,) = bagel.edit([EditRequest(shapes()[0], "make it red", 0)], SETTINGS)
    plan = replace(bagel.configuration.drawing, edit_image_guidance=1.0)
    bagel.configuration = replace(bagel.configuration, drawing=plan)
    (other,) = bagel.edit([EditRequest(shapes()[0], "make it red", 0)], SETTINGS)
    assert one.tobytes() != other.tobytes()


def test_guidance_ends_at_the_lower_bound_of_its_interval_itself(bagel: Bagel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six even times 0.4 is one, and in float32 a little more than 0.4."""
    guided: set[float] = set()
    context, free = Context(), Context()

    def velocity(_: Drawer, asked: Context, pack: Pack, x: Tensor, time: float) -> Tensor:
        if asked is free:
            guided.add(round(time, 6))
        return torch.zeros_like(x)

    monkeypatch.setattr(Drawer, "_velocity", velocity)
    drawer, settings = (
        Drawer(bagel.network, bagel.words.specials),
        FlowSettings(4.0, 1.0, (0.4, 1.0), "global", 0, 6, 1),
    )
    tokens = drawer._canvas((16, 16)).vae_grids[0]
    start = torch.zeros(tokens[0] * tokens[1], bagel.network.llm2vae.out_features)
    drawer.draw(Contexts(context, free, Context()), (16, 16), start, settings)
    assert guided == {1.0, 0.8, 0.6}


def test_a_temperature_is_refused(bagel: Bagel) -> None:
    with pytest.raises(BadInput, match="temperature"):
        next(bagel.generate([DrawRequest("a circle", 0)], SETTINGS.model_copy(update={"temperature": 0.5})))


def test_published_drawing_settings_are_the_defaults() -> None:
    plan = DrawingPlan()
    assert (plan.times, plan.shift, plan.renorm, plan.edit_renorm) == (50, 3.0, "global", "text_channel")
    assert plan.edit_image_guidance == 2.0
    assert PUBLISHED.drawn_side == 1024


# ---- refusals and configuration --------------------------------------------------------------------------------


def test_pictures_without_sizes_and_foreign_targets_are_refused(bagel: Bagel) -> None:
    images = bagel.prepare(tiny_pictures(1))
    with pytest.raises(BadInput, match="prepare"):
        bagel.understand(Images(images.understanding, images.target))
    condition = bagel.condition(bagel.understand(images), [bagel.templates[0]], KEEP)
    with pytest.raises(BadInput, match="encode_target"):
        bagel.reconstruction_loss(condition, Target(latents=torch.zeros(1, 4, 8)), KeyedDraws(0, [0]))
    with pytest.raises(BadInput, match="image_to_text_loss"):
        bagel.text_loss([Dialogue("what is this ?", "a circle", picture=0)])


def test_a_text_cannot_hold_structural_tokens(bagel: Bagel) -> None:
    assert bagel.words.item("a <|vision_start|>circle<|im_end|>") == bagel.words.item("a circle")


def test_settings_survive_the_directory(bagel: Bagel, tmp_path: Path) -> None:
    bagel.configuration = replace(bagel.configuration, drawing=DrawingPlan(times=7), learning_shift=2.0)
    bagel.save(tmp_path)
    assert Bagel.load(tmp_path).configuration.as_json() == bagel.configuration.as_json()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pictures": {"drawn_side": 64}}, "pictures.target"),
        ({"pictures": {"questions": {"shortest": 4, "longest": 2000}}}, "pictures"),
        ({"pictures": {"size": 3}}, "unknown size"),
        ({"drawing": {"steps": 3}}, "unknown steps"),
        ({"latent_patch": "2"}, "latent_patch"),
    ],
)
def test_an_impossible_configuration_is_refused(bagel: Bagel, change: dict, complaint: str) -> None:
    with pytest.raises(CheckpointRefused, match=complaint):
        BagelConfiguration.from_json(bagel.configuration.as_json() | change, "config.json")


# ---- training --------------------------------------------------------------------------------------------------


def bagel_request(root: Path, run: str, losses: LossTerms, **settings: object) -> TrainRequest:
    """Trains on pictures of many aspects."""
    path = root / "bagel"
    if not path.exists():
        Bagel.smallest(seed=0).save(path)
    model = ResolvedModel(name="bagel", family="bagel", path=str(path), sha256=sha256_tree(path))
    changes = {"model": model, "data": varied_pictures(root)}
    return request(root, run, losses, **settings).model_copy(update=changes)


def varied_pictures(root: Path) -> PreparedData:
    folder = root / "varied"
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(tiny_pictures(12)):
        picture.resize((16 + 4 * (number % 5), 16 + 8 * (number % 3))).save(folder / f"{number:03d}.png")
    return prepare(ImageSource(source=str(folder), kind="folder"), Home(root / "home"), lambda _: None, workers=1)


def test_twenty_steps_of_reca_lower_the_loss_and_resume_to_the_bit(tmp_path: Path) -> None:
    plan = {"steps": 20, "learning_rate": 1e-2, "images_per_step": 8}
    straight, broken = (bagel_request(tmp_path, run, ALONE, **plan) for run in ("straight", "broken"))
    result = train(straight)
    assert result.last_losses["train/reconstruction_loss"] < 0.9 * result.first_losses["train/reconstruction_loss"]
    with pytest.raises(Interrupted):
        train(broken, StopAfter(7))
    assert train(broken).resumed_from_step == 7
    assert weights(broken) == weights(straight)


def test_two_processes_train_on_unequal_pictures_as_one_does_sharded_too(tmp_path: Path) -> None:
    """Where layers are sharded, every process must call each equally often, whatever pictures it has."""
    every_term = LossTerms(reconstruction=1, image_to_text=1, text_to_image=1, text=1, unconditional=0.1)
    plan = {"steps": 2, "images_per_step": 5}
    alone = bagel_request(tmp_path, "alone", every_term, **plan)
    both = bagel_request(tmp_path, "both", every_term, processes=2, sharding="shard", images_per_pass=2, **plan)
    train(alone)
    train_on_two(both)
    one, two = (logged(Path(asked.run_directory)) for asked in (alone, both))
    assert len(one) == 2
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, rel=1e-5)
