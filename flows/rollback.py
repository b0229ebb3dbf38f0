"""Take a champion back: the version before it is champion again."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.records import Outcome
from reca_core.contracts.versions import Rollback
from tasks.form import titled
from tasks.outcome import outcome
from tasks.rollback import roll_back
from tasks.run import pipeline_run
from tasks.validate import check


@flow(name="rollback")
@titled
def rollback(rollback: Rollback = Rollback()) -> Outcome:
    """Make the version before the champion champion again, and record why.

    Args:
        rollback: Which champion to take back.
    """
    check(rollback)
    with pipeline_run("rollback") as run:
        return outcome(run, [roll_back(run, rollback)])
