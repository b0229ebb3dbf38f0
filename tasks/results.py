"""What one stage hands to the next: small records, paths and hashes, never pictures or weights."""

from __future__ import annotations

from pathlib import Path

from evaluation.records import Comparison, ScoreTable
from reca_core.contracts.base import Record
from reca_core.contracts.records import CheckpointRef, PreparedData, ResolvedModel, VersionRef


class StageResult(Record):
    """What every stage tells about itself."""

    stage: str
    """Short name for tables, such as ``train`` or ``sample geneval.shapeworld, tiny-janus``."""
    seconds: float
    """Spent in this flow run."""
    reused: bool = False
    """True if the result was there already."""


class FoundVersions(StageResult):
    """Registered versions to look at."""

    models: list[ResolvedModel]
    absent: list[str]
    """Aliases that point nowhere, in words."""


class Prepared(StageResult):
    """A prepared picture set."""

    data: PreparedData


class Trained(StageResult):
    """A finished training."""

    request_hash: str
    directory: str
    """Absolute run directory."""
    checkpoint: CheckpointRef
    base: ResolvedModel
    data: PreparedData
    mlflow_run_id: str
    base_model_id: str
    """LoggedModel of the weights that were trained."""

    def model(self, name: str) -> ResolvedModel:
        """The trained weights under a name for tables."""
        return ResolvedModel(
            name=name,
            family=self.base.family,
            path=self.checkpoint.path,
            sha256=self.checkpoint.sha256,
            source=self.checkpoint.path,
        )


class Registered(StageResult):
    """A version in the registry."""

    version: VersionRef
    model: ResolvedModel
    """The same weights, under the version's name."""


class Sampled(StageResult):
    """Pictures of one model for one benchmark."""

    benchmark: str
    model: ResolvedModel
    directory: str
    """Absolute; holds prompts.jsonl, samples.jsonl and the pictures."""
    prompts_sha256: str
    samples_sha256: str
    """Of samples.jsonl, which holds the hash of every picture."""
    unmade: list[str] = []
    """Why pictures are missing, one entry per picture."""
    pictures_per_prompt: int = 0
    """As many as a folder of pictures had; 0 where they were made as the plan says."""


class Judged(StageResult):
    """What one judge said of one model's pictures."""

    benchmark: str
    model: ResolvedModel
    request_hash: str
    sampled: Sampled
    directory: str
    """Absolute; holds transcript.jsonl, judgments.jsonl and scores.json."""
    table: ScoreTable
    """In the arithmetic that was asked for."""
    unscored: list[str] = []
    """Why pictures are unscored, each reason once with its count."""
    mlflow_run_id: str = ""
    """Of the model on this benchmark."""

    @property
    def scores(self) -> Path:
        """Both tables."""
        return Path(self.directory) / "scores.json"


class Compared(StageResult):
    """Two models on one benchmark."""

    benchmark: str
    base: Judged
    trained: Judged
    comparison: Comparison | None
    refusal: str = ""
    """Why there is no comparison."""
    path: str = ""
    """Absolute path of comparison.json."""
    views: dict[str, str] = {}
    """What MLflow shows of it -> address; empty where there is no comparison."""


class Reported(StageResult):
    """The report."""

    path: str
    """Absolute path of report.html."""
