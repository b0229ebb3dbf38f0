"""``clean``: the home loses what nothing refers to, MLflow what people deleted long ago; a table says what was freed.

Prefect removes its own old flow runs, logs and events by itself (deployments/stack.py switches that on).
"""

from __future__ import annotations

import os

from reca_core.contracts.requests import Cleaning
from tasks.artifacts import show_page
from tasks.cleaning import UNITS_SECONDS, Removable, removable, remove
from tasks.home import current_home
from tasks.policies import check_run_attempts, verb
from tasks.progress import note
from tasks.results import Cleaned
from tasks.resumption import times_begun
from tasks.tracking_clean import prune_views, purge
from tasks.tracking_weights import known_weights

MEGABYTE = 1 << 20
ARTIFACT_KEY = "cleaned"
LONGEST_TABLE = 200
"""Rows that are shown; the sum covers all."""


@verb("clean")
def clean(cleaning: Cleaning) -> Cleaned:
    """Remove it, or list it. Raises MLflow's own error where the store cannot say what it keeps: nothing goes then.

    Raises StageFailed where the run was resumed too often.
    """
    check_run_attempts(times_begun(), os.environ)
    items = removable(current_home(), known_weights(), cleaning.older_than_days * UNITS_SECONDS["d"])
    gone = items if cleaning.dry_run else remove(items)
    said = [prune_views(dry_run=cleaning.dry_run)]
    said += [purge(cleaning.older_than_days, dry_run=cleaning.dry_run)] if cleaning.tracking else []
    cleaned = Cleaned(
        dry_run=cleaning.dry_run,
        bytes=sum(item.bytes for item in gone),
        paths=[str(item.path) for item in gone],
        tracking="; ".join(sentence for sentence in said if sentence),
    )
    note(f"clean: {summary(cleaned)}")
    _show(cleaned, gone)
    return cleaned


def summary(cleaned: Cleaned) -> str:
    """One line."""
    verb_used = "would free" if cleaned.dry_run else "freed"
    tail = f"; {cleaned.tracking}" if cleaned.tracking else ""
    return f"{verb_used} {cleaned.bytes / MEGABYTE:.1f} MB in {len(cleaned.paths)} places{tail}"


def _show(cleaned: Cleaned, gone: list[Removable]) -> None:
    rows = [f"| {item.bytes / MEGABYTE:.1f} | {item.kind} | `{item.path}` |" for item in gone[:LONGEST_TABLE]]
    table = "\n".join([summary(cleaned), "", "| MB | kind | where |", "|---:|---|---|", *rows])
    show_page(table, ARTIFACT_KEY, "What was removed")
