"""Pictures are decoded in helpers before they are asked for: same results, nothing piles up, a lost helper says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from evaluation import runner
from evaluation.benchmark import JudgeTask
from evaluation.helpers import Ahead
from evaluation.judges.shapeworld import ShapeworldJudge
from evaluation.records import Reply
from reca_core.contracts.errors import StageFailed
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.drawn import draw_samples, request_for


def own_pid(item: int) -> tuple[int, int]:
    return item, os.getpid()


def test_helpers_give_what_this_process_would_and_nothing_unasked_for_piles_up() -> None:
    ahead = Ahead(own_pid, 1)
    ahead.expect([1, 2, 3])
    found = ahead.results([2, 9, 2])
    assert [item for item, _ in found] == [2, 9, 2]
    assert len({pid for _, pid in found}) == 1
    assert found[0][1] != os.getpid()
    ahead.expect([4])
    assert set(ahead._begun) == {1, 3, 4}
    ahead.expect([5])
    assert set(ahead._begun) == {4, 5}
    os.kill(found[0][1], signal.SIGTERM)  # a request to stop is the parent's business
    assert [item for item, _ in ahead.results([4, 5])] == [4, 5]
    os.kill(found[0][1], signal.SIGKILL)
    with pytest.raises(StageFailed, match="was ended from outside"):
        ahead.results(range(1000))
    ahead.close()
    assert Ahead(own_pid, 0).results([7]) == [(7, os.getpid())]


class Looking(ShapeworldJudge):
    """Writes down what it was told to expect before it was asked."""

    batch_size = 4
    expected: list[list[Path]] = []
    asked: list[Path] = []

    def look_ahead(self, pictures: Sequence[Path]) -> None:
        self.expected.append(list(pictures))

    def answer(self, tasks: Sequence[JudgeTask]) -> Sequence[Reply]:
        self.asked += [task.picture for task in tasks if task.question.key == "objects"]
        return super().answer(tasks)


def test_a_judging_with_helpers_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = tmp_path / "samples"
    draw_samples(samples, scene_seed=3)
    broken = sorted(samples.rglob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:50])
    runner.main(request_for(samples, tmp_path / "plain"))
    monkeypatch.setattr(runner, "open_judge", lambda *given: Looking())
    request = request_for(samples, tmp_path / "helped")
    runner.main(request.model_copy(update={"judge": JudgeSettings(decoding_processes=1)}))
    for name in ("scores.json", "judgments.jsonl"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "helped" / name).read_bytes()
    announced = [path for pictures in Looking.expected for path in pictures]
    assert announced[-1] == Looking.asked[-1]
    assert len(announced) == len(set(announced)) == len(list(samples.rglob("*.png"))) - Looking.batch_size
