"""``train``: a base model and a picture set become a checkpoint, watched in MLflow and Prefect on the way."""

from __future__ import annotations

import time
from pathlib import Path

from reca_core.contracts.files import read_jsonl
from reca_core.contracts.hashing import request_hash, sha256_tree
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.progress import Progress
from reca_core.contracts.records import PreparedData, PreviewRow, ResolvedModel, TrainResult
from reca_core.contracts.requests import CaptionSource, LossTerms, TrainingPlan, TrainRequest
from tasks import plan, tracking, tracking_models
from tasks.home import benchmark_data, current_home
from tasks.leaks import leak_file
from tasks.policies import verb
from tasks.progress import note
from tasks.provenance import current_provenance
from tasks.results import Trained
from tasks.run import RunContext
from tasks.stage import Finished, Stage, run_or_reuse
from tasks.tracking import TrackedRun

MIRROR_SECONDS = 10.0
"""Between two looks at the run directory while the child trains."""


@verb("train", "train {base.name}")
def train(
    run: RunContext,
    base: ResolvedModel,
    data: PreparedData,
    losses: LossTerms,
    captions: CaptionSource,
    training: TrainingPlan,
) -> Trained:
    """The checkpoint of this request, trained now, resumed, or found."""
    captions = plan.placed_captions(current_home(), captions)
    leaks = leak_file(current_home(), captions, losses, benchmark_data())
    leaks.write()
    request = plan.train_request(current_home(), base, data, losses, captions, training, leaks)
    identity = {"stage": "train", "request_hash": request_hash(request)}
    with tracking.tracked_run(f"train {base.name}", identity, _tags(request), run.tracked) as child:
        base_model_id = tracking_models.logged_model(base, child.run_id, {"source": base.source}, copy=False)
        tracking.log_params(child, _params(request))
        tracking.log_dataset(child, data.source or "pictures", data.digest, data.directory, "training")
        tracking_models.link_models(child.run_id, reads=base_model_id)
        finished = _watched(child, request)
    return Trained(
        stage="train",
        seconds=finished.seconds,
        reused=finished.reused,
        request_hash=request_hash(request),
        directory=request.run_directory,
        checkpoint=finished.result.checkpoint,
        base=base,
        data=data,
        mlflow_run_id=child.run_id,
        base_model_id=base_model_id,
        trained_seconds=finished.result.seconds,
    )


def _tags(request: TrainRequest) -> dict[str, str]:
    return {
        "data_digest": request.data.digest,
        "base_model": request.model.source or request.model.name,
        "base_sha256": request.model.sha256,
        "git_commit": current_provenance().git_commit,
        "run_directory": request.run_directory,
    }


def _params(request: TrainRequest) -> dict[str, object]:
    parts = {"losses": request.losses, "captions": request.captions, "training": request.training}
    return {**tracking.flat(parts), "model": request.model.name, "family": request.model.family}


def _watched(child: TrackedRun, request: TrainRequest) -> Finished[TrainResult]:
    """Run or reuse, with curves and previews in MLflow while it runs and complete when it has ended.

    Where the training was found and MLflow has its curves already, the new run names that run and has the last values.
    """
    directory = RunDirectory(Path(request.run_directory))
    window = _Window(child, directory)
    stage = Stage(
        name="train",
        module="reca_core.launch",
        command="train",
        request=request,
        directory=directory,
        result=TrainResult,
        fault=checkpoint_fault,
        observe=window.glance,
    )
    finished = run_or_reuse(stage)
    first = tracking.find_run({"stage": "train", "request_hash": request_hash(request)})
    if finished.reused and first is not None and first.info.status == "FINISHED":
        tracking.log_tags(child, {"first_run_id": first.info.run_id})
        tracking.log_metrics(child, finished.result.last_losses)
    else:
        window.update()
    if request.leaks_file:
        tracking.log_params(child, {"captions.leaked": finished.result.leaked_captions})
    if request.captions_sha256:
        tracking.log_params(child, {"captions.left_out": finished.result.left_out_captions})
    if finished.result.left_out_captions:
        note(f"train: {finished.result.left_out_captions} captions left out, see {directory.left_out_captions}")
    return finished


class _Window:
    """Keeps one MLflow run equal to one run directory."""

    def __init__(self, run: TrackedRun, directory: RunDirectory) -> None:
        self._run, self._directory = run, directory
        files = (directory.metrics, directory.previews / "colours.jsonl")
        self._mirrors = [tracking.MetricMirror(run, file) for file in files]
        self._next = time.monotonic() + MIRROR_SECONDS

    def glance(self, _: Progress) -> None:
        """Update if it is time; while the child trains a tracking server that is away is waited for."""
        if time.monotonic() >= self._next:
            with tracking.outages_tolerated():
                self.update()
            self._next = time.monotonic() + MIRROR_SECONDS

    def update(self) -> None:
        """Log everything that is new in the run directory."""
        for mirror in self._mirrors:
            mirror.update()
        tracking.log_pictures(self._run, previews(self._directory))


def previews(directory: RunDirectory) -> list[tuple[str, int, Path]]:
    """The previews of a training as (key, step, file)."""
    rows = [PreviewRow.model_validate(row) for row in read_jsonl(directory.previews / "index.jsonl")]
    files = [(row, directory.previews / row.path) for row in rows]
    return [(f"preview_{file.stem}", row.step, file) for row, file in files if file.is_file()]


def checkpoint_fault(result: TrainResult) -> str:
    """Why a finished training's checkpoint cannot be used; empty where it can."""
    path = Path(result.checkpoint.path)
    try:
        found = sha256_tree(path)
    except FileNotFoundError:
        return f"{path} is gone"
    return "" if found == result.checkpoint.sha256 else f"{path} is not what was trained: its SHA-256 is {found}"
