"""Facts that travel between stages, under the names they keep everywhere (docs/architecture.md, "Names")."""

from __future__ import annotations

from typing import Literal

from reca_core.contracts.base import Record, unhashed


class ManifestRow(Record):
    """One picture of a prepared set. One line of ``data/<digest>/manifest.jsonl``."""

    sha256: str
    """SHA-256 of the picture file's bytes: the picture's identity."""
    file: str = unhashed()
    """Absolute path of the file to decode."""
    label: str = unhashed("")
    """Where it came from in the source's own words: relative path, archive member, row number."""
    width: int
    """Pixels, after EXIF rotation."""
    height: int
    """Pixels, after EXIF rotation."""


QuarantineKind = Literal[
    "empty",
    "not_a_picture",
    "truncated",
    "damaged",
    "too_large",
    "too_small",
    "too_narrow",
    "unsupported",
    "unreadable",
    "missing",
    "not_a_file",
    "unsafe_name",
    "unsafe_link",
]
"""Why a file cannot be trained on, for counting (docs/data.md has one line on each)."""


class QuarantineRow(Record):
    """One file that cannot be trained on. One line of ``data/<digest>/quarantine.jsonl``."""

    label: str
    """Where it lies in the source."""
    kind: QuarantineKind
    """What sort of fault it is, for counting."""
    reason: str
    """Why it is unusable, in words."""


class LeftOutCaption(Record):
    """One row of a caption file whose picture cannot be used. One line of a training's ``left_out_captions.jsonl``."""

    row: int
    """Of the caption file, from 0."""
    image: str
    """The picture, as an absolute path."""
    kind: QuarantineKind
    """What sort of fault it is, for counting."""
    reason: str
    """Why it is unusable, in words."""


class PreparedData(Record):
    """A prepared picture set."""

    digest: str
    """SHA-256 over the sorted picture hashes and the preparation settings."""
    directory: str = unhashed()
    """``data/<digest>``."""
    pictures: int
    """Usable pictures."""
    quarantined: int = unhashed()
    """Files listed in quarantine.jsonl. Not part of the identity: a stray text file changes no training."""
    duplicates: int = unhashed(0)
    """Pictures that were met again, byte for byte, and kept once."""
    reused: bool = unhashed(False)
    """True if this very set had been prepared before and nothing had to be written."""
    source: str = unhashed("")
    """The source as the user named it."""


class CheckpointRef(Record):
    """Trained weights on disk, in the family's own directory layout."""

    path: str = unhashed()
    """Absolute directory."""
    step: int
    """Optimizer steps done."""
    sha256: str
    """``sha256_tree`` of the directory."""


class ResolvedModel(Record):
    """A model that was found: what a ``ModelChoice`` turned out to be."""

    name: str = unhashed()
    """Short human name for tables, such as ``tiny-janus`` or ``reca-tiny-janus/3``."""
    family: str
    """Registry key of the family."""
    path: str = unhashed()
    """Absolute directory that the family's loader reads."""
    sha256: str
    """``sha256_tree`` of that directory."""
    source: str = unhashed("")
    """The choice as the user typed it: bundled name, path, hub id, models:/name@alias."""
    revision: str = unhashed("")
    """Hub revision that was resolved, if any."""


class VersionRef(Record):
    """A version in the MLflow model registry."""

    name: str
    """Registered model name."""
    version: str
    """Version number as MLflow prints it."""
    model_id: str
    """Id of the LoggedModel behind it."""
    run_id: str
    """MLflow run that made it."""


class Prompt(Record):
    """One line of a prompts file: what to draw and where the pictures go."""

    prompt_id: str
    """Unique in the file; decided by the benchmark."""
    text: str
    """What the model is told; empty when only a source image is given."""
    source_image: str = ""
    """Picture to reconstruct, edit or describe: path relative to the prompts file, or absolute."""
    seeds: list[int]
    """One picture is made per seed."""
    outputs: list[str]
    """One relative path per seed, inside the output directory; none where a reply in words is asked for."""


