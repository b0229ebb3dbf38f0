"""What one stage hands to the next: small records, paths and hashes, never pictures or weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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


class Decision(Record):
    """What was decided about a version, and why. One line of ``decisions/<name>.jsonl``."""

    kind: Literal["promoted", "refused", "rolled_back"]
    name: str
    """Of the registered model."""
    version: str
    """Number that the decision is about: the challenger, or the champion that was taken back."""
    other: str
    """Number of the champion before, or of the one that is champion again; empty where there is none."""
    alias: str
    """The alias that moved or did not."""
    reasons: list[str]
    """In words, the deciding one first."""
    by: str
    """rule, or the name that a person gave."""
    at: str
    """When, ISO 8601, UTC."""
    flow_run_id: str
    subject: str
    """Hash of what was looked at: the two versions, their measurements and the rule. The same is not decided twice."""

    @property
    def text(self) -> str:
        """One sentence for people."""
        verb = {"promoted": "became", "refused": "did not become", "rolled_back": "is no longer"}[self.kind]
        return f"{self.name}/{self.version} {verb} {self.alias}: {'; '.join(self.reasons)}"


class FoundVersions(StageResult):
    """Registered versions to look at."""

    name: str
    """Of the registered model."""
    models: list[ResolvedModel]
    """The same weights once."""
    behind: dict[str, VersionRef]
    """Alias or number -> its version."""
    weights: dict[str, str]
    """Number of each of these versions -> SHA-256 of its weights."""
    absent: list[str]
    """Aliases and numbers that point nowhere, in words."""

    def versions_of(self, model: ResolvedModel) -> list[VersionRef]:
        """The versions with a model's weights, each once, oldest first."""
        found = {version.version: version for version in self.behind.values()}
        return [found[number] for number in sorted(found, key=int) if self.weights[number] == model.sha256]


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
    trained_seconds: float = 0.0
    """Wall time of the training itself, whenever it ran."""

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


class ArmMeasured(StageResult):
    """One training of one arm of a study, measured; or its base."""

    arm: str
    seed: int = 0
    """Of the training; 0 for the base."""
    trained: list[Trained] = []
    """Its trainings in order; none for the base."""
    judged: list[Judged]
    """One per benchmark, in the order of the evaluation's benchmarks."""


class ArmFailed(StageResult):
    """One setting of a sweep, or arm of a study, that could not be trained or measured."""

    arm: str
    reason: str
    """In words."""


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
    """The report, or the page of a study or sweep."""

    path: str
    """Absolute path of report.html, study.md or sweep.md."""
    views: dict[str, str] = {}
    """What can be opened in MLflow, by name; of a comparison they stand with the comparison."""


class DriftChecked(StageResult):
    """One judging against the last one of the same pictures."""

    benchmark: str
    model: ResolvedModel
    now: str
    """Answers directory of this judging."""
    before: str = ""
    """Answers directory of the last one; empty where this is the first."""
    comparison: Comparison | None = None
    """``base`` is the last judging, ``trained`` this one."""
    changed: int = 0
    """Pictures with another verdict."""
    judge_changes: list[str] = []
    """What the judge says of itself and said differently then."""
    moved: list[str] = []
    """Rows whose interval does not hold 0: drift."""
    refusal: str = ""
    """Why the two cannot be compared."""
    path: str = ""
    """Absolute path of drift.json."""


class Noted(StageResult):
    """What was measured is written on the registered versions."""

    versions: list[str]
    """``NAME/NUMBER`` of each."""


class Decided(StageResult):
    """Whether a challenger became champion."""

    decision: Decision


class RolledBack(StageResult):
    """A champion was taken back."""

    decision: Decision


class Cleaned(Record):
    """What a cleaning removed, or would remove."""

    dry_run: bool
    bytes: int
    """In all."""
    paths: list[str]
    """Absolute."""
    tracking: str
    """What was done about MLflow's saved views and deleted runs, in words; empty where nothing was."""
