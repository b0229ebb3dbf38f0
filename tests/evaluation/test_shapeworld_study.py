"""The document on the rendered world holds what is measured: 2,000 scenes, damaged in steps, read and counted."""

from __future__ import annotations

import re

import pytest

from tests.evaluation.shapeworld_study import (
    BEGIN,
    DOCUMENT,
    END,
    FIRST_SEED,
    SCENES,
    STEPS,
    THRESHOLDS,
    Tally,
    measure,
    measured_part,
    replaced,
    shape_distances,
)

SHARE_TOLERANCE = 0.01
"""Libraries round blurred and noisy pixels differently."""
SMALLEST_DISTANCE = 0.5


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.?\d*", text)]


def test_the_document_holds_what_2000_scenes_give_at_every_step_of_damage() -> None:
    written = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]
    measured = measured_part(range(FIRST_SEED, FIRST_SEED + SCENES))
    assert re.sub(r"\d+\.?\d*", "#", written).strip() == re.sub(r"\d+\.?\d*", "#", measured)
    assert numbers(measured) == pytest.approx(numbers(written), rel=SHARE_TOLERANCE, abs=SHARE_TOLERANCE)


@pytest.fixture(scope="module")
def tallies() -> dict[str, Tally]:
    return {step: measure(step, range(300)) for step in STEPS}


def test_clean_pictures_have_no_miss_and_no_false_find(tallies: dict[str, Tally]) -> None:
    clean = tallies["none"]
    assert [(clean.hits(threshold), clean.false_finds(threshold)) for threshold in THRESHOLDS] == [(1, 0), (1, 0)]


@pytest.mark.parametrize("kind", ["noise", "blur", "shift"])
def test_hits_fall_with_damage(tallies: dict[str, Tally], kind: str) -> None:
    hits = [
        tally.hits(threshold) for threshold in THRESHOLDS for step, tally in tallies.items() if step.startswith(kind)
    ]
    half = len(hits) // 2
    assert hits[:half] == sorted(hits[:half], reverse=True)
    assert hits[half:] == sorted(hits[half:], reverse=True)


def test_nothing_false_passes_the_threshold_of_counting(tallies: dict[str, Tally]) -> None:
    assert {step: tally.false_finds(0.9) for step, tally in tallies.items() if tally.false_finds(0.9)} == {}


def test_shuffled_patches_rarely_pass_the_lower_threshold(tallies: dict[str, Tally]) -> None:
    assert tallies["shuffled patches"].false_finds(0.3) < 6


def test_no_two_shapes_are_closer_than_half_of_their_energy() -> None:
    assert min(shape_distances().values()) > SMALLEST_DISTANCE


def test_a_document_without_marks_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="unpack"):
        replaced("no marks here", "part")
