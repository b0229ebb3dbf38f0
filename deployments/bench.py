"""``make bench`` = ``python -m deployments.bench [SECTION ...] [--output FILE|-] [--quick]``: how fast the rooms are.

Every section runs in a process of its own, one after the other, so that none inherits another's memory, threads or GPU.
Prints a table; ``--output`` also writes JSON with the machine and the code it was measured on. A section is a function
as in reca_core/contracts/bench.py and one line here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deployments.terminal import FILE_WIDTH
from reca_core.contracts.base import Record
from reca_core.contracts.bench import BenchPlace, Figure, Section
from reca_core.contracts.errors import EXIT_DONE, EXIT_STAGE_FAILED, BadInput, RecaError
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.lifeline import child_environment, die_with_parent
from tasks.provenance import current_provenance

SECTIONS: dict[str, str] = {
    "rules": "evaluation.bench_rules:rules",
    "training": "reca_core.bench_training:training",
    "data": "reca_core.bench_data:data",
    "judging": "evaluation.bench_judging:judging",
    "features": "reca_core.bench_features:features",
    "orchestration": "deployments.bench_orchestration:orchestration",
}
"""Name -> ``package.module:function``; imported only in the process that measures it."""
PROCESSOR_FILE = Path("/proc/cpuinfo")


class Measured(Record):
    """What one section said."""

    section: str
    figures: list[Figure]


def measure(name: str, quick: bool) -> Measured:
    """Run one section here."""
    module, _, function = SECTIONS[name].partition(":")
    section: Section = getattr(importlib.import_module(module), function)
    with tempfile.TemporaryDirectory(prefix="reca-bench-") as folder:
        return Measured(section=name, figures=section(BenchPlace(Path(folder), quick)))


def measure_apart(name: str, quick: bool) -> Measured | int:
    """Run one section in a process of its own, which speaks for itself; its exit status where it fails."""
    with tempfile.TemporaryDirectory(prefix="reca-bench-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "deployments.bench", "--here", str(result), name]
        command += ["--quick"] if quick else []
        ended = subprocess.run(command, check=False, env=child_environment(os.environ))
        return Measured.model_validate_json(result.read_text()) if ended.returncode == EXIT_DONE else ended.returncode


def machine() -> dict[str, Any]:
    """What it was measured on."""
    names = [line.partition(":")[2].strip() for line in _lines(PROCESSOR_FILE) if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        **current_provenance().model_dump(),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def table(measured: Measured) -> Table:
    """A section for people."""
    shown = Table("what", "value", "unit", "how", title=measured.section, title_justify="left")
    shown.columns[1].justify = "right"
    for figure in measured.figures:
        shown.add_row(
            figure.what,
            f"{figure.value:,.4g}" if figure.value < 1e4 else f"{figure.value:,.0f}",
            figure.unit,
            figure.how,
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the first exit status of a section that failed, after all others were measured."""
    options = _parser().parse_args(arguments)
    try:
        chosen = _chosen(options.sections)
        if options.here:
            die_with_parent()
            atomic_write_text(Path(options.here), measure(chosen[0], options.quick).model_dump_json())
            return EXIT_DONE
    except RecaError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return _all(chosen, options.quick, options.output)


def _all(chosen: Sequence[str], quick: bool, output: str) -> int:
    about, found, status = machine(), [], EXIT_DONE
    people = Console(stderr=output == "-", width=None if sys.stdout.isatty() else FILE_WIDTH, highlight=False)
    for name in chosen:
        measured = measure_apart(name, quick)
        if isinstance(measured, int):
            sys.stderr.write(f"{name} could not be measured (exit status {measured})\n")
            status = status or measured or EXIT_STAGE_FAILED
            continue
        people.print(table(measured))
        found.append(measured.model_dump())
    document = json.dumps({"machine": about, "quick": quick, "sections": found}, indent=2, ensure_ascii=False) + "\n"
    if output == "-":
        sys.stdout.write(document)
    elif output:
        atomic_write_text(Path(output).absolute(), document)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deployments.bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all without any")
    parser.add_argument("--output", default="", metavar="FILE|-", help="also write JSON")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: shows that it runs, measures nothing")
    parser.add_argument("--here", default="", help=argparse.SUPPRESS)
    return parser


def _chosen(named: Sequence[str]) -> list[str]:
    unknown = [name for name in named if name not in SECTIONS]
    if unknown:
        raise BadInput(f"no section is called {', '.join(unknown)}", field="SECTION", choices=tuple(SECTIONS))
    return list(named) or list(SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
