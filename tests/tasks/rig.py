"""Results of stages as small records, for tests of what is made from them."""

from __future__ import annotations

from evaluation.records import Comparison, DeltaRow, JudgeIdentity, ScoreRow, ScoreTable
from reca_core.contracts.records import CheckpointRef, PreparedData, ResolvedModel, VersionRef
from tasks.results import Compared, Judged, Prepared, Registered, Reported, Sampled, Trained
from tasks.run import RunContext
from tasks.tracking import TrackedRun

JUDGE = JudgeIdentity(name="shapeworld")
BENCHMARK = "geneval.shapeworld"
RUN = RunContext(
    flow="train-then-evaluate",
    flow_run_id="f",
    prefect_url="",
    tracked=TrackedRun(run_id="m", experiment_id="1", store="sqlite:////home/mlflow/mlflow.db", url=""),
)
DATA = PreparedData(digest="d" * 64, directory="/home/data/d", pictures=5, quarantined=1)
BASE = ResolvedModel(name="tiny", family="janus", path="/tiny", sha256="b" * 64)


def prepared() -> Prepared:
    return Prepared(stage="prepare", seconds=1.0, reused=True, data=DATA)


def trained() -> Trained:
    checkpoint = CheckpointRef(path="/home/runs/r/final", step=10, sha256="c" * 64)
    return Trained(
        stage="train",
        seconds=2.0,
        request_hash="r",
        directory="/home/runs/r",
        checkpoint=checkpoint,
        base=BASE,
        data=DATA,
        mlflow_run_id="t",
        base_model_id="m-1",
    )


def registered(name: str = "reca-tiny/1") -> Registered:
    version = VersionRef(name="reca-tiny", version="1", model_id="m-2", run_id="t")
    return Registered(stage="register", seconds=0.5, version=version, model=trained().model(name))


def judged(model: ResolvedModel, value: float | None, unscored: tuple[str, ...] = ()) -> Judged:
    sampled = Sampled(
        stage=f"sample {BENCHMARK}, {model.name}",
        seconds=3.0,
        benchmark=BENCHMARK,
        model=model,
        directory=f"/home/samples/{model.name}",
        prompts_sha256="p" * 64,
        samples_sha256="s" * 64,
    )
    row = ScoreRow(value=value, low=None, high=None, n_scored=4 - len(unscored), n_expected=4)
    table = ScoreTable(
        benchmark=BENCHMARK,
        arithmetic="corrected",
        judge=JUDGE,
        prompts_sha256="p" * 64,
        seeds=[1000],
        rows={"overall": row},
    )
    return Judged(
        stage=f"judge {BENCHMARK}, {model.name}",
        seconds=0.25,
        benchmark=BENCHMARK,
        model=model,
        request_hash=f"answers-{model.name}",
        sampled=sampled,
        directory=f"/home/answers/{model.name}",
        table=table,
        unscored=list(unscored),
    )


def compared(refusal: str = "", name: str = "reca-tiny/1") -> Compared:
    row = DeltaRow(base=0.25, trained=0.5, delta=0.25, low=0.1, high=0.4, n=4)
    comparison = Comparison(
        benchmark=BENCHMARK, arithmetic="corrected", judge=JUDGE, n_prompts=2, rows={"overall": row}
    )
    return Compared(
        stage=f"compare {BENCHMARK}",
        seconds=0.1,
        benchmark=BENCHMARK,
        base=judged(BASE, 0.25),
        trained=judged(registered(name).model, 0.5),
        comparison=None if refusal else comparison,
        refusal=refusal,
        path="" if refusal else "/home/scores/x/comparison.json",
    )


def reported() -> Reported:
    return Reported(stage="report", seconds=0.2, path="/home/reports/x/report.html")
