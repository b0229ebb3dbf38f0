"""From a resolved model to its adapter, through the registry: the one place that imports a family by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import family_entry
from reca_core.models.unified import UnifiedModel


def adapter_class(family: str) -> type[UnifiedModel]:
    """The adapter class of a registered family. Raises BadInput with the choices for another name."""
    module, _, name = family_entry(family).adapter.partition(":")
    found: type[UnifiedModel] = getattr(import_module(module), name)
    return found


def load_adapter(model: ResolvedModel, device: str = "cpu") -> UnifiedModel:
    """Read a model's directory, strictly, in float32, ready for inference.

    Raises PrerequisiteMissing if files are absent, CheckpointRefused naming the keys that do not fit.
    """
    return adapter_class(model.family).load(Path(model.path), device)
