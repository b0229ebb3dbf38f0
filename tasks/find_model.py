"""``find model``: what a person named becomes weights on this disk, known by their hash."""

from __future__ import annotations

import time

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.records import ResolvedModel, VersionRef
from reca_core.contracts.requests import ModelChoice, VersionChoice
from tasks.models import resolve_model
from tasks.policies import verb
from tasks.progress import note
from tasks.results import FoundVersions
from tasks.tracking_models import version_at


@verb("find model", "find {choice.source}")
def find_model(choice: ModelChoice) -> ResolvedModel:
    """The model behind a choice."""
    found = resolve_model(choice)
    note(f"model: {found.name}, family {found.family}, SHA-256 {found.sha256}")
    return found


def addresses(versions: VersionChoice) -> dict[str, str]:
    """Alias or number -> address of the version."""
    by_alias = {alias: f"models:/{versions.name}@{alias}" for alias in versions.aliases}
    return by_alias | {number: f"models:/{versions.name}/{number}" for number in versions.numbers}


@verb("find versions", "find versions of {versions.name}")
def find_versions(versions: VersionChoice) -> FoundVersions:
    """The models behind aliases and numbers; the same weights once.

    What points nowhere, or at something that is no model of ours, is reported and no error: a schedule may begin before
    the first version exists, and a registry may hold other things.
    """
    began = time.monotonic()
    models: dict[str, ResolvedModel] = {}
    behind: dict[str, VersionRef] = {}
    weights: dict[str, str] = {}
    absent: list[str] = []
    for label, address in addresses(versions).items():
        try:
            version = version_at(address)
            model = resolve_model(ModelChoice(source=f"models:/{version.name}/{version.version}"))
        except (PrerequisiteMissing, BadInput) as error:
            absent.append(f"nothing is measured for {address}: {error.fact}")
            note(absent[-1])
            continue
        behind[label] = version
        models.setdefault(model.sha256, model)
        weights[version.version] = model.sha256
    return FoundVersions(
        stage="find versions",
        seconds=time.monotonic() - began,
        name=versions.name,
        models=list(models.values()),
        behind=behind,
        weights=weights,
        absent=absent,
    )
