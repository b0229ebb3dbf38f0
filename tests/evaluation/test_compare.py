"""A comparison is paired, and refuses whatever is not the same measurement on both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation import runner
from evaluation.aggregate import score_rows
from evaluation.benchmarks.geneval import summary
from evaluation.benchmarks.geneval.requirement import TAGS
from evaluation.compare import ComparisonRefused, Measurement, compare, compare_directories
from evaluation.records import JudgeIdentity, Judgment, Scored, ScoreTable, Unscored
from reca_core.contracts.errors import EXIT_INCOMPLETE, StageFailed
from tests.evaluation.drawn import draw_samples, request_for

SEEDS = [1000, 1001]
PROMPTS_PER_TAG = 20


def measurement(correct: Callable[[int, int], bool], **changes: object) -> Measurement:
    """A GenEval table of six tags; ``correct`` says which (prompt, seed) is right."""
    judgments = [
        Judgment(
            id=f"{prompt:05d}/{seed}",
            prompt_id=f"{prompt:05d}",
            seed=seed,
            tag=TAGS[prompt % len(TAGS)],
            outcome=Scored(values={"correct": float(correct(prompt, seed))}),
        )
        for prompt in range(PROMPTS_PER_TAG * len(TAGS))
        for seed in SEEDS
    ]
    return measured(judgments, **changes)


def measured(judgments: list[Judgment], **changes: object) -> Measurement:
    table = ScoreTable(
        benchmark="geneval.shapeworld",
        arithmetic="corrected",
        judge=JudgeIdentity(name="shapeworld"),
        prompts_sha256="a" * 64,
        seeds=SEEDS,
        rows=score_rows(summary.rows(judgments, "corrected"), 200),
    )
    return Measurement(table.model_copy(update=changes), judgments)


def half(prompt: int, seed: int) -> bool:
    return (prompt // len(TAGS)) % 2 == 0


def test_equal_sides_differ_by_nothing_with_no_uncertainty() -> None:
    comparison = compare(measurement(half), measurement(half))
    assert all((row.delta, row.low, row.high) == (0.0, 0.0, 0.0) for row in comparison.rows.values())
    assert comparison.n_prompts == PROMPTS_PER_TAG * len(TAGS)


def test_pairing_removes_what_makes_prompts_hard() -> None:
    """The trained side gains one of two pictures of every prompt that was wrong: certain, though tables overlap."""
    base, trained = measurement(half), measurement(lambda prompt, seed: half(prompt, seed) or seed == SEEDS[0])
    row = compare(base, trained).rows["overall"]
    assert (row.base, row.trained, row.delta) == pytest.approx((0.5, 0.75, 0.25))
    assert row.n == len(base.judgments)
    assert row.low is not None
    assert row.high is not None
    assert row.low > 0.18
    assert row.high < 0.32
    unpaired_width = sum(
        table.rows["overall"].high - table.rows["overall"].low for table in (base.table, trained.table)
    )  # type: ignore[operator]
    assert row.high - row.low < unpaired_width / 2


def test_rows_of_the_tables_and_of_the_comparison_agree() -> None:
    base, trained = measurement(half), measurement(lambda prompt, seed: prompt % 3 == 0)
    comparison = compare(base, trained)
    assert list(comparison.rows) == list(base.table.rows)
    for name, row in comparison.rows.items():
        assert (row.base, row.trained) == (base.table.rows[name].value, trained.table.rows[name].value)


@pytest.mark.parametrize(
    "changes",
    [
        {"benchmark": "geneval"},
        {"arithmetic": "parity"},
        {"judge": JudgeIdentity(name="shapeworld", settings={"reader_version": "2"})},
        {"prompts_sha256": "b" * 64},
        {"seeds": [0, 1]},
    ],
)
def test_different_measurements_are_refused_by_the_name_of_what_differs(changes: dict[str, object]) -> None:
    (name,) = changes
    with pytest.raises(ComparisonRefused, match=f"differ in {name}") as refusal:
        compare(measurement(half), measurement(half, **changes))
    assert refusal.value.exit_code == EXIT_INCOMPLETE
    assert refusal.value.remedy


def test_unequal_coverage_is_refused_and_names_the_pictures() -> None:
    base = measurement(half)
    lost = base.judgments[0].model_copy(update={"outcome": Unscored(reason="the picture is missing")})
    with pytest.raises(ComparisonRefused, match=f"have a score.*{base.judgments[0].id}"):
        compare(base, measured([lost, *base.judgments[1:]]))
    with pytest.raises(ComparisonRefused, match=f"were judged.*{base.judgments[0].id}"):
        compare(base, measured(list(base.judgments[1:])))


def test_equal_coverage_is_compared_even_if_something_is_unscored() -> None:
    base = measurement(half)
    lost = base.judgments[0].model_copy(update={"outcome": Unscored(reason="the picture is missing")})
    side = measured([lost, *base.judgments[1:]])
    assert compare(side, side).rows["overall"].n == len(base.judgments) - 1


def test_two_judged_directories_are_compared_in_either_arithmetic(tmp_path: Path) -> None:
    sides = []
    for name, faithful in (("base", False), ("trained", True)):
        samples, output = tmp_path / name / "samples", tmp_path / name / "answers"
        draw_samples(samples, scene_seed=3, faithful=faithful)
        runner.main(request_for(samples, output))
        sides.append(output)
    for arithmetic in ("corrected", "parity"):
        comparison = compare_directories(sides[0], sides[1], arithmetic, resamples=200)
        assert comparison.arithmetic == arithmetic
        assert comparison.rows["overall"].trained == 1.0
        assert (comparison.rows["overall"].delta or 0) > 0
    with pytest.raises(StageFailed, match="no finished judging"):
        compare_directories(sides[0], tmp_path)
