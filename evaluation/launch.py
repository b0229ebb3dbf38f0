"""The measure's front door: ``python -m evaluation.launch judge|ahead|collect REQUEST.json``.

Started as a child by the control plane, or by hand. It ties its life to its parent's before anything heavy loads, and
turns errors into exit statuses (``reca_core.contracts.errors``); what a judge needs is loaded only when it is opened.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from evaluation.ahead import main as ahead
from evaluation.collect import main as collect
from evaluation.records import CollectRequest, JudgeRequest
from evaluation.runner import main as judge
from reca_core.contracts.base import Config
from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, BadInput, RecaError
from reca_core.contracts.lifeline import die_with_parent

MODULE = "evaluation.launch"
R = TypeVar("R", bound=Config)

log = logging.getLogger(MODULE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one judging, ask ahead of one, or look at one folder of pictures; returns the exit status."""
    die_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "judge": lambda path: judge(_read(path, JudgeRequest)),
        "ahead": lambda path: ahead(_read(path, JudgeRequest)),
        "collect": lambda path: collect(_read(path, CollectRequest)),
    }
    if len(given) != len(("COMMAND", "REQUEST.json")) or given[0] not in commands:
        sys.stderr.write(f"usage: python -m {MODULE} {'|'.join(commands)} REQUEST.json\n")
        return EXIT_BAD_INPUT
    try:
        commands[given[0]](Path(given[1]))
    except RecaError as error:
        log.error("%s", error)
        return error.exit_code
    return EXIT_DONE


def _read(path: Path, kind: type[R]) -> R:
    """The request in a file. Raises BadInput naming the file and the fields at fault."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"cannot be read as a {kind.__name__}: {error}", field=str(path)) from error


if __name__ == "__main__":
    sys.exit(main())
