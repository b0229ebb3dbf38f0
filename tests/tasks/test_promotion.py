"""The rule: better beyond its interval, nothing else worse beyond the limit, and every refusal says why."""

from __future__ import annotations

import pytest

from evaluation.records import Comparison, DeltaRow
from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import EvaluationPlan, VersionChoice
from reca_core.contracts.versions import Promotion
from tasks.promotion import verdict
from tasks.results import Compared
from tasks.validate import faults
from tests.tasks.rig import BENCHMARK, JUDGE, compared

RULE = Promotion(decide="by_rule", largest_fall_percent=10.0)


def row(base: float | None, trained: float | None, low: float | None = None, high: float | None = None) -> DeltaRow:
    delta = None if base is None or trained is None else trained - base
    return DeltaRow(base=base, trained=trained, delta=delta, low=low, high=high, n=40)


def pair(**rows: DeltaRow) -> Compared:
    comparison = Comparison(benchmark=BENCHMARK, arithmetic="corrected", judge=JUDGE, n_prompts=40, rows=rows)
    return compared().model_copy(update={"comparison": comparison})


def test_better_beyond_its_interval_and_nothing_worse_is_promoted_with_the_numbers_as_reasons() -> None:
    said = verdict([pair(overall=row(0.5, 0.6, 0.02, 0.18), colors=row(0.5, 0.46))], RULE)
    assert said.promote
    assert "+0.100, 95% interval +0.020 to +0.180" in said.reasons[0]


@pytest.mark.parametrize("ends", [(-0.01, 0.21), (0.0, 0.2), (None, None), (-0.3, -0.1)])
def test_an_interval_that_reaches_zero_or_is_missing_refuses(ends: tuple[float | None, float | None]) -> None:
    said = verdict([pair(overall=row(0.5, 0.6, *ends))], RULE)
    assert not said.promote
    assert said.reasons[0].startswith(f"{BENCHMARK}/overall changes by")


def test_any_other_number_that_falls_beyond_the_limit_refuses_and_is_named() -> None:
    first = pair(overall=row(0.5, 0.6, 0.02, 0.18), position=row(0.50, 0.44, -0.2, 0.1))
    said = verdict([first], RULE)
    assert not said.promote
    assert said.reasons == [f"{BENCHMARK}/position falls from 0.500 to 0.440, by 12.0%; 10% is allowed"]
    assert verdict([first], RULE.model_copy(update={"largest_fall_percent": 12.5})).promote


def test_the_limit_is_relative_so_that_it_means_the_same_on_every_scale() -> None:
    big = pair(overall=row(50.0, 60.0, 2.0, 18.0), position=row(80.0, 79.0))
    assert verdict([big], RULE).promote


def test_a_number_scored_on_one_side_only_refuses_and_one_scored_on_neither_does_not() -> None:
    better = row(0.5, 0.6, 0.02, 0.18)
    assert verdict([pair(overall=better, counting=row(None, 0.3))], RULE).reasons == [
        f"{BENCHMARK}/counting is scored on one side only"
    ]
    assert verdict([pair(overall=better, counting=row(None, None))], RULE).promote


def test_what_cannot_be_compared_refuses_with_the_reason() -> None:
    said = verdict([compared(refusal="the two sides differ in judge")], RULE)
    assert not said.promote
    assert "differ in judge" in said.reasons[0]


def test_the_deciding_number_may_be_chosen_and_one_that_is_not_measured_is_refused_with_the_choices() -> None:
    one = pair(overall=row(0.5, 0.5, -0.1, 0.1), images=row(0.4, 0.6, 0.1, 0.3))
    assert not verdict([one], RULE).promote
    assert verdict([one], RULE.model_copy(update={"metric": f"{BENCHMARK}/images"})).promote
    with pytest.raises(BadInput) as caught:
        verdict([one], RULE.model_copy(update={"metric": f"{BENCHMARK}/image"}))
    assert f"{BENCHMARK}/images" in caught.value.choices


def test_how_often_a_model_says_yes_is_neither_better_nor_worse() -> None:
    said = verdict([pair(overall=row(0.5, 0.6, 0.02, 0.18), adversarial_yes_ratio=row(0.9, 0.5))], RULE)
    assert said.promote


def test_a_rule_about_what_is_not_measured_is_refused_before_anything_starts() -> None:
    def fields(versions: VersionChoice, rule: Promotion) -> list[str]:
        return [fault.field for fault in faults(versions, rule, EvaluationPlan())]

    both = VersionChoice()
    assert fields(both, RULE) == []
    assert fields(VersionChoice(aliases=["champion"]), RULE) == ["promotion.challenger"]
    assert fields(VersionChoice(aliases=["champion"]), Promotion()) == []
    assert fields(VersionChoice(aliases=[]), Promotion()) == ["versions.aliases"]
    assert fields(VersionChoice(aliases=[], numbers=["3"]), Promotion()) == []
    assert fields(both, RULE.model_copy(update={"metric": "dpg/overall"})) == ["promotion.metric"]
    assert fields(both, RULE.model_copy(update={"challenger": "champion"})) == ["promotion.challenger"]
