"""What a training costs against what was estimated: peak resident size minus that after the imports, on a CPU.

    python -m tests.reca_core.training_memory --family janus --mib 1024 [--set precision=bfloat16] [--set processes=2]

A checkpoint of at least that size is made: the smallest model with very many layers of ``WIDTH``, so that weights and
activations stand to each other more as in real models than in the single wide layer of ``loading_memory``, whose
previews alone outgrow a step. Fresh processes, one per rank, train it for real, with a checkpoint, previews and export,
and this one estimates. One process says its own peak; of several the sum is read, every few milliseconds, because they
have their peaks at different moments.
Linux only (/proc). The figures stand in docs/operations.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reca_core.contracts.estimate import EstimateRequest
from reca_core.contracts.files import write_json
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.records import ResolvedModel
from reca_core.contracts.registry import FAMILIES
from reca_core.contracts.requests import LossTerms, TrainRequest
from tests.reca_core.loading_memory import MIB, RESET_PEAK, WIDENED, changed_language, enlarged, resident, size_of

MODULE = "tests.reca_core.training_memory"
MEASURED = "measured: "
"""Before the bytes after the imports and those at the peak, which a rank writes last."""
LOOK_SECONDS = 0.005
"""Between two looks at the ranks' resident sizes."""
TERMS = LossTerms(reconstruction=1, image_to_text=0, text_to_image=0, text=0)
QUICK: dict[str, Any] = {"steps": 2, "images_per_step": 1, "checkpoint_every_steps": 2}
"""One checkpoint, at the end: of one that is written during a step the kernel decides how long its copy lives."""


WIDTH, LAYERS = 16384, "num_hidden_layers"
"""Between the two matrices of a layer."""


def deeper(model: Any, settings: dict[str, Any], extra: int) -> Any:
    """The configuration with so many more layers."""

    def change(text: dict[str, Any]) -> None:
        text.pop("layer_types", None)  # written out for the old number
        text.update({WIDENED: WIDTH, LAYERS: text[LAYERS] + extra})

    return changed_language(model, settings, change)


@dataclass(frozen=True)
class Compared:
    """One training, in bytes."""

    family: str
    size: int
    estimated: int
    measured: int
    moment: str
    """Where the estimate has its peak."""

    @property
    def ratio(self) -> float:
        """Estimate over measurement."""
        return self.estimated / self.measured


def make(family: str, place: Path, size: int, **settings: Any) -> TrainRequest:
    """A training of a checkpoint of at least ``size`` bytes."""
    from tests.reca_core.training_rig import request

    directory = place / "wide"
    if not directory.exists():
        enlarged(family, size, deeper).save(directory)
    model = ResolvedModel(name=family, family=family, path=str(directory), sha256=sha256_tree(directory))
    pictures = {"images_per_step": settings.get("processes", 1)}
    return request(place, "run", TERMS, **{**QUICK, **pictures, **settings}).model_copy(update={"model": model})


def estimated(asked: TrainRequest, place: Path) -> tuple[int, str]:
    """The peak that is foreseen for it, and when."""
    from reca_core.training.needs import measure

    need = measure(
        EstimateRequest(
            family=asked.model.family,
            path=asked.model.path,
            losses=asked.losses,
            captions=asked.captions,
            training=asked.training,
            pictures=asked.data.pictures,
            directory=str(place),
            answer="",
        ),
        "cpu",
    ).need
    return need.host_peak, max(need.host, key=lambda moment: need.host[moment])


def child(file: Path) -> tuple[int, int]:
    """Train as this rank; its resident size after the imports, and the largest since."""
    from reca_core.models.load import adapter_class
    from reca_core.training import run

    asked = TrainRequest.model_validate_json(file.read_bytes())
    adapter_class(asked.model.family)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    run.main(asked)
    return before, resident("VmHWM")


def compare(family: str, place: Path, size: int, **settings: Any) -> Compared:
    """Estimate here, measure in fresh processes."""
    asked = make(family, place, size, **settings)
    peak, moment = estimated(asked, place)
    write_json(place / "request.json", asked.model_dump())
    ranks = asked.training.processes
    agent = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *agent, "-m", MODULE, "--child", str(place / "request.json")]
    with (place / "output").open("w+") as output, (place / "errors").open("w+") as errors:
        with subprocess.Popen(command, stdout=output, stderr=errors) as running:
            together = largest_sum(running, RunDirectory(Path(asked.run_directory)).pids)
        if running.returncode:
            raise RuntimeError((place / "errors").read_text())
    lines = (place / "output").read_text().splitlines()
    said = [json.loads(line.removeprefix(MEASURED)) for line in lines if line.startswith(MEASURED)]
    if len(said) != ranks:
        raise RuntimeError(f"{len(said)} of {ranks} ranks said what they measured")
    highest = together if ranks > 1 else said[0][1]
    return Compared(family, size_of(place / "wide"), peak, highest - sum(before for before, _ in said), moment)


def largest_sum(running: subprocess.Popen[bytes], pids: Path) -> int:
    """The most that the ranks named in the file had at one time, until the process ends."""
    most = 0
    while running.poll() is None:
        ranks = json.loads(pids.read_bytes())["ranks"] if pids.exists() else []
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, StopIteration):  # one has ended
            most = max(most, sum([resident("VmRSS", rank) for rank in ranks]))
        time.sleep(LOOK_SECONDS)
    return most


HEADER = (
    "| family | settings | checkpoint, MiB | estimated, MiB | measured, MiB | ratio | peak at |\n" + "|---" * 7 + "|"
)


def main() -> None:
    """Compare and write the table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a training setting")
    parser.add_argument("--child", metavar="REQUEST", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        sys.stdout.write(f"{MEASURED}{json.dumps(child(Path(options.child)))}\n")
        return
    pairs = (word.partition("=") for word in options.set)
    settings = {name: json.loads(value) if value[:1].isdigit() else value for name, _, value in pairs}
    sys.stdout.write(HEADER + "\n")
    for family in options.family or FAMILIES:
        with tempfile.TemporaryDirectory(prefix="training-memory-") as place:
            row = compare(family, Path(place), options.mib * MIB, **settings)
            cells = (family, " ".join(options.set) or "-", row.size // MIB, row.estimated // MIB, row.measured // MIB)
            sys.stdout.write("| " + " | ".join(map(str, (*cells, f"{row.ratio:.2f}", row.moment))) + " |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
