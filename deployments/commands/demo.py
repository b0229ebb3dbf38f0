"""``reca demo``: the whole chain on the bundled tiny model, with the recipe ``demo``, on any two CPU cores."""

from __future__ import annotations

from argparse import Namespace

from deployments import recipes
from deployments.commands.run import execute, read_parameters
from deployments.context import Context

FLOW = "train-then-evaluate"


def demo(options: Namespace, context: Context) -> int:
    """Prepare, post-train, register, draw, judge, compare, report. A second run reuses what is there."""
    context.terminal.note(
        "Post-trains the bundled tiny Janus on rendered scenes without captions, measures it before and after with "
        f"GenEval's rules in that world, and compares. Everything is kept in {context.surroundings.home.root}."
    )
    return execute(FLOW, read_parameters(FLOW, recipes.demo(), options, context), context)
