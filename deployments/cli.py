"""``reca``: the command line. Reads the arguments, decides where everything lives, runs one command, sets the status.

    reca --help        the commands (deployments/arguments.py holds the grammar)
    reca demo          the whole chain on the bundled tiny model

Nothing heavy is imported before the command is known: flows import Prefect, which reads its settings at import, after
``environment.enter`` has decided them.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from deployments import arguments
from reca_core.contracts.errors import EXIT_INTERRUPTED, RecaError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (reca_core/contracts/errors.py)."""
    words = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        options = arguments.build().parse_args(words)
    except RecaError as error:
        return _refuse(error, as_json="--json" in words)
    return _run(_with_defaults(options))


def _as_interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A polite kill ends a run as Ctrl-C does: children first."""
    raise KeyboardInterrupt


def _with_defaults(options: Namespace) -> Namespace:
    typed = dict.fromkeys(("home", "prefect_url", "mlflow_uri", "benchmark_data", "auth"), "")
    return Namespace(**({"as_json": False, "verbose": False} | typed | vars(options)))


def _refuse(error: RecaError, *, as_json: bool) -> int:
    from deployments.terminal import Terminal

    Terminal(as_json=as_json).fault(error)
    return error.exit_code


def _run(options: Namespace) -> int:
    from deployments.context import Context
    from deployments.environment import Wishes, decide
    from deployments.terminal import Terminal

    terminal = Terminal(as_json=options.as_json)
    try:
        here = Path.cwd()
        wishes = Wishes(options.home, options.prefect_url, options.mlflow_uri, options.benchmark_data, options.auth)
        chosen = decide(wishes, os.environ, here)
        return _command(options.target)(options, Context(terminal, chosen, here, verbose=options.verbose))
    except RecaError as error:
        terminal.close()
        terminal.fault(error)
        return error.exit_code
    except KeyboardInterrupt:
        terminal.close()
        terminal.note("interrupted; what was finished is kept, and the same command goes on from there")
        terminal.answer({}, EXIT_INTERRUPTED)
        return EXIT_INTERRUPTED
    finally:
        terminal.close()


def _command(target: str) -> Callable[..., int]:
    module, _, name = target.partition(":")
    function: Callable[..., int] = getattr(importlib.import_module(module), name)
    return function


if __name__ == "__main__":
    sys.exit(main())
