"""Keeping house: what nothing refers to any more goes, once a week or when asked."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.requests import Cleaning
from tasks.clean import clean as clean_home
from tasks.form import titled
from tasks.results import Cleaned
from tasks.schedule import drop_missed


@flow(name="clean")
@titled
def clean(cleaning: Cleaning = Cleaning()) -> Cleaned:
    """Remove what no registered version, no score and no run in work refers to.

    Args:
        cleaning: What may go.
    """
    drop_missed()
    return clean_home(cleaning)
