"""The ledger: ``<home>/decisions/<name>.jsonl``, a line per promotion, refusal and rollback, never changed.

A flow run that is begun again after a crash finds its own line and finishes what it decided; what was decided about the
same versions, measurements and rule is not decided, told and written a second time.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from reca_core.contracts.files import append_jsonl, read_jsonl
from tasks.home import current_home
from tasks.results import Decision
from tasks.tracking_models import safe_name

LOCK_SECONDS = 60.0


def ledger(name: str) -> Path:
    """Where the decisions about a registered model are."""
    return current_home().decisions / f"{safe_name(name)}.jsonl"


def decisions(name: str) -> Iterator[Decision]:
    """All of them, oldest first."""
    for row in read_jsonl(ledger(name)):
        decision = Decision.model_validate(row)
        if decision.name == name:  # two names may share a file name
            yield decision


def of_run(name: str, flow_run_id: str) -> Decision | None:
    """What a flow run decided before it was cut off."""
    return next((item for item in decisions(name) if item.flow_run_id == flow_run_id), None)


def on_subject(name: str, subject: str) -> Decision | None:
    """The last decision about the same thing, unless another one about the same version came after it."""
    found = [item for item in decisions(name) if item.subject == subject]
    if not found:
        return None
    later = [item for item in decisions(name) if item.version == found[-1].version]
    return found[-1] if later[-1] == found[-1] else None


def write(decision: Decision) -> None:
    """Add a line."""
    path = ledger(decision.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
        append_jsonl(path, [decision.model_dump(mode="json")])


def now() -> str:
    """The time, as decisions have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
