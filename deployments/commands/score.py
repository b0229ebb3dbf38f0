"""``reca score BENCHMARK``: recorded answers to scores by the benchmark's rules, without any model or home."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.context import Context
from evaluation.score import FILE_FIELDS, RecordedFiles, result_bytes, score_recorded
from reca_core.contracts.errors import EXIT_DONE, EXIT_INCOMPLETE, BadInput
from reca_core.contracts.files import atomic_write_bytes

STANDARD_OUTPUT = "-"


def score(options: Namespace, context: Context) -> int:
    """Write the result where it was asked for; status 5 where an item could not be scored."""
    result = score_recorded(options.benchmark, recorded_files(options, context), options.arithmetic)
    unscored = sum(item["unscored"] is not None for run in runs(result) for item in run["items"])
    exit_code = EXIT_INCOMPLETE if unscored else EXIT_DONE
    if unscored:
        context.terminal.note(f"{unscored} of the items could not be scored; each says why under unscored")
    if options.output == STANDARD_OUTPUT:
        context.terminal.write(result_bytes(result))
        return exit_code
    output = context.path(options.output)
    if output.is_dir():
        raise BadInput("is a folder", field=f"--output {options.output}", remedy="name a file in it")
    try:
        atomic_write_bytes(output, result_bytes(result))
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", field=f"--output {options.output}") from error
    context.terminal.line(f"written: {output}")
    context.terminal.answer({"output": str(output), "unscored": unscored}, exit_code)
    return exit_code


def recorded_files(options: Namespace, context: Context) -> RecordedFiles:
    """The files that were named, absolute, and how they are to be read."""
    named = {name: getattr(options, name) for name in FILE_FIELDS}
    paths = {name: context.path(typed) for name, typed in named.items() if typed is not None}
    defaults = RecordedFiles()
    data = context.surroundings.benchmark_data
    return dataclasses.replace(
        defaults,
        **paths,
        layout=options.layout or defaults.layout,
        pictures=defaults.pictures if options.pictures is None else options.pictures,
        benchmark_data=context.path(data) if data else None,
    )


def runs(result: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The single result, or each of several runs."""
    return result["runs"].values() if "runs" in result else [result]
