"""What a rank leaves for its agent: the first reason, whichever kind, and nothing where nobody asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import SafetensorError

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.verdict import VERDICT_VARIABLE, leave_verdict, verdict_file


@pytest.mark.parametrize(
    ("error", "status"), [(BadInput("no"), 2), (PrerequisiteMissing("gone"), 3), (OSError(28, "full"), 4)]
)
def test_the_first_reason_stays(error: Exception, status: int) -> None:
    with verdict_file() as verdict:
        assert verdict.status is None
        assert leave_verdict(error)
        assert leave_verdict(SafetensorError("cut short"))
        assert verdict.status == status


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
