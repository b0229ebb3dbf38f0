"""``note on versions``: a registered version carries what it scored and which run said so, under ``measured.<id>``.

The tag ``evaluation`` says that a version has been looked after: ``requested ...`` by the poller, ``done ...`` here.
Tags are a window: what was measured is found in the answers directories.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from reca_core.contracts.records import VersionRef
from tasks import tracking_models
from tasks.policies import verb
from tasks.results import Compared, FoundVersions, Judged, Noted, Registered
from tasks.run import RunContext

EVALUATION_TAG = "evaluation"
DONE, REQUESTED = "done", "requested"


@verb("note on versions", "note scores on versions of {found.name}")
def note_scores(run: RunContext, found: FoundVersions, judged: Sequence[Judged]) -> Noted:
    """Write the scores on every version that was measured."""
    return _note(run, ((version, one) for one in judged for version in found.versions_of(one.model)))


@verb("note on versions", "note scores on {registered.model.name}")
def note_trained(run: RunContext, registered: Registered, pairs: Sequence[Compared]) -> Noted:
    """The same for a version that was measured in the run that made it: nobody else needs to."""
    return _note(run, ((registered.version, pair.trained) for pair in pairs))


def _note(run: RunContext, measured: Iterable[tuple[VersionRef, Judged]]) -> Noted:
    began = time.monotonic()
    noted: dict[str, VersionRef] = {}
    for version, judged in measured:
        tracking_models.tag_version(version, {f"measured.{judged.benchmark}": in_words(run, judged)})
        noted[f"{version.name}/{version.version}"] = version
    for version in noted.values():
        tracking_models.tag_version(version, {EVALUATION_TAG: f"{DONE}: flow run {run.flow_run_id}"})
    return Noted(stage="note on versions", seconds=time.monotonic() - began, versions=list(noted))


def in_words(run: RunContext, judged: Judged) -> str:
    """The first row of the table, when it was judged, and where all of it is."""
    name, row = next(iter(judged.table.rows.items()))
    value = "not scored" if row.value is None else f"{row.value:.4g}"
    ends = f" ({row.low:.4g} to {row.high:.4g})" if row.low is not None and row.high is not None else ""
    answers = Path(judged.directory)
    at = datetime.datetime.fromtimestamp((answers / "DONE.json").stat().st_mtime, datetime.UTC)
    scored = f"{row.n_scored}/{row.n_expected} scored"
    return (
        f"{name} {value}{ends}, {scored}, {at:%Y-%m-%d %H:%M} UTC, answers/{answers.name}, flow run {run.flow_run_id}"
    )


def claimed(tags: dict[str, str]) -> bool:
    """Whether a version with these tags has been looked after."""
    return bool(tags.get(EVALUATION_TAG))


def claim(version: VersionRef, flow_run_id: str) -> None:
    """Say that a run was asked to measure a version."""
    tracking_models.tag_version(version, {EVALUATION_TAG: f"{REQUESTED}: flow run {flow_run_id}"})
