"""A bad hour: runs are started, killed, cancelled and cut off at random, then everything that is left is counted.

    python -m tests.end_to_end.unlucky --minutes 60 --seed 1

One stack of its own, one run at a time, the smallest model; each run is hit at most three times, so that none has a
right to give up (RECA_RUN_ATTEMPTS is 5). After a blow to server, worker or everything ``reca up`` is called, as a
person or systemd would; nothing else helps. Written at the end, as JSON: how often what happened, and every run of
which anything is missing or there twice. Exit status 1 if there is one. The figures stand in docs/numbers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.end_to_end.rig import processes_of, save_smallest_janus, settings
from tests.end_to_end.stacks import environment_of, reca, up
from tests.end_to_end.test_servers import (
    ENDED,
    Stack,
    cancel,
    children,
    flow_processes,
    free_port,
    of_run,
    state_of,
    tracked,
    trigger,
)

BLOWS_PER_RUN = 3
LONGEST_RUN_SECONDS = 900.0
"""A run that has not ended so long after its last blow is reported as stuck."""
PAUSE_SECONDS = (5.0, 40.0)
"""Between two blows."""
AWAY_SECONDS = (0.0, 120.0)
"""Between a blow and ``reca up``: some are shorter than a silence of 90 s, some longer."""
CANCEL_SHARE = 0.15
EVALUATION = {"prompts_per_tag": 3, "pictures_per_prompt": 1}
ROWS = 18
MODELS = 2
"""The base and the trained one."""


def kill(pids: list[int]) -> None:
    """As the kernel does when memory is short."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def of_part(stack: Stack, part: str) -> list[int]:
    """Processes of a server."""
    return [pid for pid in processes_of(stack.root / "home") if environment_of(pid).get("RECA_STACK_PART") == part]


def worker(stack: Stack) -> list[int]:
    """The worker alone; what it runs carries its mark too."""
    recorded = json.loads((stack.root / "home/stack/stack.json").read_text())["parts"]
    return [recorded["worker"]["pid"]] if "worker" in recorded else []


BLOWS: dict[str, Callable[[Stack], list[int]]] = {
    "a stage": lambda stack: list(children(stack))[:1],
    "the flow": lambda stack: list(flow_processes(stack)),
    "worker and flow": lambda stack: [*worker(stack), *flow_processes(stack)],
    "the Prefect server": lambda stack: of_part(stack, "prefect"),
    "MLflow": lambda stack: of_part(stack, "mlflow"),
    "everything": lambda stack: list(processes_of(stack.root / "home")),
}
MENDED_BY_UP = ("worker and flow", "the Prefect server", "MLflow", "everything")


