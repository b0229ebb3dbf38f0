"""A study's numbers: paired over trainings and prompts, and judged by rules that cannot call a gap a result."""

from __future__ import annotations

import random
from typing import Any

import pytest

from evaluation.compare import ComparisonRefused, Measurement, compare
from evaluation.records import Scored
from evaluation.study import StudyRow, distributions
from evaluation.study_claims import BASE, CLAIMS, DENSE, DRAWS, RECA, UNDERSTANDS, verdicts
from tests.evaluation.test_compare import half, measured, measurement

REPETITIONS, RESAMPLES = 3, 400
REPORTING, LATER, TUNING = 1000, 1010, 7
"""First training seeds: of the first study, of one after it, of none that reports."""


def noisy(share: float, seed: int) -> Measurement:
    """About ``share`` of the pictures are right, which ones depends on ``seed``."""
    draws = random.Random(seed)
    return measurement(lambda prompt, picture: draws.random() < share)


def width(row: StudyRow) -> float:
    assert row.low is not None
    assert row.high is not None
    return row.high - row.low


def test_one_training_has_the_interval_of_a_comparison() -> None:
    base, trained = noisy(0.4, 1), noisy(0.6, 2)
    first, second = (distributions([side], 1, RESAMPLES) for side in (base, trained))
    gain = (second["overall"] - first["overall"]).row()
    expected = compare(base, trained, RESAMPLES).rows["overall"]
    assert (gain.value, gain.low, gain.high) == (expected.delta, expected.low, expected.high)


def test_an_arm_differs_from_itself_by_nothing() -> None:
    arm = distributions([noisy(0.5, seed) for seed in range(REPETITIONS)], REPETITIONS, RESAMPLES)
    gain = (arm["overall"] - arm["overall"]).row()
    assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)
    assert gain.n_seeds == REPETITIONS


def test_trainings_that_disagree_widen_the_interval() -> None:
    alike = distributions([noisy(0.5, seed) for seed in range(REPETITIONS)], REPETITIONS, RESAMPLES)
    apart = distributions([noisy(share, 7) for share in (0.2, 0.5, 0.8)], REPETITIONS, RESAMPLES)
    assert width(apart["overall"].row()) > 2 * width(alike["overall"].row())


def test_trainings_measured_on_other_prompts_are_refused() -> None:
    with pytest.raises(ComparisonRefused, match="prompts_sha256"):
        distributions([measurement(half), measurement(half, prompts_sha256="b" * 64)], 2)


def test_a_training_without_a_score_leaves_the_arm_without_a_value() -> None:
    whole = measurement(half)
    lost = [judgment for judgment in whole.judgments if judgment.tag != "counting"]
    assert all(isinstance(judgment.outcome, Scored) for judgment in lost)
    with pytest.raises(ComparisonRefused):
        distributions([whole, measured(lost)], 2)


def arms(shares: dict[str, float]) -> dict[str, dict[str, dict]]:
    """Arms whose drawing and answering are right so often."""
    return {
        name: {
            DRAWS: distributions([noisy(share, seed) for seed in range(REPETITIONS)], REPETITIONS, RESAMPLES),
            UNDERSTANDS: {
                "exact_match": distributions([noisy(share, seed) for seed in range(9, 12)], REPETITIONS, RESAMPLES)[
                    "overall"
                ]
            },
        }
        for name, share in shares.items()
    }


def test_a_clear_gain_is_shown_a_clear_loss_refuted_and_chance_left_open() -> None:
    def first(base: float, reca: float) -> str:
        return next(iter(verdicts(arms({BASE: base, RECA: reca}), REPORTING))).verdict

    assert [first(0.3, 0.7), first(0.7, 0.3), first(0.5, 0.5)] == ["shown", "refuted", "open"]


def test_claims_about_arms_that_were_not_trained_are_not_tested() -> None:
    found = {verdict.letter: verdict for verdict in verdicts(arms({BASE: 0.5, RECA: 0.5}), REPORTING)}
    assert set(found) == {claim.letter for claim in CLAIMS}
    assert found["d"].verdict == found["f"].verdict == "not tested"
    assert found["d"].measured is None


def test_understanding_counts_as_kept_only_if_a_loss_beyond_the_margin_is_excluded() -> None:
    kept = {verdict.letter: verdict for verdict in verdicts(arms({BASE: 0.8, RECA: 0.4}), REPORTING)}["e"]
    assert kept.verdict == "refuted"


def test_dense_prompts_have_claims_of_their_own() -> None:
    def dense(share: float, counts: float) -> dict[str, dict]:
        def number(of: float) -> Any:
            return distributions([noisy(of, seed) for seed in range(REPETITIONS)], REPETITIONS, RESAMPLES)["overall"]

        rows = {"overall": share, "l1/attribute": share, "l1/relation": share, "l1/other": counts}
        return {DENSE: {row: number(of) for row, of in rows.items()}}

    found = {verdict.letter: verdict for verdict in verdicts({BASE: dense(0.3, 0.5), RECA: dense(0.7, 0.5)}, LATER)}
    assert [found[f"{letter}, dense"].verdict for letter in "acd"] == ["shown", "shown", "not tested"]
    assert found["a"].verdict == "not tested"
    equal = {verdict.letter: verdict for verdict in verdicts({BASE: dense(0.3, 0.3), RECA: dense(0.7, 0.7)}, LATER)}
    assert equal["c, dense"].verdict == "open"
    raised = {
        verdict.letter: verdict for verdict in verdicts({BASE: dense(0.3, 0.5), RECA: dense(0.7, 0.5)}, REPORTING)
    }
    assert raised["a, dense"].verdict == "not judged"
    assert raised["a, dense"].measured == found["a, dense"].measured


def test_tuning_seeds_judge_nothing() -> None:
    found = list(verdicts(arms({BASE: 0.3, RECA: 0.7}), TUNING))
    assert {verdict.verdict for verdict in found} == {"not judged", "not tested"}
    assert all(verdict.measured for verdict in found if verdict.verdict == "not judged")
