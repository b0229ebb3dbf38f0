"""The explicit table of model families and bundled models. One line per family; strings only, so nothing heavy loads.

Adding a family: one folder in ``reca_core/models`` and one line here (CONTRIBUTING.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from reca_core.contracts.errors import BadInput


@dataclass(frozen=True)
class FamilyEntry:
    """Where a family's code is and how its checkpoints are recognised, without importing it."""

    adapter: str
    """``package.module:Class`` of the adapter."""
    model_types: tuple[str, ...]
    """Values of ``model_type`` in config.json that mean this family."""
    numerics_version: int
    """Raised by whoever changes a training or sampling result of this family."""
    class_names: tuple[str, ...] = ()
    """Values of ``_class_name`` in the authors' config.json, where that has no ``model_type``."""
    files: tuple[str, ...] = ()
    """Patterns of the authors' files, by which their directories are known where config.json does not say."""
    parts: tuple[str, ...] = ()
    """Weights files that lie beside every model of the family's authors, such as an autoencoder's."""
    conversion: str = ""
    """Module that translates its authors' files (``Conversion`` of reca_core/models/published.py); empty: none."""
    tiny: str = ""
    """Module with ``tiny_start`` and ``STAGES``, from which ``reca_core.make_tiny`` makes a tiny base; empty: none."""
    edits: bool = False
    """True if the adapter changes pictures by instruction (``EditsImages``): known before any model is loaded."""


FAMILIES: dict[str, FamilyEntry] = {
    "janus": FamilyEntry(
        "reca_core.models.janus.adapter:Janus",
        ("janus", "multi_modality"),
        1,
        conversion="reca_core.models.janus.conversion",
        tiny="reca_core.models.janus.tiny_start",
    ),
    "harmon": FamilyEntry(
        "reca_core.models.harmon.adapter:Harmon",
        ("harmon",),
        2,
        files=("kl16.ckpt",),
        parts=("kl16.ckpt",),
        conversion="reca_core.models.harmon.conversion",
        tiny="reca_core.models.harmon.tiny_start",
    ),
    "bagel": FamilyEntry(
        "reca_core.models.bagel.adapter:Bagel",
        ("bagel",),
        2,
        files=("llm_config.json",),
        parts=("ae.safetensors",),
        conversion="reca_core.models.bagel.conversion",
        edits=True,
    ),
    "showo": FamilyEntry(
        "reca_core.models.showo.adapter:Showo",
        ("showo",),
        2,
        class_names=("Showo",),
        conversion="reca_core.models.showo.conversion",
        tiny="reca_core.models.showo.tiny_start",
    ),
    "openuni": FamilyEntry(
        "reca_core.models.openuni.adapter:OpenUni",
        ("openuni",),
        1,
        files=("openuni*.pth",),
        conversion="reca_core.models.openuni.conversion",
        tiny="reca_core.models.openuni.tiny_start",
    ),
}

BUNDLED_MODELS: dict[str, str] = {
    "tiny-janus": "reca_core/models/janus/tiny",
    "tiny-harmon": "reca_core/models/harmon/tiny",
    "tiny-openuni": "reca_core/models/openuni/tiny",
    "tiny-showo": "reca_core/models/showo/tiny",
}
"""Bundled name -> directory, relative to the repository's package root."""


def check_family(name: str) -> str:
    """Return ``name`` if it is ``auto`` or registered. Raises ValueError with the choices otherwise."""
    if name != "auto" and name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}; choices: auto, {', '.join(FAMILIES)}")
    return name


def family_entry(name: str) -> FamilyEntry:
    """The table line of a family. Raises BadInput with the choices."""
    if name not in FAMILIES:
        raise BadInput(f"no family is called {name!r}", field="model.family", choices=tuple(FAMILIES))
    return FAMILIES[name]