class Sample(Record):
    """One line of ``samples.jsonl``: one thing a model made."""

    prompt_id: str
    seed: int
    text: str
    """The prompt's text, repeated so that a samples directory explains itself."""
    image_path: str
    """Relative to the samples directory; empty for a description."""
    sha256: str
    """Of the picture file; empty for a description."""
    reply: str = ""
    """What the model said, for a description."""


class PreviewRow(Record):
    """One line of ``previews/index.jsonl``: a picture made on the way, always from the same fixed inputs."""

    step: int
    """Optimizer steps done when it was made; 0 is the base model."""
    task: str
    """reconstruct or draw."""
    path: str
    """The picture, relative to the run's ``previews`` folder."""
    text: str
    """The caption that was drawn; for a reconstruction the manifest label of its source."""
    source: str = ""
    """For a reconstruction the picture it should resemble, relative to the ``previews`` folder."""


class TrainResult(Record):
    """``DONE.json`` of a training."""

    checkpoint: CheckpointRef
    """The finished model, ``final`` in the run directory."""
    steps: int
    """Optimizer steps done."""
    seconds: float
    """Wall time of the attempt that finished, without the attempts before it."""
    resumed_from_step: int
    """Checkpoint that the finishing attempt started from; 0 is the base model."""
    first_losses: dict[str, float]
    """Metric name -> value on the first step."""
    last_losses: dict[str, float]
    """Metric name -> value on the last step."""
    trained_tensors: int
    """Parameters that received a gradient; every one of them differs from the base."""
    idle_tensors: list[str]
    """Parameters the stage may change that no active loss term reaches; bit-equal to the base."""
    warnings: list[str]
    """What the guards saw and did not stop for."""
    leaked_captions: int = 0
    """Fine-tuning captions that were left out because a benchmark asks for them."""
    left_out_captions: int = 0
    """Rows of the caption file that were left out because their pictures cannot be used."""
    best_step: int = 0
    """Step of the kept checkpoint with the lowest loss; 0 where checkpoints were not compared."""


class UnmadeSample(Record):
    """A sample that could not be made because of its own input, such as a source picture that cannot be decoded."""

    prompt_id: str
    seed: int
    reason: str


class SampleResult(Record):
    """``DONE.json`` of a sampling."""

    samples: int
    """Rows of samples.jsonl."""
    made: int
    """Of these, made by the attempt that finished; the others were there already."""
    seconds: float
    """Wall time of the attempt that finished."""
    unmade: list[UnmadeSample] = []
    """Prompts without a sample, with the reason. They are listed, never replaced."""


class Outcome(Record):
    """How a flow run ended: what the command line prints, and all that a caller needs to go on."""

    flow: str
    """prepare, post-train, train-then-evaluate, evaluate, re-evaluate or rollback."""
    exit_status: int
    """0, or 5 where something is unscored or a comparison was refused."""
    run_directory: str
    """Absolute directory of the run's main result: the training, or else the last judging or data set."""
    version: VersionRef | None = None
    """What was registered, if anything."""
    scores: list[str] = []
    """Absolute paths of the scores.json files, one per model and benchmark."""
    comparisons: list[str] = []
    """Absolute paths of the comparison.json files, one per benchmark that could be compared."""
    drifts: list[str] = []
    """Absolute paths of the drift.json files: measurements against the last ones of the same version."""
    decisions: list[str] = []
    """Promotions, refusals and rollbacks, in words."""
    report: str = ""
    """Absolute path of report.html, if one was written."""
    mlflow_url: str = ""
    """Parent run in the MLflow UI; empty where the tracking store is a file."""
    mlflow_store: str = ""
    """Tracking store of the run."""
    mlflow_run_id: str = ""
    """Parent run."""
    mlflow_views: dict[str, str] = {}
    """What MLflow shows of the comparisons -> address; of a server on port 5000 where the store is a file."""
    prefect_url: str = ""
    """Flow run in the Prefect UI; empty where there is none."""
    seconds: dict[str, float] = {}
    """Stage -> seconds, in order."""
    reused: list[str] = []
    """Stages whose result was already there."""
    incomplete: list[str] = []
    """Why the exit status is 5, one reason per entry."""
