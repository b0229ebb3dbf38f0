"""Where the numbers of a report come from: model, data, hashes, seeds, times, and how to look further."""

from __future__ import annotations

import json
import math
import shlex
import struct
from pathlib import Path
from typing import Any

from reca_core.contracts.files import read_jsonl
from reca_core.contracts.home import RunDirectory
from tasks.report_inputs import BenchmarkPair, Measured, ReportInputs

LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header as a 64-bit little-endian number."""
HEADER_LIMIT_BYTES = 100_000_000
"""The format's own limit; a longer header means a damaged file."""
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
SECONDS_PER_MINUTE = 60

Facts = tuple[tuple[str, str], ...]


def parameter_count(directory: Path) -> int:
    """Numbers in the safetensors files of a checkpoint, from their headers alone; 0 where there are none."""
    return sum(_count(path) for path in sorted(directory.glob("*.safetensors")))


def _count(path: Path) -> int:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(LENGTH_BYTES))
        if length > HEADER_LIMIT_BYTES:
            return 0
        header = json.loads(stream.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def size_in_words(directory: Path) -> str:
    """``a model of 1.4 M parameters``, as far as the files tell."""
    count = parameter_count(directory)
    for unit, letter in UNITS:
        if count >= unit:
            return f"a model of {count / unit:.3g} {letter} parameters"
    return "a model of unknown size"


def duration(seconds: float) -> str:
    """``4.2 s`` or ``3 min 05 s``."""
    if seconds < SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    return f"{int(seconds // SECONDS_PER_MINUTE)} min {int(seconds % SECONDS_PER_MINUTE):02d} s"


def read_request(directory: Path) -> dict[str, Any]:
    """The request a stage was started with; empty where the stage left none."""
    path = directory / "request.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def facts(inputs: ReportInputs) -> Facts:
    """Provenance, name and value, in the order of the pipeline."""
    request = read_request(inputs.training_directory)
    model, training = request.get("model", {}), request.get("training", {})
    files = "1 file" if inputs.quarantined == 1 else f"{inputs.quarantined} files"
    unusable = f"; {files} could not be used" if inputs.quarantined else ""
    found = [
        ("base model", f"{inputs.base_name} ({model.get('source', '')})"),
        ("base weights, SHA-256", model.get("sha256", "")),
        ("pictures", f"{inputs.pictures} from {request.get('data', {}).get('source', '')}{unusable}"),
        ("data digest", request.get("data", {}).get("digest", "")),
        ("captions left out", _left_out(RunDirectory(inputs.training_directory))),
        ("loss terms", _plain(request.get("losses", {}))),
        ("training", _plain(training)),
        ("training request", inputs.training_directory.name),
        ("registered version", inputs.version),
        ("code", _code(inputs.training_directory)),
        *(fact for pair in inputs.benchmarks for fact in _measured(pair)),
        ("reused from an earlier run", ", ".join(inputs.reused)),
    ]
    return tuple((name, value) for name, value in found if value)


def _left_out(training: RunDirectory) -> str:
    """Rows of the caption file whose picture could not be used, in words; empty where there are none."""
    rows = sum(1 for _ in read_jsonl(training.left_out_captions))
    return f"{rows}, whose pictures could not be used: {training.left_out_captions.name}" if rows else ""


def _code(directory: Path) -> str:
    """Commit and package versions, as far as the training wrote them down."""
    path = directory / "provenance.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text(encoding="utf-8"))
    return f"commit {record.get('git_commit') or 'unknown'}; {_plain(record.get('versions', {}))}"


def _measured(pair: BenchmarkPair) -> Facts:
    table = pair.base.table
    seeds = f"{table.seeds[0]} to {table.seeds[-1]}" if table.seeds else "none"
    return (
        (f"{pair.benchmark}: prompts, SHA-256", table.prompts_sha256),
        (f"{pair.benchmark}: seeds", seeds),
        (f"{pair.benchmark}: arithmetic", table.arithmetic),
        (f"{pair.benchmark}: judge", _plain(table.judge.model_dump())),
        (f"{pair.benchmark}: answers", f"{_folder(pair.base)} and {_folder(pair.trained)}"),
    )


def _folder(measured: Measured) -> str:
    return f"{measured.answers_directory.parent.name}/{measured.answers_directory.name}"


def _plain(values: dict[str, Any]) -> str:
    """Settings in words, nested ones in brackets, empty ones left out."""
    shown = {
        name: f"({_plain(value)})" if isinstance(value, dict) else value for name, value in values.items() if value
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def commands(inputs: ReportInputs) -> Facts:
    """What a reader may want next, and the command for it."""
    home = inputs.training_directory.parents[1]
    answers = [pair for pair in inputs.benchmarks if pair.comparison is not None]
    found = [
        (f"compare again: {pair.benchmark}", ["reca", "--home", str(home), "compare", *_hashes(pair)])
        for pair in answers
    ]
    if inputs.links.mlflow_store and not inputs.links.mlflow:
        store = ["mlflow", "server", "--workers", "1", "--backend-store-uri", inputs.links.mlflow_store]
        found.append(("MLflow, at http://127.0.0.1:5000", store))
    lines = [(name, shlex.join(words)) for name, words in found]
    if inputs.links.rerun:
        lines.append(("repeat this run", inputs.links.rerun))
    if inputs.links.prefect:
        return tuple(lines)
    prefect = f"PREFECT_HOME={shlex.quote(str(home / 'prefect'))} prefect server start"
    return (*lines, ("Prefect, at http://127.0.0.1:4200", prefect))


def _hashes(pair: BenchmarkPair) -> list[str]:
    return [pair.base.answers_directory.name, pair.trained.answers_directory.name]


def links(inputs: ReportInputs) -> Facts:
    """Addresses that a browser may open: http only, whatever a record may claim."""
    waits = "" if inputs.links.mlflow else ", once its server runs (below)"
    views = [(f"MLflow: {name}{waits}", url) for name, url in inputs.links.views.items()]
    named = [("flow run in Prefect", inputs.links.prefect), ("run in MLflow", inputs.links.mlflow), *views]
    return tuple((name, url) for name, url in named if url.startswith(("http://", "https://")))
