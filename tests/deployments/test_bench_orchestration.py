"""The cost of orchestration: how it is reckoned, and that the hand really does what the flow did."""

from __future__ import annotations

from pathlib import Path

from deployments.bench_orchestration import SCENES, Pair, figures, one_pair
from reca_core.contracts.files import read_jsonl


def test_the_figures_are_medians_of_what_was_added() -> None:
    pairs = [Pair(20.0 + noise, 14.0, 6, 5.0) for noise in (0.0, 6.0, 100.0)]
    found = {figure.what: figure.value for figure in figures(pairs, 9.0)}
    assert found["flow minus by hand, per stage"] == 2.0
    assert found["flow minus by hand, of a run of an hour"] == 100 * 12 / 3600
    assert found["start with an embedded server"] == 9.0


def test_by_hand_the_same_child_makes_the_same(tmp_path: Path) -> None:
    home, hand = tmp_path / "home", tmp_path / "hand"
    pair = one_pair(home, hand, 0, (), flow="prepare")
    assert pair.stages == 1
    assert pair.hand_seconds > 0
    (made,) = (file for file in home.glob("data/*/manifest.jsonl"))
    (again,) = (file for file in hand.glob("data/*/manifest.jsonl"))
    assert made.parent.name == again.parent.name
    digests = [[row["sha256"] for row in read_jsonl(file)] for file in (made, again)]
    assert digests[0] == digests[1]
    assert len(digests[0]) == SCENES
