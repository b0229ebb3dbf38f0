"""What loading a checkpoint costs, by layout: peak resident size minus that after the imports, per byte of file.

    python -m tests.reca_core.loading_memory --mib 1024 [--family harmon] [--half]

For every family and layout a synthetic checkpoint of at least that size is made (the smallest model with a very wide
language model); a fresh process loads it, reads every weight once, and converts it. The kernel counts
file pages as resident once they were touched, so loading alone may cost nearly nothing; reading every weight
shows what a first use costs. ``--half``: the files hold bfloat16 and are loaded for sampling in bfloat16.
Linux only (/proc). The figures stand in docs/numbers.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reca_core.contracts.conversion import ConvertRequest
from reca_core.contracts.registry import FAMILIES

MIB = 1 << 20
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".ckpt", ".pt")
WIDENED = "intermediate_size"
MODULE = "tests.reca_core.loading_memory"
HALF = "half"
"""Folder of checkpoints in bfloat16."""
RESET_PEAK = "5"
"""Written to /proc/self/clear_refs, makes the highest resident size so far the present one."""


@dataclass(frozen=True)
class Measured:
    """One task on one checkpoint, in bytes."""

    family: str
    layout: str
    task: str
    size: int
    cost: int

    @property
    def ratio(self) -> float:
        """Memory per byte of checkpoint."""
        return self.cost / self.size


# ---- the child -------------------------------------------------------------------------------------------------


def resident(field: str, process: int | str = "self") -> int:
    """``VmRSS`` or ``VmHWM`` of a process, in bytes. Raises StopIteration for one that has ended."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def child(family: str, directory: Path) -> dict[str, int]:
    """Do all tasks one after another; how far the resident size rose above that after the imports in each."""
    from reca_core.contracts.records import ResolvedModel
    from reca_core.conversion.run import convert
    from reca_core.models.load import adapter_class, load_adapter

    adapter_class(family)  # imports it
    precision = "bfloat16" if directory.parent.name == HALF else "float32"
    model = ResolvedModel(name=family, family=family, path=str(directory), sha256="")
    costs: dict[str, int] = {}
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    loaded = load_adapter(model, precision=precision)
    costs["load"] = resident("VmHWM") - before
    sum(float(tensor.sum()) for tensor in loaded.network.state_dict().values())
    costs["use"] = resident("VmHWM") - before
    del loaded
    gc.collect()
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        layout: Any = "upstream" if directory.name == "ours" else "reca"
        target = str(Path(scratch) / "out")
        convert(ConvertRequest(family=family, source=str(directory), target=target, layout=layout, report=""))
        costs["convert"] = resident("VmHWM") - before
    return costs


def measure(family: str, directory: Path) -> dict[str, int]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", MODULE, "--child", family, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


# ---- synthetic checkpoints -------------------------------------------------------------------------------------


def widened(family: str, size: int) -> Any:
    """The smallest model with a language model so wide that its weights take at least ``size`` bytes."""
    return enlarged(family, size, _wider)


