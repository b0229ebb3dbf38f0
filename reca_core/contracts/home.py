"""The home directory: everything a run reads or writes lies below it, at one place each.

Layout (docs/architecture.md): data/ flows/ runs/ samples/ answers/ scores/ reports/ mlflow/ prefect/ cache/.
Only ``deployments.cli`` turns the default into an absolute path; below it a Home is always absolute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOME = "reca-home"
HOME_VARIABLE = "RECA_HOME"


@dataclass(frozen=True)
class Home:
    """An absolute directory and the names inside it."""

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_absolute():
            raise ValueError(f"home must be absolute, got {self.root}: only the command line resolves it")

    @property
    def data(self) -> Path:
        """``data/<digest>/{manifest.jsonl, quarantine.jsonl}``: prepared picture sets."""
        return self.root / "data"

    @property
    def cache(self) -> Path:
        """``cache/pictures/<aa>/<sha256>.<ext>`` and downloads: may be deleted at any time."""
        return self.root / "cache"

    @property
    def features(self) -> Path:
        """``cache/features/<key>/*.safetensors``: what frozen encoders said of pictures (docs/data.md)."""
        return self.cache / "features"

    @property
    def reports(self) -> Path:
        """``reports/<run>/report.html`` and the link ``reports/latest``."""
        return self.root / "reports"

    @property
    def decisions(self) -> Path:
        """``decisions/<name>.jsonl``: every promotion, refusal and rollback of a registered model."""
        return self.root / "decisions"

    @property
    def mlflow(self) -> Path:
        """``mlflow/mlflow.db`` and ``mlflow/artifacts``: the embedded tracking store."""
        return self.root / "mlflow"

    @property
    def prefect(self) -> Path:
        """Prefect's own home in the embedded default: its database and profile never mix with the user's."""
        return self.root / "prefect"

    def flow(self, name: str) -> RunDirectory:
        """``flows/<MLflow run id>``: request.json, with which a flow run was asked for."""
        return RunDirectory(self.root / "flows" / name)

    def run(self, request_hash: str) -> RunDirectory:
        """``runs/<request_hash>``: one training."""
        return RunDirectory(self.root / "runs" / request_hash)

    def samples(self, request_hash: str) -> RunDirectory:
        """``samples/<request_hash>``: pictures or replies made by one model for one prompts file."""
        return RunDirectory(self.root / "samples" / request_hash)

    def answers(self, request_hash: str) -> RunDirectory:
        """``answers/<request_hash>``: what one judge said of one samples directory."""
        return RunDirectory(self.root / "answers" / request_hash)

    def scores(self, request_hash: str) -> RunDirectory:
        """``scores/<request_hash>``: the score table made from answers."""
        return RunDirectory(self.root / "scores" / request_hash)


def beginning(home: Home, rooms: Sequence[str], typed: str) -> list[Path]:
    """Directories of some rooms of a home whose names begin as a person typed, such as the start of a hash."""
    found = [path for room in rooms if (home.root / room).is_dir() for path in sorted((home.root / room).iterdir())]
    return [path for path in found if typed and path.is_dir() and path.name.startswith(typed)]


@dataclass(frozen=True)
class RunDirectory:
    """One stage's directory: ``request.json lock pids.json log.txt metrics.jsonl checkpoints/ final/ DONE.json``."""

    path: Path

    @property
    def request(self) -> Path:
        """What was asked, as JSON of the request class."""
        return self.path / "request.json"

    @property
    def lock(self) -> Path:
        """Held by rank 0 with ``flock`` for its whole life."""
        return self.path / "lock"

    @property
    def pids(self) -> Path:
        """Process ids of the launcher and its ranks."""
        return self.path / "pids.json"

    @property
    def log(self) -> Path:
        """Standard output and error of the child, all attempts one after another."""
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged step, each step once."""
        return self.path / "metrics.jsonl"

    @property
    def left_out_captions(self) -> Path:
        """One ``LeftOutCaption`` per caption row that a training leaves out; there once all were examined."""
        return self.path / "left_out_captions.jsonl"

    @property
    def checkpoints(self) -> Path:
        """``step-NNNNNNNN`` directories, each complete or absent."""
        return self.path / "checkpoints"

    @property
    def previews(self) -> Path:
        """``index.jsonl`` and ``step-NNNNNNNN/*.png``: the same pictures and prompts every so many steps."""
        return self.path / "previews"

    @property
    def final(self) -> Path:
        """The finished model in the family's own layout."""
        return self.path / "final"

    @property
    def done(self) -> Path:
        """The stage's result record; written last."""
        return self.path / "DONE.json"
