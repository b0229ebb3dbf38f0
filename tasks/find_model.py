"""``find model``: what a person named becomes weights on this disk, known by their hash."""

from __future__ import annotations

from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.requests import ModelChoice, VersionChoice
from tasks.models import resolve_model
from tasks.policies import verb
from tasks.progress import note


@verb("find model", "find {choice.source}")
def find_model(choice: ModelChoice) -> ResolvedModel:
    """The model behind a choice."""
    found = resolve_model(choice)
    note(f"model: {found.name}, family {found.family}, SHA-256 {found.sha256}")
    return found


@verb("find versions", "find versions of {versions.name}")
def find_versions(versions: VersionChoice) -> dict[str, ResolvedModel]:
    """Alias -> model, for the aliases that point somewhere; the same weights are measured once.

    Raises PrerequisiteMissing where none does.
    """
    found: dict[str, ResolvedModel] = {}
    absent: list[PrerequisiteMissing] = []
    for alias in versions.aliases:
        try:
            model = resolve_model(ModelChoice(source=f"models:/{versions.name}@{alias}"))
        except PrerequisiteMissing as error:
            note(f"versions: nothing behind the alias {alias}")
            absent.append(error)
            continue
        if model.sha256 not in {other.sha256 for other in found.values()}:
            found[alias] = model
    if not found:
        raise absent[0]
    return found
