"""Options that stand for settings: ``reca evaluate --benchmark geneval --images DIR`` is two ``--set`` in fewer words.

Only the standard library: the grammar imports this (deployments/arguments.py).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shortcut:
    """One option."""

    option: str
    setting: str
    metavar: str
    help: str
    is_path: bool = False
    """Relative ones mean the person's directory, which nobody below the command line knows."""
    repeatable: bool = False


MODEL = Shortcut("--model", "model.source", "MODEL", "bundled name, directory, hub id, or models:/NAME@ALIAS")
IMAGES = Shortcut(
    "--images", "evaluation.pictures_from", "DIR", "judge the pictures in this folder; no model draws", is_path=True
)
MEASURING = (
    Shortcut("--benchmark", "evaluation.benchmarks", "ID", "what to measure; repeatable", repeatable=True),
    Shortcut("--judge", "judge.judge", "NAME", "published, detector, onnx, vqa, openai, local or shapeworld"),
    Shortcut("--judge-model", "judge.model", "MODEL", "what an endpoint calls its model, or a hub id"),
    Shortcut("--judge-url", "judge.url", "URL", "endpoint up to and including /v1"),
    Shortcut("--judge-weights", "judge.weights", "PATH", "weights file or folder", is_path=True),
    Shortcut("--protocol", "judge.protocol", "NAME", "default, or published: as upstream asked"),
    Shortcut("--concurrency", "judge.concurrency", "N", "requests at once"),
    Shortcut("--timeout-seconds", "judge.timeout_seconds", "S", "longest wait for one reply"),
    Shortcut("--attempts", "judge.attempts", "N", "how often one question is tried"),
    Shortcut("--max-requests", "judge.max_requests", "N", "limit of one judging"),
    Shortcut("--max-cost", "judge.max_cost_dollars", "DOLLARS", "limit of one judging; needs prices"),
    Shortcut("--arithmetic", "evaluation.arithmetic", "NAME", "corrected, or parity with the published script"),
)
OF_FLOW: dict[str, Sequence[Shortcut]] = {
    "evaluate": (MODEL, IMAGES, *MEASURING),
    "re-evaluate": MEASURING,
    "train-then-evaluate": (MODEL, *MEASURING),
    "post-train": (MODEL,),
    "rollback": (
        Shortcut("--to", "rollback.to", "NUMBER", "version to go back to; otherwise the champion before"),
        Shortcut("--reason", "rollback.reason", "TEXT", "kept with the version that is taken back"),
        Shortcut("--alias", "rollback.alias", "ALIAS", "the alias that moves"),
    ),
}
"""Flow -> its options; ``reca run FLOW`` takes ``--set`` only."""


def add_shortcuts(parser: argparse.ArgumentParser, flow: str) -> None:
    """Give a flow's command its options."""
    for shortcut in OF_FLOW.get(flow, ()):
        parser.add_argument(
            shortcut.option,
            action=_Sets,
            const=shortcut,
            dest="sets",
            metavar=shortcut.metavar,
            help=f"{shortcut.help} ({shortcut.setting})",
            default=argparse.SUPPRESS,
        )


class _Sets(argparse.Action):
    """Appends ``setting=value`` to what ``--set`` collects."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Take one value."""
        shortcut: Shortcut = self.const
        value = os.path.abspath(os.path.expanduser(values)) if shortcut.is_path else str(values)
        sets, start = list(getattr(namespace, "sets", ())), f"{shortcut.setting}="
        before = next((given for given in sets if given.startswith(start)), "") if shortcut.repeatable else ""
        if before:
            sets[sets.index(before)] = f"{before},{value}"
        else:
            sets.append(f"{start}{value}")
        namespace.sets = sets
