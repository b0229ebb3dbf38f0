"""What a benchmark puts into a samples directory before anything is drawn: prompts, companions, source pictures.

``prompts.jsonl`` names source pictures by their place in the directory, so it is the same file on every machine;
pictures of the benchmark's own data are linked to from there, those of the rendered world are written. Everything may
be done twice, also by two processes at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from evaluation.benchmark import Benchmark, SourcePicture
from evaluation.registry import split_id
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.files import atomic_write_bytes, atomic_write_text

PROMPTS_FILE = "prompts.jsonl"
NAMED = 3
"""Missing pictures that an error names."""


def prompts_text(benchmark: Benchmark) -> str:
    """The prompts file: one record per line."""
    return "".join(prompt.model_dump_json() + "\n" for prompt in benchmark.prompts())


def write_prompt_files(directory: Path, benchmark: Benchmark) -> None:
    """Write the prompts, the files that upstream's scorer wants beside the pictures, and what the prompts start from.

    Raises: PrerequisiteMissing naming source pictures that are not in the benchmark's data.
    """
    atomic_write_text(directory / PROMPTS_FILE, prompts_text(benchmark))
    for name, content in benchmark.companions().items():
        file = directory / name
        if not file.exists():
            atomic_write_text(file, content)
    place_sources(directory, benchmark.sources(), benchmark.id)


def place_sources(directory: Path, sources: Mapping[str, SourcePicture], benchmark_id: str) -> None:
    """Put source pictures where the prompts name them. Raises PrerequisiteMissing for files that are not there."""
    missing = [source.file for source in sources.values() if source.file is not None and not source.file.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
        raise PrerequisiteMissing(
            f"{len(missing)} of {len(sources)} source pictures of {benchmark_id} are not there: {named}",
            field="benchmark data",
            remedy=f"reca fetch {split_id(benchmark_id)[0]}, or name their folder with --benchmark-data DIR",
        )
    for name, source in sources.items():
        place = inside(directory, name)
        if source.file is not None:
            link(place, source.file)
        elif not place.is_file():
            atomic_write_bytes(place, source.content)


def link(place: Path, target: Path) -> None:
    """Make ``place`` a symbolic link to ``target``, whatever link was there before."""
    if place.is_symlink() and Path(os.readlink(place)) == target:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, place)


def inside(directory: Path, relative: str) -> Path:
    """A path below ``directory``. Raises BadInput for one that leaves it."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise BadInput(f"{relative!r} leaves the samples directory", field="prompts")
    return directory / pure
