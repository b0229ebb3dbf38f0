"""What orchestration costs: section ``orchestration`` of ``make bench``.

The same run twice, both with the servers up: once as a flow, then by hand, which is a shell loop over the same child
commands with the same request files (only the home in them is another). The difference is what Prefect, MLflow and our
own tasks take. Flow and hand alternate, so that a machine that slows down slows both. The start of the command and of
an embedded server is told apart: a worker pays the first once per run, and nobody the second while a stack is up.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.catalogue import FLOWS
from deployments.embedded import free_port
from reca_core.contracts.bench import BenchPlace, Figure
from reca_core.contracts.errors import EXIT_DONE, EXIT_INCOMPLETE, StageFailed
from reca_core.contracts.lifeline import PARENT_VARIABLE
from tasks.processes import environment_for_children, module_command

PAIRS, QUICK_PAIRS = 5, 1
COMMAND_SECONDS = 1800.0
HOUR_SECONDS = 3600.0
FLOW = "train-then-evaluate"
SCENES, STEPS, FIRST_SCENE, SCENES_APART = 60, 12, 20_000, 1_000
DOORS = {
    "prepare": ("reca_core.launch", "prepare"),
    "train": ("reca_core.launch", "train"),
    "samples": ("reca_core.launch", "sample"),
    "answers": ("evaluation.launch", "judge"),
}
"""Kind of a request -> module and command of its child."""


@dataclass(frozen=True)
class Pair:
    """One run both ways."""

    flow_seconds: float
    """From the first task to the last, imports of the command left out."""
    hand_seconds: float
    stages: int
    """Children."""
    start_seconds: float
    """Of the command: imports, and looking at the servers."""

    @property
    def per_stage(self) -> float:
        """What orchestration adds to one stage."""
        return (self.flow_seconds - self.hand_seconds) / self.stages


def orchestration(place: BenchPlace) -> list[Figure]:
    """Seconds that orchestration adds per stage and to a run of an hour; start of command and server apart."""
    home = place.folder / "home"
    prefect, mlflow = free_port(), free_port()
    reca(home, "up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow))
    try:
        servers = ("--prefect-url", f"http://127.0.0.1:{prefect}/api", "--mlflow-uri", f"http://127.0.0.1:{mlflow}")
        count = QUICK_PAIRS if place.quick else PAIRS
        pairs = [one_pair(home, place.folder / f"hand-{number}", number, servers) for number in range(count)]
    finally:
        reca(home, "down")
    alone = reca(place.folder / "embedded", "run", "prepare", "--set", "images.scenes=20", "--json")
    return figures(pairs, float(json.loads(alone)["startup_seconds"]))


def figures(pairs: list[Pair], embedded_seconds: float) -> list[Figure]:
    """Medians. Pure."""
    how = f"median of {len(pairs)}, {pairs[0].stages} children, {FLOW} of tiny-janus, servers up here, sqlite"
    added = statistics.median(pair.flow_seconds - pair.hand_seconds for pair in pairs)
    values = [
        ("flow", statistics.median(pair.flow_seconds for pair in pairs), "s"),
        ("by hand", statistics.median(pair.hand_seconds for pair in pairs), "s"),
        ("flow minus by hand, per stage", statistics.median(pair.per_stage for pair in pairs), "s"),
        ("flow minus by hand, of a run of an hour", 100 * added / HOUR_SECONDS, "%"),
        ("start of the command", statistics.median(pair.start_seconds for pair in pairs), "s"),
    ]
    found = [Figure(what=what, value=value, unit=unit, how=how) for what, value, unit in values]
    single = "once, reca run prepare in a new home: imports, two new databases and the server"
    return [*found, Figure(what="start with an embedded server", value=embedded_seconds, unit="s", how=single)]


def one_pair(home: Path, hand: Path, number: int, servers: tuple[str, ...], flow: str = FLOW) -> Pair:
    """One run as a flow, then the same children by hand.

    Args:
        home: where the flow works.
        hand: an empty folder for the children.
        number: makes this run another than those before it: nothing may be found done.
        servers: options that name the servers.
    """
    before = set(_requests(home))
    began = time.monotonic()
    said = reca(home, "run", flow, "--json", *servers, *_settings(number, flow))
    seconds = time.monotonic() - began
    start = float(json.loads(said)["startup_seconds"])
    made = [file for file in _requests(home) if file not in before]
    return Pair(seconds - start, _by_hand(home, hand, made), len(made), start)


def _settings(number: int, flow: str) -> list[str]:
    """Little work, and other work for every number."""
    chosen = {
        "images.scenes": SCENES,
        "images.scene_seed": FIRST_SCENE + SCENES_APART * number,
        "training.steps": STEPS,
        "training.images_per_step": 4,
        "training.warmup_steps": 1,
        "training.seed": number,
        "evaluation.prompts_per_tag": 1,
        "evaluation.pictures_per_prompt": 1,
        "evaluation.first_seed": FIRST_SCENE + number,
    }
    taken = {name: value for name, value in chosen.items() if name.partition(".")[0] in FLOWS[flow].parameters}
    return [word for name, value in taken.items() for word in ("--set", f"{name}={value}")]


def _requests(home: Path) -> list[Path]:
    """Request files in the order in which they were written."""
    found = [file for room in ("runs", "samples", "answers") for file in home.glob(f"{room}/*/request.json")]
    return sorted(found, key=lambda file: file.stat().st_mtime_ns)


def _by_hand(home: Path, hand: Path, requests: list[Path]) -> float:
    """Seconds of the shell loop. Raises StageFailed where a child does not end well."""
    lines = ["set -e"]
    for file in requests:
        own = hand / file.relative_to(home)
        own.parent.mkdir(parents=True, exist_ok=True)
        for name in ("request.json", "prompts.jsonl"):
            if (file.parent / name).is_file():
                (own.parent / name).write_text((file.parent / name).read_text().replace(str(home), str(hand)))
        command = module_command(*DOORS[_kind(file)], str(own))
        lines.append(" ".join(f"'{word}'" for word in command) + f" >> '{own.parent / 'log.txt'}' 2>&1")
    script = hand / "loop.sh"
    script.write_text("\n".join(lines) + "\n")
    environment = environment_for_children(os.environ)
    del environment[PARENT_VARIABLE]  # their parent is the shell
    began = time.monotonic()
    done = subprocess.run(["sh", str(script)], env=environment, timeout=COMMAND_SECONDS, check=False)
    if done.returncode != EXIT_DONE:
        raise StageFailed(f"the children ended with status {done.returncode} by hand", field=str(script))
    return time.monotonic() - began


def _kind(file: Path) -> str:
    room = file.parent.parent.name
    if room != "runs":
        return room
    request: dict[str, Any] = json.loads(file.read_text())
    return "prepare" if "images" in request else "train"


def reca(home: Path, *words: str) -> str:
    """The command, as a person starts it; returns its standard output. Raises StageFailed with what it said."""
    command = [sys.executable, "-m", "deployments.cli", *words, "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    if done.returncode not in (EXIT_DONE, EXIT_INCOMPLETE):
        raise StageFailed(f"reca {words[0]} ended with status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
