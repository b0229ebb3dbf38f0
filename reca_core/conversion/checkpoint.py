"""A checkpoint while it is between two layouts: our names, stored types, and where it came from.

Nothing is built and nothing is copied: tensors stay mapped from their files, shapes come from a network without memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reca_core.contracts.errors import CheckpointRefused
from reca_core.models import directory as common
from reca_core.models.published import Conversion, Published, WeightsFile, file_of, write_files
from reca_core.models.state import compare_shapes
from reca_core.models.unified import LoadReport

ORIGIN, LAYOUT, SPARE, SMALL = "upstream", "layout.json", "spare.safetensors", "files"
"""Sub-folder of our layout that remembers where a converted checkpoint came from, and what is in it."""


@dataclass(frozen=True)
class Origin:
    """What of the authors' layout our own has no place for.

    Args:
        files: its weights files; none for a model that never was in that layout.
        small: its settings and tokenizer files, by place.
        spare: full upstream names -> tensors that nothing of ours is made from.
        absent: full upstream names that it may have and had not, such as a tied head.
    """

    files: tuple[WeightsFile, ...] = ()
    small: Mapping[str, Path] = field(default_factory=dict)
    spare: Mapping[str, Tensor] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Checkpoint:
    """Weights under our names with everything that belongs to them; complete if ``report`` is clean."""

    configuration: Any
    state: Mapping[str, Tensor]
    companions: Mapping[str, bytes]
    report: LoadReport
    origin: Origin = Origin()
    ours: bool = False
    """It was read from our own layout, so the report has our names."""
    notes: tuple[str, ...] = ()
    idle: frozenset[str] = frozenset()
    """Our names of parameters that its training is known not to have reached."""


def network_of(conversion: Conversion, configuration: Any) -> nn.Module:
    """Of shapes alone. Raises CheckpointRefused where no network has the sizes that config.json says."""
    try:
        return conversion.network(configuration)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        raise CheckpointRefused(
            f"its sizes are those of no network ({type(error).__name__}: {said})",
            field=common.CONFIG,
            remedy="take config.json from where the weights come from",
        ) from error


class Names:
    """The tensors of one configuration in the authors' layout: which must be there, which may."""

    def __init__(self, conversion: Conversion, configuration: Any) -> None:
        shapes = network_of(conversion, configuration).state_dict()
        self.conversion, self.configuration = conversion, configuration
        self.ours: dict[str, Tensor] = dict(shapes)
        self.wanted = conversion.to_upstream(self.ours, configuration)
        derivable = conversion.derivable(configuration)
        self.optional = {self.upstream(name) for name in derivable}
        self.optional |= {name for name in self.wanted if conversion.harmless(name)}

    def upstream(self, name: str) -> str:
        """The full upstream name of one of ours."""
        return next(iter(self.conversion.to_upstream({name: self.ours[name]}, self.configuration)))

    def compare(self, state: Mapping[str, Tensor]) -> LoadReport:
        """A full upstream state with what is needed."""
        known = {n: t for n, t in state.items() if n in self.wanted or not self.conversion.harmless(n)}
        return compare_shapes(self.wanted, known, may_miss=self.optional)

    def made_from(self, names: Iterable[str]) -> set[str]:
        """The full upstream names that an export makes of so many of ours."""
        return set(self.conversion.to_upstream({name: _shape(self.ours[name]) for name in names}, self.configuration))


def _shape(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def from_published(conversion: Conversion, found: Published, report: LoadReport | None = None) -> Checkpoint:
    """Of a complete or damaged checkpoint in the authors' layout; the report has the names that stand in its files."""
    conversion.settle(found.configuration, conversion.from_upstream(found.state, found.configuration))
    names = Names(conversion, found.configuration)
    report = report or names.compare(found.state)
    derivable = conversion.derivable(found.configuration)
    ours = conversion.from_upstream({n: t for n, t in found.state.items() if n in names.wanted}, found.configuration)
    kept = {name: tensor for name, tensor in ours.items() if name in names.ours and name not in derivable}
    made = names.made_from(kept)
    origin = Origin(
        found.files,
        found.small,
        {name: tensor for name, tensor in found.state.items() if name not in made},
        frozenset(name for name in names.optional if name in made and name not in found.state),
    )
    companions = conversion.companions(found)
    return Checkpoint(found.configuration, kept, companions, in_files(report, found.files), origin, notes=found.notes)


def in_files(report: LoadReport, files: tuple[WeightsFile, ...]) -> LoadReport:
    """Full upstream names as they stand in the files: without what we put before them."""

    def short(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.removeprefix(file_of(name, files).prefix) for name in names)

    return LoadReport(short(report.missing), short(report.unexpected), short(report.mismatched_shape))


def full_state(conversion: Conversion, found: Checkpoint) -> dict[str, Tensor]:
    """Under full upstream names, the spare tensors included."""
    made = conversion.to_upstream(found.state, found.configuration)
    spare = {name: tensor for name, tensor in found.origin.spare.items() if name not in made}
    return {name: tensor for name, tensor in made.items() if name not in found.origin.absent} | spare


def with_origin(found: Checkpoint, origin: Origin) -> Checkpoint:
    """The same weights, to be written like another checkpoint."""
    return replace(found, origin=origin)


# ---- what our own layout remembers -----------------------------------------------------------------------------


def remember(directory: Path, origin: Origin) -> None:
    """Write the sub-folder; nothing for a model that never was in the authors' layout."""
    if not origin.files:
        return
    place = directory / ORIGIN
    place.mkdir()
    facts = {"files": [asdict(file) for file in origin.files], "absent": sorted(origin.absent)}
    (place / LAYOUT).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    for name, path in origin.small.items():
        (place / SMALL / name).parent.mkdir(parents=True, exist_ok=True)
        (place / SMALL / name).write_bytes(path.read_bytes())
    if origin.spare:
        write_files(place, [WeightsFile(SPARE)], origin.spare)


def remembered(directory: Path) -> Origin:
    """Read it again; of a directory that has none, an empty one."""
    place = directory / ORIGIN
    if not (place / LAYOUT).is_file():
        return Origin()
    facts = json.loads((place / LAYOUT).read_text(encoding="utf-8"))
    small = {str(path.relative_to(place / SMALL)): path for path in (place / SMALL).rglob("*") if path.is_file()}
    spare = load_file(place / SPARE) if (place / SPARE).is_file() else {}
    files = tuple(WeightsFile(**file) for file in facts["files"])
    return Origin(files, small, spare, frozenset(facts["absent"]))
