"""``reca demo``: the whole chain on the bundled tiny model, with the recipe ``demo``, on any two CPU cores."""

from __future__ import annotations

from argparse import Namespace

from deployments import recipes
from deployments.commands.run import execute, look_ahead, read_parameters
from deployments.context import Context

DEMO, FULL = "demo", "tiny-study"


def demo(options: Namespace, context: Context) -> int:
    """Prepare, post-train, register, draw, judge, compare, report. A second run reuses what is there."""
    recipe = FULL if options.full else DEMO
    flow = recipes.flow_of(recipe)
    parameters = read_parameters(flow, recipes.find(recipe), options, context)
    if options.dry_run or options.print_hash:
        return look_ahead(flow, recipe, options, parameters, context)
    context.terminal.note(
        "Post-trains a tiny model on rendered scenes without captions, measures it before and after with GenEval's "
        f"rules in that world, and compares. Everything is kept in {context.surroundings.home.root}."
    )
    return execute(flow, parameters, context)
