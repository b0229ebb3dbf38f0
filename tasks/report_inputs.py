"""What the report is made from: files and records of finished stages, nothing that has to be computed again.

``tasks.report.write_report`` turns them into one self-contained page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.records import Comparison, ScoreTable


@dataclass(frozen=True)
class Measured:
    """One model on one benchmark."""

    model: str
    """Short name for tables, such as ``tiny-janus`` or ``reca-tiny-janus/3``."""
    table: ScoreTable
    """The table of the arithmetic that was asked for."""
    samples_directory: Path
    """Holds prompts.jsonl (Prompt rows), samples.jsonl (Sample rows) and the pictures they name."""
    answers_directory: Path
    """Holds judgments.jsonl (Judgment rows), scores.json (both arithmetics) and transcript.jsonl."""


@dataclass(frozen=True)
class BenchmarkPair:
    """Base and trained model on one benchmark: the same prompts and seeds on both sides."""

    benchmark: str
    """Full id, such as ``geneval.shapeworld``."""
    base: Measured
    trained: Measured
    comparison: Comparison | None
    """None where the two could not be compared."""
    refusal: str = ""
    """Why not, in words; empty where they were."""


@dataclass(frozen=True)
class Links:
    """Where else to look; each may be empty."""

    prefect: str = ""
    """Address of the flow run in the Prefect UI."""
    mlflow: str = ""
    """Address of the parent run in the MLflow UI; empty where no MLflow server runs."""
    mlflow_store: str = ""
    """Tracking store, for ``mlflow ui --backend-store-uri STORE``."""
    views: Mapping[str, str] = field(default_factory=dict)
    """What MLflow shows of the comparisons -> address."""
    rerun: str = ""
    """The command that repeats the run."""


@dataclass(frozen=True)
class ReportInputs:
    """Everything on the page."""

    title: str
    base_name: str
    trained_name: str
    version: str
    """Registered version, such as ``reca-tiny-janus/3``; empty where nothing was registered."""
    benchmarks: tuple[BenchmarkPair, ...]
    training_directory: Path
    """Run directory: metrics.jsonl, previews/index.jsonl and previews/step-NNNNNNNN/*.png, request.json."""
    pictures: int
    """Pictures trained on."""
    quarantined: int
    """Files that could not be used; quarantine.jsonl beside the manifest says why."""
    data_directory: Path
    """``data/<digest>``."""
    output: Path
    """Absolute path of the report.html to write."""
    preview_prompts: int = 8
    """How many prompts are shown side by side: the first of each tag in turn."""
    links: Links = Links()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage -> seconds of this run, in order."""
    reused: tuple[str, ...] = ()
    """Stages whose result was already there."""
