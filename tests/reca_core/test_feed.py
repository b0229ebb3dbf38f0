"""The stream of samples: no picture lost or repeated within an epoch, the same on any split, one number of state."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from reca_core.contracts.errors import BadInput
from reca_core.data.feed import Order, Pictures, Prefetch, Share, Split, keyed_choice, keyed_fraction
from reca_core.data.images import PictureChanged
from reca_core.data.manifest import read_manifest
from reca_core.models.unified import Images
from tests.reca_core.training_rig import write_pictures


def test_every_epoch_holds_every_picture_once_and_has_its_own_order() -> None:
    order = Order(rows=10, seed=3, name="images")
    epochs = [[order.row(position) for position in range(10 * epoch, 10 * epoch + 10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_seed_and_position_only() -> None:
    forwards = [Order(7, 1, "images").row(position) for position in range(40)]
    order = Order(7, 1, "images")
    backwards = [order.row(position) for position in reversed(range(40))]
    assert forwards == backwards[::-1]
    assert forwards != [Order(7, 2, "images").row(position) for position in range(40)]


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(BadInput, match="not one usable picture"):
        Order(0, 0, "images")


@pytest.mark.parametrize(
    ("images", "per_pass", "world"), [(8, 0, 1), (8, 3, 1), (7, 0, 2), (7, 2, 3), (5, 1, 4), (3, 1, 2), (64, 5, 3)]
)
def test_ranks_and_passes_divide_a_step_without_loss_or_repeat(images: int, per_pass: int, world: int) -> None:
    for step in (0, 5):
        shares = [Split(images, per_pass, world, rank).shares(step) for rank in range(world)]
        positions = [place for passes in shares for share in passes if share.weight for place in share.positions]
        assert sorted(positions) == list(range(step * images, (step + 1) * images))
        assert len({len(passes) for passes in shares}) == 1, "ranks must take part in the same number of passes"
        assert all(len(share.positions) <= (per_pass or images) for share in itertools.chain(*shares))


def test_a_rank_with_nothing_left_runs_one_sample_for_nothing() -> None:
    assert Split(3, 1, world=2, rank=1).shares(0) == [Share((1,), 1.0), Share((0,), 0.0)]


def test_keyed_choices_are_uniform_and_belong_to_their_position() -> None:
    numbers = [keyed_fraction(0, "drop", position) for position in range(4000)]
    assert all(0 <= number < 1 for number in numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.02
    assert {keyed_choice("abc", 0, "template", position) for position in range(50)} == set("abc")
    assert keyed_fraction(0, "drop", 7) == numbers[7]
    assert keyed_fraction(0, "other", 7) != numbers[7]


def prepare(pictures, whole: bool = False) -> Images:
    """Means of the pictures, small and different per picture; counts its calls."""
    prepare.calls += len(pictures)
    values = torch.tensor([list(picture.resize((1, 1)).getpixel((0, 0))) for picture in pictures]).float()
    return Images(values.reshape(-1, 3, 1, 1), values.reshape(-1, 3, 1, 1) / 255)


prepare.calls = 0


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_pictures_come_in_the_order_asked_for_cached_or_not(tmp_path: Path, cache_bytes: int) -> None:
    data = write_pictures(tmp_path, 6)
    rows = read_manifest(Path(data.directory))
    pictures = Pictures(rows, prepare, cache_bytes)
    prepare.calls = 0
    single = [pictures.images([row]).understanding for row in range(6)]
    wanted = [4, 0, 4, 5, 1]
    assert torch.equal(pictures.images(wanted).understanding, torch.cat([single[row] for row in wanted]))
    assert prepare.calls == (6 if cache_bytes else 6 + 4), "a cached picture is decoded once"


def test_a_changed_picture_file_is_noticed(tmp_path: Path) -> None:
    data = write_pictures(tmp_path, 2)
    rows = read_manifest(Path(data.directory))
    Path(rows[1].file).write_bytes(Path(rows[0].file).read_bytes())
    with pytest.raises(PictureChanged, match="changed after it was prepared"):
        Pictures(rows, prepare).images([0, 1])


def test_prefetch_keeps_the_order_whatever_its_workers() -> None:
    assert list(Prefetch(lambda step: step * step, 3, 40, workers=4)) == [step * step for step in range(3, 40)]


def test_what_building_a_step_raises_is_raised_at_that_step() -> None:
    def build(step: int) -> int:
        if step == 5:
            raise BadInput("step five")
        return step

    steps = iter(Prefetch(build, 0, 10, workers=2))
    assert [next(steps) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(BadInput, match="step five"):
        next(steps)
