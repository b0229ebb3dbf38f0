"""``find model``: what a person named becomes weights on this disk, known by their hash."""

from __future__ import annotations

import time

from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import ModelChoice, VersionChoice
from tasks.models import resolve_model
from tasks.policies import verb
from tasks.progress import note
from tasks.results import FoundVersions


@verb("find model", "find {choice.source}")
def find_model(choice: ModelChoice) -> ResolvedModel:
    """The model behind a choice."""
    found = resolve_model(choice)
    note(f"model: {found.name}, family {found.family}, SHA-256 {found.sha256}")
    return found


@verb("find versions", "find versions of {versions.name}")
def find_versions(versions: VersionChoice) -> FoundVersions:
    """The models behind aliases; the same weights once. Aliases that point nowhere are reported, not an error:
    a schedule may begin before the first version exists."""
    began = time.monotonic()
    models: dict[str, ResolvedModel] = {}
    absent: list[str] = []
    for alias in versions.aliases:
        address = f"models:/{versions.name}@{alias}"
        try:
            model = resolve_model(ModelChoice(source=address))
        except PrerequisiteMissing as error:
            absent.append(f"nothing is measured for {address}: {error.fact}")
            note(absent[-1])
            continue
        models.setdefault(model.sha256, model)
    return FoundVersions(
        stage="find versions", seconds=time.monotonic() - began, models=list(models.values()), absent=absent
    )
