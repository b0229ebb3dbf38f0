"""How a flow's end becomes the command's: an outcome, one of our errors, or a failed stage with its traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.context import Context
from deployments.environment import Wishes, decide
from deployments.start import api, outcome_of
from deployments.terminal import Terminal
from reca_core.contracts.errors import BadInput, PrerequisiteMissing, StageFailed
from reca_core.contracts.records import Outcome


def test_an_outcome_is_returned_and_our_own_error_raised_as_it_is() -> None:
    outcome = Outcome(flow="prepare", exit_status=0, run_directory="/x")
    assert outcome_of(outcome, Terminal()) is outcome
    ours = BadInput("a fact")
    with pytest.raises(BadInput) as caught:
        outcome_of(ours, Terminal())
    assert caught.value is ours


def test_any_other_exception_is_a_failed_stage_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageFailed, match="unexpected ZeroDivisionError: by nothing"):
        outcome_of(ZeroDivisionError("by nothing"), Terminal())
    assert "ZeroDivisionError: by nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wishes", [Wishes(prefect_url="http://127.0.0.1:9/api"), Wishes(mlflow_uri="http://127.0.0.1:9")]
)
def test_a_server_that_was_asked_for_and_does_not_answer_is_a_missing_prerequisite(
    tmp_path: Path, wishes: Wishes
) -> None:
    context = Context(Terminal(), decide(wishes, {}, tmp_path), tmp_path)
    with pytest.raises(PrerequisiteMissing, match="does not answer"), api(context):
        pass
