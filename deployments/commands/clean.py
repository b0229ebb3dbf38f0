"""``reca clean``: removes what nothing refers to (tasks/cleaning.py has the rules) and says what it freed."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from deployments.context import Context
from deployments.environment import MLFLOW_URI_VARIABLE, Surroundings, enter
from deployments.stack import read_stack
from deployments.stack_health import part_health
from reca_core.contracts.errors import EXIT_DONE, PrerequisiteMissing
from tasks.cleaning import Removable, age_limit, removable, remove

MEGABYTE = 1 << 20


def clean(options: Namespace, context: Context) -> int:
    """List, and without ``--dry-run`` remove. Raises PrerequisiteMissing where the store cannot say what it keeps."""
    seconds = age_limit(options.older_than)
    chosen = store_of(context.surroundings)
    if not chosen.home.root.is_dir():
        return _tell([], options, context)
    enter(chosen)
    from tasks.tracking_clean import prune_views
    from tasks.tracking_weights import known_weights

    items = removable(chosen.home, known_weights(), seconds)
    views = prune_views(dry_run=options.dry_run)
    if views:
        context.terminal.note(views)
    return _tell(items if options.dry_run else remove(items), options, context)


def store_of(chosen: Surroundings) -> Surroundings:
    """With the store that was named, or that this home's stack keeps; an empty one would say: nothing is registered."""
    stack = read_stack(chosen.home.root)
    if chosen.mlflow_uri.startswith("http") or stack is None:
        return chosen
    if part_health(stack, "mlflow").answers:
        return replace(chosen, mlflow_uri=stack.mlflow, credentials=stack.credentials())
    if stack.database:
        raise PrerequisiteMissing(
            f"what is registered is in {stack.database}, and its MLflow server is down",
            field="--mlflow-uri",
            remedy=f"reca up --database {stack.database}, or name the store: --mlflow-uri or {MLFLOW_URI_VARIABLE}",
        )
    return chosen


def _tell(items: list[Removable], options: Namespace, context: Context) -> int:
    freed = sum(item.bytes for item in items)
    for item in items:
        context.terminal.line(f"{item.bytes / MEGABYTE:10.1f} MB  {item.kind:<11} {item.path}")
    verb = "would free" if options.dry_run else "freed"
    context.terminal.note(f"{verb} {freed / MEGABYTE:.1f} MB in {len(items)} places")
    listed = [{"path": str(item.path), "kind": item.kind, "bytes": item.bytes} for item in items]
    context.terminal.answer({"removed": listed, "bytes": freed, "dry_run": options.dry_run})
    return EXIT_DONE
