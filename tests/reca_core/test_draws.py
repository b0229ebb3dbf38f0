"""Keyed draws: the same for a sample whatever it is drawn with, and different between samples, names and seeds."""

from __future__ import annotations

import pytest
import torch

from reca_core.draws import KeyedDraws, picture_stream


@pytest.mark.parametrize("kind", ["uniform", "normal", "exponential"])
def test_a_sample_s_draw_does_not_depend_on_its_batch(kind: str) -> None:
    together = getattr(KeyedDraws(7, [3, 10_000_000_000, 5]), kind)("noise", 4, 2)
    alone = getattr(KeyedDraws(7, [5]), kind)("noise", 4, 2)
    assert together.shape == (3, 4, 2)
    assert torch.equal(together[2], alone[0])


def test_seed_name_and_position_each_change_the_draw() -> None:
    draws = [KeyedDraws(0, [0]).normal("a", 8), KeyedDraws(1, [0]).normal("a", 8)]
    draws += [KeyedDraws(0, [1]).normal("a", 8), KeyedDraws(0, [0]).normal("b", 8)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)


def test_a_stream_goes_on_and_begins_with_the_single_draw() -> None:
    draws = KeyedDraws(0, [1, 2])
    stream = draws.stream("steps")
    first, second = stream.exponential(5), stream.exponential(5)
    assert torch.equal(first, draws.exponential("steps", 5))
    assert not torch.equal(first, second)


def test_draws_leave_torch_s_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    KeyedDraws(0, range(3)).normal("a", 4)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_picture_s_draws_depend_on_its_text_and_seed_only() -> None:
    several = picture_stream([("a cat", 1), ("a dog", 1), ("a cat", 2)], "tokens").exponential(6)
    (alone,) = picture_stream([("a dog", 1)], "tokens").exponential(6)
    assert torch.equal(several[1], alone)
    assert len({tuple(row.tolist()) for row in several}) == 3


def test_exponential_draws_have_mean_and_variance_one() -> None:
    draws = KeyedDraws(0, range(64)).exponential("e", 500)
    assert draws.min() >= 0
    assert draws.mean().item() == pytest.approx(1, abs=0.03)
    assert draws.var().item() == pytest.approx(1, abs=0.1)
