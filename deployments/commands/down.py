"""``reca down``: ends every process of this home's stack, also what a crash left behind. Databases and logs stay."""

from __future__ import annotations

from argparse import Namespace

from deployments.context import Context
from deployments.stack import stack_folder
from deployments.stack_up import alone
from deployments.stack_up import down as take_down
from reca_core.contracts.errors import EXIT_DONE


def stop(options: Namespace, context: Context) -> int:
    """Stop it all. Runs that are going on are told first; they go on from their last checkpoint after ``reca up``."""
    home = context.surroundings.home.root
    ended = 0
    if home.is_dir():
        stack_folder(home).mkdir(exist_ok=True)
        with alone(home):
            ended = take_down(home)
    context.terminal.note(f"ended {ended} processes; databases and logs stay in {home}" if ended else "nothing runs")
    context.terminal.answer({"ended": ended})
    return EXIT_DONE
