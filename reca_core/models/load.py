"""From a resolved model to its adapter, through the registry: the one place that imports a family by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch

from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import family_entry
from reca_core.models.state import matrices_in
from reca_core.models.unified import UnifiedModel


def adapter_class(family: str) -> type[UnifiedModel]:
    """The adapter class of a registered family. Raises BadInput with the choices for another name."""
    module, _, name = family_entry(family).adapter.partition(":")
    found: type[UnifiedModel] = getattr(import_module(module), name)
    return found


def load_adapter(model: ResolvedModel, device: str = "cpu", precision: str = "float32") -> UnifiedModel:
    """Read a model's directory, strictly, ready for inference.

    ``precision``: of the matrices outside the image tokenizer; everything else is float32. bfloat16 wants autocast.
    Raises PrerequisiteMissing if files are absent, CheckpointRefused naming the keys that do not fit.
    """
    family = adapter_class(model.family)
    with matrices_in(getattr(torch, precision), apart_from=family.image_tokenizer):
        return family.load(Path(model.path), device)
