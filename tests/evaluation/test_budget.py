"""What a judging may spend is kept on disk before it is spent, so that a kill makes nothing free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.judges.budget import Budget, Usage
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.judging import JudgeSettings

CONTENT: list[dict[str, Any]] = [{"type": "text", "text": "x" * 600}]
PRICES: dict[str, float] = {"dollars_per_million_input_tokens": 1e4, "dollars_per_million_output_tokens": 1e5}
UPPER_DOLLARS = 600 * 1e-2 + 10 * 1e-1


def test_a_request_that_a_kill_interrupted_counts(tmp_path: Path) -> None:
    settings = JudgeSettings(max_requests=3)
    killed = Budget(settings, tmp_path)
    assert [killed.reserve(CONTENT, 10) for _ in range(2)] == [0.0, 0.0]
    after = Budget(settings, tmp_path)
    assert after.requests == 2
    after.reserve(CONTENT, 10)
    with pytest.raises(StageFailed, match="3 requests were made"):
        after.reserve(CONTENT, 10)


def test_its_dollars_count_as_expected_and_those_of_ended_ones_as_charged(tmp_path: Path) -> None:
    settings = JudgeSettings(max_cost_dollars=100.0, **PRICES)
    killed = Budget(settings, tmp_path)
    first = killed.reserve(CONTENT, 10)
    assert first is not None
    assert first == pytest.approx(UPPER_DOLLARS)
    killed.settle(first, Usage(100, 10))
    assert killed.reserve(CONTENT, 10) == pytest.approx(UPPER_DOLLARS)
    assert Budget(settings, tmp_path).dollars == pytest.approx(2.0 + UPPER_DOLLARS)


def test_what_is_left_after_all_have_ended_is_what_was_charged(tmp_path: Path) -> None:
    settings = JudgeSettings(max_cost_dollars=100.0, **PRICES)
    spent = Budget(settings, tmp_path)
    for _ in range(3):
        reserved = spent.reserve(CONTENT, 10)
        assert reserved is not None
        spent.settle(reserved, Usage(100, 10))
    spent.save()
    assert Budget(settings, tmp_path).dollars == pytest.approx(6.0)
