"""``reca fetch BENCHMARK``: its prompts, tables, judge texts and source pictures, each checked against its hash."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from deployments.context import Context
from evaluation.fetch import fetch as fetch_files
from reca_core.contracts.errors import EXIT_DONE


def fetch(options: Namespace, context: Context) -> int:
    """Make the files present and right, or check those of ``--benchmark-data``; the last line names the folder."""
    chosen = context.surroundings
    folder = fetch_files(
        options.benchmark,
        chosen.home.cache,
        local=Path(chosen.benchmark_data) if chosen.benchmark_data else None,
        pictures=options.pictures,
        report=context.terminal.note,
    )
    context.terminal.line(f"{options.benchmark}: {folder / options.benchmark}")
    context.terminal.answer({"benchmark": options.benchmark, "folder": str(folder)})
    return EXIT_DONE
