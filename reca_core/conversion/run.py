"""One conversion: open, compare, write, or say why not. Nothing appears at the target unless all of it is there.

``reca``: config.json, safetensors (sharded where large), tokenizer, generation config, and ``upstream/``, which keeps
what the authors' files have besides, so that the way back needs nothing else.
``upstream``: the files of the base, of where the checkpoint came from, or the authors' names; the key set is compared
with the network's and with the base's. Trained weights that equal the base are refused: an untouched model was
published once (reference "reca_recipe", section 3.1, B1 and B12).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from reca_core.contracts.conversion import ConversionFault, ConversionReport, ConvertRequest
from reca_core.contracts.errors import BadInput, CheckpointRefused, RecaError
from reca_core.contracts.files import atomic_write_text, sync_directory
from reca_core.contracts.registry import FAMILIES, family_entry
from reca_core.conversion.checkpoint import Checkpoint, Names, full_state, remember, with_origin
from reca_core.conversion.source import open_checkpoint
from reca_core.models import directory as common
from reca_core.models.pickles import Weights
from reca_core.models.published import SETTINGS, Conversion, SizesUnknown, write_files
from reca_core.models.unified import LoadReport

log = logging.getLogger(__name__)

MANY = 5
"""Names that a refusal lists."""


def main(request: ConvertRequest) -> None:
    """Convert what is asked for and write the report.

    Raises RecaError of the kind that fits, having written its parts where the report would be; the target stays free.
    """
    path = Path(request.report)
    try:
        report = convert(request)
    except RecaError as error:
        fault = ConversionFault(
            exit_code=error.exit_code,
            fact=error.fact,
            field=error.field,
            choices=list(error.choices),
            remedy=error.remedy,
        )
        atomic_write_text(path, fault.model_dump_json())
        raise
    atomic_write_text(path, report.model_dump_json(indent=2))


def convert(request: ConvertRequest) -> ConversionReport:
    """The same, returning the report."""
    target = _free(Path(request.target))
    conversion = conversion_of(request.family)
    asked: Weights | None = None if request.weights == "auto" else request.weights
    base = _base(conversion, request) if request.base else None
    try:
        found = open_checkpoint(conversion, request.family, Path(request.source), asked, base)
    except SizesUnknown as error:
        return ConversionReport(missing=list(error.missing), notes=["the sizes cannot be told without these"])
    report = _report(found)
    if not report.clean():
        return report
    if base is not None:
        report = report.model_copy(update={"unchanged": _unchanged(conversion, found, base)})
        found = with_origin(found, base.origin) if base.origin.files else found
    refusal = _refusal(conversion, found, base, report) if request.layout == "upstream" else ""
    if refusal:
        return report.model_copy(update={"refusal": refusal})
    written = _write(conversion, found, target, request.layout)
    return report.model_copy(update={"written": True, "n_tensors": written})


def conversion_of(family: str) -> Conversion:
    """The conversion module of a registered family. Raises BadInput where it has none."""
    module = family_entry(family).conversion
    if not module:
        having = tuple(name for name, entry in FAMILIES.items() if entry.conversion)
        raise BadInput(f"{family} has only one layout", field="--family", choices=having)
    return cast("Conversion", import_module(module))


def _free(target: Path) -> Path:
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise BadInput("is there already", field=f"--to {target}", remedy="name a directory that is not there yet")
    return target


def _base(conversion: Conversion, request: ConvertRequest) -> Checkpoint:
    """A base must be whole. It is taken as it is, so its only weights may be called a moving average."""
    base = open_checkpoint(conversion, request.family, Path(request.base), None)
    if not base.report.clean():
        lines = [*base.report.missing, *base.report.unexpected, *base.report.mismatched_shape]
        raise CheckpointRefused(
            f"the base is not whole: {', '.join(lines[:MANY])}", field=f"--base {request.base}", remedy="mend it first"
        )
    return base


def _report(found: Checkpoint) -> ConversionReport:
    report: LoadReport = found.report
    return ConversionReport(
        missing=list(report.missing),
        unexpected=list(report.unexpected),
        mismatched_shape=[line.partition(" ")[0] for line in report.mismatched_shape],
        details=list(report.mismatched_shape),
        n_tensors=len(found.state) + len(found.origin.spare),
        notes=list(found.notes),
    )


# ---- trained and base ------------------------------------------------------------------------------------------


def _unchanged(conversion: Conversion, found: Checkpoint, base: Checkpoint) -> list[str]:
    """Trainable tensors that equal the base's, in the names of the source."""
    equal = [name for name in _trainable(conversion, found) if name in base.state and _same(found, base, name)]
    if found.ours or not equal:
        return sorted(equal)
    names = Names(conversion, found.configuration)
    return sorted(names.upstream(name) for name in equal)


def _trainable(conversion: Conversion, found: Checkpoint) -> frozenset[str]:
    return conversion.trainable(found.state, found.configuration)


def _same(found: Checkpoint, base: Checkpoint, name: str) -> bool:
    """In the type of what was trained: a base that was merely stored in half precision has not been trained, and a
    float32 weight that moved by less than the last bit of its bfloat16 base has."""
    ours, theirs = found.state[name], base.state[name]
    return ours.shape == theirs.shape and torch.equal(ours, theirs.to(ours.dtype))


def _refusal(conversion: Conversion, found: Checkpoint, base: Checkpoint | None, report: ConversionReport) -> str:
    """Why this must not be published, if it must not."""
    idle = found.idle if found.ours else frozenset()
    stuck = [name for name in report.unchanged if name not in idle]
    if stuck:
        rest = f" and {len(stuck) - MANY} more" if len(stuck) > MANY else ""
        return (
            f"{len(stuck)} tensors that training changes equal the base: {', '.join(stuck[:MANY])}{rest}; "
            "of a run of ours whose losses did not reach them, name its own directory"
        )
    if base is None or not base.origin.files:
        return ""
    ours, theirs = _shapes(full_state(conversion, found)), _shapes(full_state(conversion, base))
    odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return f"names or shapes differ from the base's: {', '.join(odd[:MANY])}" if odd else ""


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


# ---- writing ---------------------------------------------------------------------------------------------------


def _write(conversion: Conversion, found: Checkpoint, target: Path, layout: str) -> int:
    """Into a folder beside the target, which is renamed when it is whole. Returns the number of tensors."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir()
        count = (_write_ours if layout == "reca" else _write_upstream)(conversion, found, scratch)
        if target.is_dir():
            target.rmdir()
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sync_directory(target.parent)
    log.info("%d tensors written to %s", count, target)
    return count


def _write_ours(conversion: Conversion, found: Checkpoint, directory: Path) -> int:
    for name, content in found.companions.items():
        (directory / name).write_bytes(content)
    conversion.write_settings(directory, found.configuration)
    common.write_weights(directory, found.state)
    remember(directory, found.origin)
    return len(found.state)


def _write_upstream(conversion: Conversion, found: Checkpoint, directory: Path) -> int:
    small = {name: path.read_bytes() for name, path in found.origin.small.items()}
    if not found.origin.files:
        small = conversion.upstream_settings(found.configuration, found.companions)
    settings = conversion.settings(found.configuration)
    if common.CARD in found.companions:  # of a checkpoint of ours: how it was trained
        small[common.CARD] = found.companions[common.CARD]
    small[SETTINGS] = json.dumps(settings, indent=2, ensure_ascii=False).encode()
    for name, content in small.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    state = full_state(conversion, found)
    write_files(directory, found.origin.files or conversion.default_files(found.configuration), state)
    return len(state)
