"""Numbers and intervals: means of group means, prompts resampled as wholes, the same draws everywhere."""

from __future__ import annotations

import math
import random

import pytest

from evaluation.aggregate import draw_counts, point_value, score_row
from evaluation.benchmark import Group, RowData

RESAMPLES = 4000


def group(name: str, values: list[float], per_prompt: int = 1) -> Group:
    """Values in prompt order, ``per_prompt`` of them each."""
    return Group(name, tuple(f"p{i // per_prompt}" for i in range(len(values))), tuple(values))


def row(*groups: Group, scale: float = 1.0, decimals: int | None = None) -> RowData:
    count = sum(len(part.values) for part in groups)
    return RowData(groups, count, count, scale, decimals)


def test_the_value_is_the_unweighted_mean_of_group_means_times_scale() -> None:
    assert point_value(row(group("a", [1, 1, 1, 0]), group("b", [0]), scale=100)) == 37.5


def test_rounding_happens_per_group_and_not_to_the_mean_of_groups() -> None:
    assert point_value(row(group("a", [1, 2, 2]), group("b", [1, 1, 2]), decimals=2)) == (1.67 + 1.33) / 2


def test_an_empty_group_leaves_the_row_without_a_number() -> None:
    scored = score_row(RowData((group("a", [1.0]), group("b", [])), n_scored=1, n_expected=3))
    assert (scored.value, scored.low, scored.high) == (None, None, None)
    assert (scored.n_scored, scored.n_expected) == (1, 3)


def test_one_prompt_has_a_value_but_no_interval() -> None:
    scored = score_row(row(group("a", [0.0, 1.0], per_prompt=2)))
    assert (scored.value, scored.low, scored.high) == (0.5, None, None)


def test_copies_of_pictures_do_not_narrow_the_interval() -> None:
    values = [float(i % 3 == 0) for i in range(60)]
    once = score_row(row(group("tag", values)), RESAMPLES)
    often = score_row(row(group("tag", [value for value in values for _ in range(8)], per_prompt=8)), RESAMPLES)
    assert (once.low, once.high) == pytest.approx((often.low, often.high), abs=1e-12)


def test_the_interval_is_that_of_the_normal_approximation_for_many_prompts() -> None:
    source = random.Random(5)
    values = [source.gauss(3.0, 1.0) for _ in range(900)]
    scored = score_row(row(group("tag", values)), RESAMPLES)
    mean = sum(values) / len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
    assert scored.low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert scored.high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)


def test_groups_are_resampled_separately_so_none_can_come_out_empty() -> None:
    scored = score_row(row(group("a", [1.0] * 30), group("b", [0.0, 0.0])), RESAMPLES)
    assert (scored.value, scored.low, scored.high) == (0.5, 0.5, 0.5)


def test_draws_depend_on_seed_and_group_only() -> None:
    draws = draw_counts("tag", 7, 50, seed=3)
    assert (draws == draw_counts("tag", 7, 50, seed=3)).all()
    assert (draws != draw_counts("tag", 7, 50, seed=4)).any()
    assert (draws != draw_counts("other", 7, 50, seed=3)).any()
    assert (draws.sum(axis=1) == 7).all()


def test_a_weighted_mean_is_a_ratio_of_sums_and_equal_weights_change_nothing() -> None:
    clusters, values = ("a", "a", "b", "c"), (1.0, 0.0, 1.0, 1.0)
    plain, equal = Group("g", clusters, values), Group("g", clusters, values, (1.0,) * 4)
    rows = [RowData((group,), 4, 4) for group in (plain, equal, Group("g", clusters, values, (2.0, 1.0, 1.0, 0.0)))]
    first, second, ratio = (score_row(row, resamples=300) for row in rows)
    assert first == second
    assert ratio.value == 0.75


def test_without_any_weight_there_is_no_number_and_resamples_without_any_are_left_out() -> None:
    clusters = tuple("abcdefgh")
    none = Group("g", clusters, (1.0,) * 8, (0.0,) * 8)
    assert score_row(RowData((none,), 8, 8), resamples=300).value is None
    rare = Group("g", clusters, (1.0,) * 8, (1.0,) + (0.0,) * 7)
    found = score_row(RowData((rare,), 8, 8), resamples=300)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
