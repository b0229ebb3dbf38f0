"""Only what another attempt can mend is tried again."""

from __future__ import annotations

import pytest
from prefect import Task
from prefect.states import Failed

from reca_core.contracts.errors import BadInput, CheckpointRefused, PrerequisiteMissing, RunLocked, StageFailed
from tasks.policies import ATTEMPTS_VARIABLE, attempts, may_retry
from tasks.processes import ChildKilled
from tasks.train import train


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ChildKilled("out of memory"), True),
        (ConnectionError("MLflow is away"), True),
        (BadInput("x"), False),
        (PrerequisiteMissing("x"), False),
        (CheckpointRefused("x"), False),
        (RunLocked("x"), False),
        (StageFailed("the child said why"), False),
        (ValueError("a fault in this code"), False),
    ],
)
def test_which_errors_are_tried_again(error: Exception, again: bool) -> None:
    assert isinstance(train, Task)
    assert may_retry(train, None, Failed(data=error)) is again  # type: ignore[arg-type]


def test_a_stage_is_started_once_unless_the_deployment_asks_for_more() -> None:
    assert attempts({}) == 1
    assert attempts({ATTEMPTS_VARIABLE: "3"}) == 3


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_a_wrong_number_of_attempts_is_refused(value: str) -> None:
    with pytest.raises(BadInput, match=ATTEMPTS_VARIABLE):
        attempts({ATTEMPTS_VARIABLE: value})


def test_no_verb_keeps_its_result_in_prefect() -> None:
    assert train.persist_result is False
    assert train.cache_policy is not None
    assert train.cache_policy.compute_key(None, {}, {}) is None  # type: ignore[arg-type]
