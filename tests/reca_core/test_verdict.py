"""What a rank leaves for its agent: the first reason, whichever kind, and nothing where nobody asks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from reca_core import launch
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.verdict import VERDICT_VARIABLE, leave_verdict, verdict, verdict_file


@pytest.mark.parametrize(
    ("error", "status"), [(BadInput("no"), 2), (PrerequisiteMissing("gone"), 3), (OSError(28, "full"), 4)]
)
def test_the_first_reason_stays_and_its_rank_knows(error: Exception, status: int) -> None:
    with verdict_file():
        assert verdict() is None
        assert leave_verdict(error)
        assert leave_verdict(error), "said again, as it is on the way out"
        child = os.fork()
        if not child:
            os._exit(int(leave_verdict(SafetensorError("cut short"))))
        assert os.waitpid(child, 0)[1] == 0, "another rank was not the first"
        assert verdict() == status
    assert verdict() is None


def test_without_an_agent_nothing_is_left() -> None:
    with verdict_file():
        pass
    assert not leave_verdict(BadInput("no"))


def test_a_file_that_cannot_be_written_hides_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VERDICT_VARIABLE, str(tmp_path / "gone" / "verdict"))
    assert not leave_verdict(BadInput("no"))
    assert "not told why" in caplog.text


def test_a_cleaner_of_temporary_folders_does_no_harm() -> None:
    with verdict_file():
        leave_verdict(BadInput("no"))
        shutil.rmtree(Path(os.environ[VERDICT_VARIABLE]).parent)
        assert verdict() is None


def test_a_rank_that_is_started_again_ends_as_the_first_one_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "die_with_parent", lambda: None)
    monkeypatch.setenv("RANK", "1")
    with verdict_file():
        leave_verdict(PrerequisiteMissing("gone"))
        assert launch.main(["train", "nowhere.json"]) == 3
