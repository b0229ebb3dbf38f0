"""Which weights the tracking store stands for: what may never be cleaned away.

The answer is only as good as the store: one that never heard of a training cannot say that it was not registered.
So the trainings the store knows are part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.tracking import client, experiment_id
from tasks.tracking_models import model_id_of, safe_name

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

PAGE = 1000


@dataclass(frozen=True)
class KnownWeights:
    """What the store says about weights on disk."""

    registered_paths: frozenset[str]
    """Directories that registered versions point to."""
    registered_sha256: frozenset[str]
    """Hashes of registered weights, wherever they lie."""
    downloads: frozenset[str]
    """Names below ``cache/models`` of versions that were fetched from the store."""
    trainings: frozenset[str]
    """Run directories of the trainings that the store has a run of."""


def known_weights() -> KnownWeights:
    """Ask the store. Raises MLflow's own error where it does not answer: nothing is assumed then."""
    registered, runs = list(versions()), list(_trainings())
    return KnownWeights(
        registered_paths=frozenset(version.tags.get("checkpoint_path", "") for version in registered) - {""},
        registered_sha256=frozenset(version.tags.get("checkpoint_sha256", "") for version in registered) - {""},
        downloads=frozenset(safe_name(model_id_of(version)) for version in registered),
        trainings=frozenset(run.data.tags.get("run_directory", "") for run in runs) - {""},
    )


def ready_versions() -> list[ModelVersion]:
    """Every registered version that can be read, oldest first within its name."""
    found = (version for version in versions() if version.status == "READY")
    return sorted(found, key=lambda version: (version.name, int(version.version)))


def versions() -> Iterator[ModelVersion]:
    """Every registered version, page by page."""
    token: str | None = None
    while True:
        page = client().search_model_versions(max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _trainings() -> Iterator[Run]:
    token: str | None = None
    while True:
        page = client().search_runs([experiment_id()], "tags.stage = 'train'", max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