class BadHour:
    """The runs of one session and what was done to them."""

    def __init__(self, stack: Stack, model: Path, chance: random.Random) -> None:
        self.stack, self.model, self.chance = stack, model, chance
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    def one_run(self, number: int) -> None:
        """From the click to the last count."""
        steps = 100 + number
        parameters = settings(self.model, steps) | {"evaluation": EVALUATION}
        flow_run_id = trigger(self.stack, "train-then-evaluate", parameters)
        blows, cancelled = self._hit(flow_run_id)
        wanted = "CANCELLED" if cancelled else "COMPLETED"
        self.done[wanted.lower()] += 1
        ended = self._wait(flow_run_id, LONGEST_RUN_SECONDS)
        told = f"run {number} ({flow_run_id}, hit by {', '.join(blows) or 'nothing'})"
        if ended != wanted and not (cancelled and ended == "COMPLETED"):  # it may end before it hears of the cancel
            self.faults.append(f"{told}: {ended}, not {wanted}")
        elif ended == "COMPLETED":
            self.faults += [f"{told}: {fault}" for fault in self._miscounted(flow_run_id, steps)]
        sys.stderr.write(f"{time.strftime('%T')} {told}: {ended}\n")

    def _hit(self, flow_run_id: str) -> tuple[list[str], bool]:
        blows: list[str] = []
        for _ in range(self.chance.randint(1, BLOWS_PER_RUN)):
            if self._wait(flow_run_id, self.chance.uniform(*PAUSE_SECONDS)) in ENDED:
                break
            if self.chance.random() < CANCEL_SHARE:
                return [*blows, "a cancel"], self._cancel(flow_run_id)
            blow = self.chance.choice(list(BLOWS))
            victims = BLOWS[blow](self.stack)
            if not victims:
                continue
            kill(victims)
            blows.append(blow)
            self.done[f"killed: {blow}"] += 1
            if blow in MENDED_BY_UP:
                time.sleep(self.chance.uniform(*AWAY_SECONDS))
                result = up(self.stack)
                if result.returncode != 0:
                    self.faults.append(f"reca up after {blow}: {result.returncode} {result.stderr[-500:]}")
        return blows, False

    def _cancel(self, flow_run_id: str) -> bool:
        cancel(self.stack, flow_run_id)
        began = time.monotonic()
        while of_run(self.stack, flow_run_id):
            if time.monotonic() - began > 30:
                self.faults.append(f"{flow_run_id}: processes were left 30 s after a cancel")
                break
            time.sleep(0.25)
        return True

    def _wait(self, flow_run_id: str, seconds: float) -> str:
        deadline, state = time.monotonic() + seconds, ""
        while time.monotonic() < deadline and state not in ENDED:
            time.sleep(1)
            with suppress(httpx.HTTPError):
                state = state_of(self.stack, flow_run_id)
            if state == "CRASHED":  # not an end: it goes on
                state = ""
        return state or "STUCK"

    def _miscounted(self, flow_run_id: str, steps: int) -> list[str]:
        """What is missing or there twice."""
        stack, faults = self.stack, []
        parent = tracked(stack, flow_run_id)["info"]  # raises where there are two
        if parent["status"] != "FINISHED":
            faults.append(f"its MLflow run is {parent['status']}")
        query = {"experiment_ids": ["1"], "filter": f"tags.`mlflow.parentRunId` = '{parent['run_id']}'"}
        below = stack.tracking("POST", "runs/search", query)["runs"]
        tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in below]
        (training,) = [run for run, has in zip(below, tags, strict=True) if has.get("stage") == "train"]
        asked = {"run_id": training["info"]["run_id"], "metric_key": "train/loss", "max_results": 10 * steps}
        points = stack.tracking("GET", "metrics/get-history", asked)["metrics"]
        if sorted(int(point.get("step", 0)) for point in points) != list(range(1, steps + 1)):
            faults.append(f"{len(points)} points of {steps} steps")
        made = {"filter": f"name = 'reca-smallest' and tags.flow_run_id = '{flow_run_id}'"}
        versions = stack.tracking("GET", "model-versions/search", made).get("model_versions", [])
        if len(versions) != 1:
            faults.append(f"{len(versions)} registered versions")
        judged = [Path(has["run_directory"]) for has in tags if has.get("stage") == "benchmark"]
        if len(judged) != MODELS:
            faults.append(f"{len(judged)} judged models, not {MODELS}")
        for answers in judged:
            samples = json.loads((answers / "request.json").read_text())["samples_directory"]
            faults += [*rows_of(answers / "judgments.jsonl"), *rows_of(Path(samples) / "samples.jsonl")]
        return faults


def rows_of(file: Path) -> list[str]:
    """A sample or verdict that is missing or there twice."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    unique = {(row["prompt_id"], row["seed"]) for row in rows}
    right = len(rows) == len(unique) == ROWS
    return [] if right else [f"{file.parent.name}/{file.name}: {len(rows)} rows, {len(unique)} different, not {ROWS}"]


def main() -> int:
    """Print the counts; 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="unlucky-"))
    stack = Stack(root, free_port(), free_port())
    for part in ("worker", "prefect", "mlflow"):
        (root / f"{part}.log").symlink_to(root / f"home/stack/{part}.log")
    first = up(stack)
    if first.returncode != 0:
        sys.stderr.write(first.stderr)
        return 1
    hour = BadHour(stack, save_smallest_janus(root / "smallest"), random.Random(options.seed))
    began, number = time.monotonic(), 0
    try:
        while time.monotonic() - began < options.minutes * 60:
            number += 1
            hour.one_run(number)
    finally:
        reca(root / "home", "down")
        left = list(processes_of(root / "home").values())
        counts: dict[str, Any] = {"runs": number, **hour.done, "faults": hour.faults, "processes_left": left}
        counts |= {"minutes": round((time.monotonic() - began) / 60, 1), "home": str(root)}
        sys.stdout.write(json.dumps(counts, indent=2) + "\n")
    return 1 if hour.faults or left else 0


if __name__ == "__main__":
    raise SystemExit(main())
