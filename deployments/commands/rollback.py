"""``reca rollback NAME``: the version before the champion is champion again, in the stack of this home if it runs."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from deployments.commands.run import run
from deployments.context import Context
from deployments.stack_up import running


def rollback(options: Namespace, context: Context) -> int:
    """Start the flow. Where the stack of this home runs and no server was named, its servers hear of it."""
    sets = [*options.sets, *([f"rollback.name={options.name}"] if options.name else [])]
    chosen = context.surroundings
    stack = running(chosen.home.root) if chosen.embedded else None
    surroundings = stack.surroundings(chosen) if stack is not None else chosen
    return run(Namespace(**{**vars(options), "sets": sets}), replace(context, surroundings=surroundings))