def enlarged(family: str, size: int, larger: Callable[[Any, dict[str, Any], int], Any]) -> Any:
    """The smallest model with as much more of something as makes its weights take at least ``size`` bytes.

    ``larger`` is given the model, its settings and how much more, and returns the configuration.
    """
    from reca_core.conversion.run import conversion_of
    from reca_core.models.load import adapter_class

    model: Any = adapter_class(family).smallest(seed=0)
    held, conversion = config_of(model), conversion_of(family)
    first, second = (bytes_of(conversion.network(larger(model, held, extra))) for extra in (0, 1))
    wanted = larger(model, held, (size - first) // (second - first) + 1)
    if family == "janus":
        made = type(model).from_configuration(wanted, model.tokenizer, model.templates)
        made._companions = model._companions
        return made
    return type(model)(wanted, type(model.network)(wanted.sizes), _tokenizer(model), model.templates, model._companions)


def config_of(model: Any) -> dict[str, Any]:
    """The model's settings as they stand in config.json."""
    settings = model.network.config.to_dict() if model.family == "janus" else model.configuration.as_json()
    return dict(json.loads(json.dumps(settings)))


def bytes_of(network: nn.Module) -> int:
    """Of all parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def _wider(model: Any, settings: dict[str, Any], extra: int) -> Any:
    """The configuration with so much more width between the matrices of each layer of the language model."""
    return changed_language(model, settings, lambda text: text.update({WIDENED: text[WIDENED] + extra}))


def changed_language(model: Any, settings: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> Any:
    """The configuration with something else in the language model's part."""
    changed = json.loads(json.dumps(settings))
    entry = next(key for key in ("llm", "language", "text_config") if key in changed)
    change(changed[entry].get("text_config", changed[entry]))
    if model.family == "janus":
        return type(model.network.config)(**changed)
    return type(model.configuration).from_json(changed, model.family)


def _tokenizer(model: Any) -> Any:
    from reca_core.models import directory as common

    with tempfile.TemporaryDirectory() as scratch:
        for name, content in model._companions.items():
            (Path(scratch) / name).write_bytes(content)
        return common.read_tokenizer(Path(scratch))


def size_of(directory: Path) -> int:
    """Bytes of all weights files."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.suffix in WEIGHTS_SUFFIXES]
    return sum(path.stat().st_size for path in files)


def make(family: str, place: Path, size: int) -> list[Path]:
    """The checkpoint in both layouts; in bfloat16, apart from the image tokenizer, where the folder is called half."""
    from reca_core.conversion.run import convert

    halved = place.name == HALF
    model = widened(family, size * 2 if halved else size)
    if halved:
        model.network.to(torch.bfloat16)
        model.network.get_submodule(model.image_tokenizer).float()
    model.save(place / "ours")
    convert(
        ConvertRequest(
            family=family, source=str(place / "ours"), target=str(place / "theirs"), layout="upstream", report=""
        )
    )
    return [place / "ours", place / "theirs"]


def layout_of(directory: Path) -> str:
    """In words: whose layout, in which files."""
    files = sorted({path.suffix for path in directory.rglob("*") if path.suffix in WEIGHTS_SUFFIXES})
    return f"{'ours' if directory.name == 'ours' else 'upstream'} ({', '.join(files)})"


def measured(family: str, place: Path, size: int) -> Iterator[Measured]:
    """All tasks on both layouts of one family; the files are removed as soon as they are done with."""
    for directory in make_in_a_child(family, place, size):
        for task, cost in measure(family, directory).items():
            yield Measured(family, layout_of(directory), task, size_of(directory), cost)
        shutil.rmtree(directory)


def make_in_a_child(family: str, place: Path, size: int) -> list[Path]:
    """Made in a process of its own, whose memory is given back."""
    command = [sys.executable, "-m", MODULE, "--make", family, str(place), str(size)]
    subprocess.run(command, check=True)
    return [place / "ours", place / "theirs"]


HEADER = "| family | layout | MiB | task | peak above imports, MiB | ratio |\n|---|---|---|---|---|---|"


def line(row: Measured) -> str:
    """One row of a Markdown table."""
    cells = (row.family, row.layout, row.size // MIB, row.task, row.cost // MIB, f"{row.ratio:.2f}")
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Measure and write the table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("FAMILY", "DIR"), help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, metavar=("FAMILY", "DIR", "BYTES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        family, directory = options.child
        sys.stdout.write(json.dumps(child(family, Path(directory))) + "\n")
        return
    if options.make:
        family, directory, size = options.make
        make(family, Path(directory), int(size))
        return
    sys.stdout.write(HEADER + "\n")
    for family in options.family or FAMILIES:
        with tempfile.TemporaryDirectory(prefix="loading-memory-") as scratch:
            place = Path(scratch) / (HALF if options.half else "whole")
            for row in measured(family, place, options.mib * MIB):
                sys.stdout.write(line(row) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
