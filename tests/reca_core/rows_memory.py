"""What a manifest of any length costs a training: memory, and the time of opening it and of one row in random order.

    python -m tests.reca_core.rows_memory --rows 10000 10000000

Writes a synthetic manifest for each number of rows and lets a fresh process open it and read rows in the order of a
training. Ten million rows are 1.5 GiB on disk. Linux only (/proc). The figures stand in docs/numbers.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reca_core.contracts.records import ManifestRow

MODULE = "tests.reca_core.rows_memory"
READ = 20_000
"""Rows that are read, in the order of a training."""
BLOCK = 10_000
"""Lines that are written at once: those of four digits."""
MIB = 1 << 20
HEADER = "| rows | file, MiB | opened in, s | one row, ms | peak above imports, MiB |\n|---:|---:|---:|---:|---:|"
PLACE, BEFORE = "@@@@@@@@", "####"
"""In a line, the number of its row; in a block, the first half of it."""


def write(path: Path, rows: int) -> None:
    """A manifest whose rows differ in their numbers alone."""
    name = f"{PLACE}.jpg"
    named = ManifestRow(sha256="0" * 56 + PLACE, file=f"/pictures/{name}", label=name, width=512, height=512)
    line = named.model_dump_json() + "\n"
    block = [line.replace(PLACE, f"{BEFORE}{number:04d}") for number in range(BLOCK)]
    with path.open("w") as stream:
        for start in range(0, rows, BLOCK):
            text = "".join(block[: rows - start])
            stream.write(text.replace(BEFORE, f"{start // BLOCK:04d}"))


def resident(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def child(path: Path) -> dict[str, float]:
    """Open the manifest and read from it; seconds, milliseconds a row and bytes above the imports."""
    from reca_core.data.feed import Order
    from reca_core.data.random_access import LineRows

    list(map(Order(READ, 0, "warm").row, range(READ)))  # what a first use of torch costs is no row's cost
    before, start = resident("VmRSS"), time.perf_counter()
    rows = LineRows(path, ManifestRow.model_validate_json)
    opened = time.perf_counter() - start
    order = Order(len(rows), 0, "images")
    for position in range(READ):
        number = order.row(position % len(rows))
        if not rows[number].sha256.endswith(f"{number:08d}"):
            raise ValueError(f"row {number} is {rows[number].sha256}")
    row = (time.perf_counter() - start - opened) / READ * 1000
    return {"rows": len(rows), "opened": opened, "row": row, "memory": resident("VmHWM") - before}


def main() -> None:
    """Measure and write the table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 10_000_000])
    parser.add_argument("--child", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sys.stdout.write(json.dumps(child(Path(options.child))) + "\n")
        return
    sys.stdout.write(HEADER + "\n")
    for count in options.rows:
        with tempfile.TemporaryDirectory(prefix="rows-memory-") as scratch:
            path = Path(scratch) / "manifest.jsonl"
            write(path, count)
            command = [sys.executable, "-m", MODULE, "--child", str(path)]
            done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            cells = (f"{done['rows']:,}", f"{path.stat().st_size // MIB:,}", f"{done['opened']:.1f}")
            more = (f"{done['row']:.2f}", f"{done['memory'] / MIB:.1f}")
            sys.stdout.write("| " + " | ".join(cells + more) + " |\n")


if __name__ == "__main__":
    main()
