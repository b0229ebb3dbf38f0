"""The beginning of the story: which pictures can be learned from, and which cannot, with the reason."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.records import Outcome
from reca_core.contracts.requests import ImageSource
from tasks.form import titled
from tasks.outcome import outcome
from tasks.prepare import prepare as prepare_pictures
from tasks.run import pipeline_run
from tasks.validate import check


@flow(name="prepare")
@titled
def prepare(images: ImageSource = ImageSource()) -> Outcome:
    """Check pictures, list the unusable ones, and give the set an identity.

    Args:
        images: Which pictures to prepare.
    """
    check(images)
    with pipeline_run("prepare") as run:
        return outcome(run, [prepare_pictures(images)])
