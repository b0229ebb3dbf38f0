"""What completing trained weights from their base costs: peak resident size minus that after the imports, per byte.

    python -m tests.reca_core.converting_memory --mib 1024 [--family harmon] [--form zero-3]

The forms in which training frameworks leave weights, which alone are no model: a delta (one ``.pth`` of what was
trained), DeepSpeed's ZeRO directories of stages 2 and 3 (two ranks, float32 masters and Adam's moments), and our
layout in shards. Each is converted to our layout over its base, which lies in the authors' layout: base and
trained weights are both read once and compared, so the cost is set against the bytes of both. Of a ZeRO directory the
moments are not read and not counted. Linux only (/proc). The figures stand in docs/numbers.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reca_core.contracts.conversion import ConvertRequest
from reca_core.contracts.registry import FAMILIES
from reca_core.conversion.checkpoint import full_state
from reca_core.conversion.run import conversion_of, convert
from reca_core.conversion.source import open_checkpoint
from reca_core.models import directory
from tests.reca_core.deepspeed_files import write_zero
from tests.reca_core.loading_memory import MIB, RESET_PEAK, resident, size_of, widened

MODULE = "tests.reca_core.converting_memory"
FORMS = ("delta", "zero-2", "zero-3", "shards")
SHARDS = 4
"""At least, of the trained model."""
MOVED = 0.5


@dataclass(frozen=True)
class Converted:
    """One conversion, in bytes."""

    family: str
    form: str
    base: int
    trained: int
    """Of weights that are read: of a ZeRO directory without the moments and the 16-bit copy."""
    cost: int

    @property
    def ratio(self) -> float:
        """Memory per byte that is read."""
        return self.cost / (self.base + self.trained)


# ---- the children ----------------------------------------------------------------------------------------------


def make(family: str, form: str, place: Path, size: int) -> int:
    """A base of at least ``size`` bytes and the same model trained; the bytes of the trained weights."""
    model = widened(family, size)
    model.save(place / "ours")
    convert(_request(family, place / "ours", place / "base", "upstream"))
    trained = model.trainable_names("post")
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if name in trained:
                parameter.add_(MOVED)
    if form == "shards":
        directory.SHARD_BYTES = size // SHARDS
        model.save(place / "trained")
        if len(list((place / "trained").glob("*.safetensors"))) < SHARDS:
            raise RuntimeError("the trained model is not in shards")
        return size_of(place / "trained")
    model.save(place / "moved")
    state = _trained_state(family, place)
    if form == "delta":
        torch.save({"state_dict": state}, place / "trained.pth")
    else:
        write_zero(place / "trained", state, int(form[-1]), moments=True)
    return sum(tensor.numel() * 4 for tensor in state.values())


def _trained_state(family: str, place: Path) -> dict[str, Tensor]:
    """Under upstream's names, as its training saves them: what differs from the base."""
    conversion = conversion_of(family)
    base, moved = (
        full_state(conversion, open_checkpoint(conversion, family, place / name, None)) for name in ("base", "moved")
    )
    return {name: tensor.clone() for name, tensor in moved.items() if not torch.equal(tensor, base[name])}


def _request(family: str, source: Path, target: Path, layout: Any, base: str = "") -> ConvertRequest:
    return ConvertRequest(family=family, source=str(source), target=str(target), layout=layout, base=base, report="")


def child(family: str, trained: Path, base: Path) -> int:
    """Convert; how far the resident size rose above that after the imports."""
    from reca_core.models.load import adapter_class

    adapter_class(family)
    conversion_of(family)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    report = convert(_request(family, trained, base.with_name("out"), "reca", str(base)))
    if not report.written or report.unchanged:
        raise RuntimeError(f"not converted: {report}")
    return resident("VmHWM") - before


# ---- the parent ------------------------------------------------------------------------------------------------


def measure(family: str, form: str, place: Path, size: int) -> Converted:
    """Made and converted in fresh processes."""
    trained = int(_said("--make", family, form, place, size))
    source = place / ("trained.pth" if form == "delta" else "trained")
    cost = int(_said("--child", family, source, place / "base"))
    return Converted(family, form, size_of(place / "base"), trained, cost)


def _said(*arguments: object) -> str:
    """What a fresh process of this module writes last."""
    command = [sys.executable, "-m", MODULE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return str(json.loads(done.stdout.splitlines()[-1]))


HEADER = "| family | trained weights | MiB | base, MiB | peak above imports, MiB | ratio |\n|---|---|---|---|---|---|"


def line(row: Converted) -> str:
    """One row of a Markdown table."""
    sizes = (row.trained // MIB, row.base // MIB, row.cost // MIB, f"{row.ratio:.2f}")
    return "| " + " | ".join(map(str, (row.family, row.form, *sizes))) + " |"


def main() -> None:
    """Measure and write the table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--form", action="append", choices=FORMS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        family, trained, base = options.child
        sys.stdout.write(f"{child(family, Path(trained), Path(base))}\n")
        return
    if options.make:
        family, form, place, size = options.make
        sys.stdout.write(f"{make(family, form, Path(place), int(size))}\n")
        return
    sys.stdout.write(HEADER + "\n")
    for family in options.family or FAMILIES:
        for form in options.form or FORMS:
            with tempfile.TemporaryDirectory(prefix="converting-memory-") as scratch:
                sys.stdout.write(line(measure(family, form, Path(scratch), options.mib * MIB)) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
