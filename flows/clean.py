"""Keeping house: what nothing refers to any more goes, once a week or when asked."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.requests import Cleaning
from tasks.clean import clean as clean_home
from tasks.results import Cleaned


@flow(name="clean")
def clean(cleaning: Cleaning = Cleaning()) -> Cleaned:
    """Remove what no registered version, no score and no run in work refers to.

    Args:
        cleaning: What may go.
    """
    return clean_home(cleaning)
