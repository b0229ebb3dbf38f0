"""``reca rerun RUN``: the same request again. What is there already is found, as ever; ``--fresh`` reuses nothing.

A fresh repetition lives in a home of its own below ``reruns/`` and is compared with the first, stage by stage: weights,
pictures and scores are the same, or it says which are not (exit status 5).
"""

from __future__ import annotations

import dataclasses
import json
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployments.commands.run import execute
from deployments.context import Context
from deployments.environment import enter
from deployments.reruns import StoredFlow, StoredStage, find
from reca_core.contracts.errors import EXIT_DONE, EXIT_INCOMPLETE
from reca_core.contracts.hashing import request_hash, sha256_file
from reca_core.contracts.home import Home, RunDirectory

FRESH = "reruns"
DONE = "DONE.json"
KINDS = ("runs", "samples", "answers")


def rerun(options: Namespace, context: Context) -> int:
    """Repeat a run and return its exit status; of a fresh repetition, 5 where something came out differently."""
    stored = find(options.run, context)
    if not options.fresh:
        return _repeat(stored, context)
    first = context.surroundings.home
    anew = _elsewhere(context)
    status = _repeat(stored, anew)
    differing = list(_differences(first, anew.surroundings.home))
    for line in differing:
        context.terminal.line(f"not the same: {line}")
    if not differing:
        context.terminal.line(f"the same, to the last bit: {anew.surroundings.home.root}")
    return EXIT_INCOMPLETE if differing else status


def _repeat(stored: StoredFlow | StoredStage, context: Context) -> int:
    if isinstance(stored, StoredFlow):
        return execute(stored.flow, stored.parameters, context)
    home = context.surroundings.home
    elsewhere = home.root not in stored.directory.path.parents and home.root.parent.name == FRESH
    if elsewhere:
        kind = stored.directory.path.parent.name
        stored = stored.at(RunDirectory(home.root / kind / stored.directory.path.name))
    return _run_stage(stored, context)


def _elsewhere(context: Context) -> Context:
    """The same surroundings with a new home, and its own files for tracking."""
    name = time.strftime("%Y%m%d-%H%M%S")
    home = Home(context.surroundings.home.root / FRESH / name)
    store = f"sqlite:///{home.mlflow / 'mlflow.db'}"
    moved = dataclasses.replace(context.surroundings, home=home, prefect_url="", mlflow_uri=store)
    return dataclasses.replace(context, surroundings=moved)


def _run_stage(stored: StoredStage, context: Context) -> int:
    """A stage by its own child process."""
    enter(context.surroundings)
    from tasks.progress import listening
    from tasks.stage import Stage, run_or_reuse

    stage: Stage[Any] = Stage(
        name=stored.name,
        module=stored.module,
        command=stored.command,
        request=stored.request,
        directory=stored.directory,
        result=stored.result,
        fault=lambda result: "",
    )
    with listening(context.terminal):
        finished = run_or_reuse(stage)
    context.terminal.line(f"{'found' if finished.reused else 'made'} in {finished.seconds:.1f} s")
    context.terminal.line(f"run directory {stored.directory.path}")
    context.terminal.answer(
        {
            "run_directory": str(stored.directory.path),
            "request_hash": request_hash(stored.request),
            "reused": finished.reused,
            "seconds": round(finished.seconds, 2),
        }
    )
    return EXIT_DONE


def _differences(first: Home, again: Home) -> Iterator[str]:
    """Stages that both homes have finished and whose results differ, in words."""
    for kind in KINDS:
        for done in sorted((again.root / kind).glob(f"*/{DONE}")):
            before = first.root / kind / done.parent.name
            if (before / DONE).is_file() and fingerprint(before) != fingerprint(done.parent):
                yield f"{kind}/{done.parent.name}"


def fingerprint(directory: Path) -> str:
    """What a stage's result is, without where and when it was made."""
    kind = directory.parent.name
    if kind == "samples":
        return sha256_file(directory / "samples.jsonl")
    done = json.loads((directory / DONE).read_text(encoding="utf-8"))
    return json.dumps(done["checkpoint"]["sha256"] if kind == "runs" else done["tables"], sort_keys=True)
