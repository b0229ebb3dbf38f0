"""``reca status``: one line per part of the stack, and its links; exit status 0 only if every part answers, else 3."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from deployments.context import Context
from deployments.stack import read_stack
from deployments.stack_health import health
from deployments.stack_links import links, tell_links
from deployments.stack_processes import resident_megabytes
from reca_core.contracts.errors import EXIT_DONE, EXIT_PREREQUISITE


def status(options: Namespace, context: Context) -> int:
    """Ask every part and say what it said."""
    home = context.surroundings.home.root
    parts, memory = health(home), resident_megabytes(home)
    for part in parts:
        held = f"{memory[part.part]:.0f} MB" if part.part in memory else ""
        context.terminal.line(f"{part.part:<8} {'ok' if part.answers else 'DOWN':<5} {held:>7}  {part.fact}")
    exit_code = EXIT_DONE if all(part.answers for part in parts) else EXIT_PREREQUISITE
    if exit_code:
        context.terminal.note("remedy: reca up")
    stack = read_stack(home)
    found: dict[str, str] = {}
    if stack is not None and not exit_code:
        found, first = links(stack)
        tell_links(found, first, context.terminal)
    described = [asdict(part) | {"megabytes": round(memory.get(part.part, 0.0), 1)} for part in parts]
    context.terminal.answer({"parts": described, "links": found}, exit_code)
    return exit_code
