"""Shares of a sampling and a judging: on a real Ray cluster of two workers, one of them killed, and without any.

What matters is that nobody can tell from the result: samples, pictures, judgments and scores are those of one process.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest

from evaluation.prompt_files import prompts_text, write_prompt_files
from evaluation.records import JudgeRequest, JudgeResult
from evaluation.registry import asks_endpoint, numerics_version, open_benchmark
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.files import read_jsonl, run_lock
from reca_core.contracts.hashing import request_hash, sha256_file, sha256_text, sha256_tree
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.judging import JudgeSettings, SettledJudge
from reca_core.contracts.progress import Progress
from reca_core.contracts.records import ResolvedModel, SampleResult
from reca_core.contracts.requests import EvaluationPlan, SampleRequest, SamplingSettings
from tasks import plan, sharing
from tasks.cluster import ray_cluster, work
from tasks.judge import answers_fault
from tasks.sample import prompt_plan, samples_fault
from tasks.sharing import ADDRESS_VARIABLE, SHARES, ShareJob, share_out
from tasks.stage import Stage, run_or_reuse
from tests.end_to_end.rig import save_smallest_janus, wait_until

BENCHMARK = "geneval.shapeworld"
EVALUATION = EvaluationPlan(prompts_per_tag=2, pictures_per_prompt=1)
SAMPLES = ("samples.jsonl", "geneval")
ANSWERS = ("judgments.jsonl", "parity_judgments.jsonl", "scores.json", "judge.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    path = save_smallest_janus(tmp_path_factory.mktemp("model") / "smallest")
    return ResolvedModel(name="smallest", family="janus", path=str(path), sha256=sha256_tree(path))


def sampling(home: Path, model: ResolvedModel) -> Stage[SampleResult]:
    opened = open_benchmark(BENCHMARK, prompt_plan(EVALUATION), None)
    settings = SamplingSettings(device="cpu", images_per_batch=4)
    request = plan.sample_request(Home(home), model, sha256_text(prompts_text(opened)), settings)
    directory = RunDirectory(Path(request.output_directory))
    write_prompt_files(directory.path, opened)
    return Stage(
        "sample", "reca_core.launch", "sample", request, directory, SampleResult,
        lambda result: samples_fault(directory.path, result),
    )  # fmt: skip


def judging(home: Path, samples: RunDirectory) -> Stage[JudgeResult]:
    request = plan.judge_request(
        home=Home(home), benchmark=BENCHMARK, numerics_version=numerics_version(BENCHMARK), samples=samples,
        prompts_sha256=sha256_file(samples.path / "prompts.jsonl"),
        samples_sha256=sha256_file(samples.path / "samples.jsonl"),
        evaluation=EVALUATION, judge=SettledJudge(), benchmark_data="",
    )  # fmt: skip
    directory = RunDirectory(Path(request.output_directory))
    return Stage(
        "judge", "evaluation.launch", "judge", request, directory, JudgeResult,
        lambda result: answers_fault(directory.path, result),
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, model: ResolvedModel) -> tuple[Path, Path]:
    """Samples and answers of one process each."""
    home = tmp_path_factory.mktemp("alone")
    drawn = sampling(home, model)
    run_or_reuse(drawn)
    judged = judging(home, drawn.directory)
    run_or_reuse(judged)
    return drawn.directory.path, judged.directory.path


def same(left: Path, right: Path, names: tuple[str, ...]) -> bool:
    def content(path: Path) -> str:
        return sha256_tree(path) if path.is_dir() else sha256_file(path)

    assert any((left / name).exists() for name in names)
    return all(content(left / name) == content(right / name) for name in names if (left / name).exists())


class Here:
    """A cluster without a cluster: shares run one after another in this process."""

    def __init__(self, slots: int) -> None:
        self._slots, self.ran = slots, 0

    def slots(self, *, gpu: bool) -> int:
        return 0 if gpu else self._slots

    def run(self, jobs: list[ShareJob], look: Callable[[], None]) -> None:
        for job in jobs:
            assert work(job, {}) == ("", "")
            self.ran += 1
            look()


def test_what_a_cut_off_sharing_left_is_taken_up_and_the_rest_is_made_up_for(
    tmp_path: Path, model: ResolvedModel, alone: tuple[Path, Path]
) -> None:
    stage = sampling(tmp_path, model)
    assert isinstance(stage.request, SampleRequest)
    seen: list[Progress] = []

    class Cut(Here):
        def run(self, jobs: list[ShareJob], look: Callable[[], None]) -> None:
            super().run(jobs[:1], look)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share_out(stage.request, stage.directory, Cut(slots=2), seen.append)
    assert (stage.directory.path / SHARES).exists()
    none = Here(slots=1)
    share_out(stage.request, stage.directory, none, seen.append)
    assert none.ran == 0
    assert not (stage.directory.path / SHARES).exists()
    made = len(list(read_jsonl(stage.directory.path / "samples.jsonl")))
    assert 0 < made < seen[-1].total
    assert run_or_reuse(stage).result.made == seen[-1].total - made
    assert same(alone[0], stage.directory.path, SAMPLES)


def test_a_directory_that_another_process_works_in_is_left_to_it(tmp_path: Path, model: ResolvedModel) -> None:
    stage = sampling(tmp_path, model)
    assert isinstance(stage.request, SampleRequest)
    cluster = Here(slots=2)
    with run_lock(stage.directory.lock):
        share_out(stage.request, stage.directory, cluster, lambda progress: None)
    assert cluster.ran == 0


def test_where_results_are_made_is_no_part_of_their_identity(model: ResolvedModel, tmp_path: Path) -> None:
    request = sampling(tmp_path, model).request
    part = request.model_copy(update={"share": sharing.Share(index=1, count=2, whole="/elsewhere")})
    assert request_hash(part) == request_hash(request)


def test_judges_behind_an_address_are_not_shared_out() -> None:
    assert asks_endpoint("gedit", JudgeSettings())
    assert asks_endpoint("dpg.gpt", JudgeSettings(judge="openai", model="gpt"))
    assert not asks_endpoint("geneval", JudgeSettings())
    assert not asks_endpoint("gedit.shapeworld", JudgeSettings())
    assert not asks_endpoint("pope", JudgeSettings())


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two workers of one core each, as two machines would be."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # else its children come last
    started = Cluster()
    started.add_node(num_cpus=1, include_dashboard=False)
    started.add_node(num_cpus=1, include_dashboard=False)
    try:
        yield str(started.address)
    finally:
        started.shutdown()


def kill_the_worker_of(share: str) -> int:
    """SIGKILL the process of Ray that started a share's child, as soon as there is one; returns its number."""

    def found() -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            if any(share in word for word in process.info["cmdline"] or []):
                parent = process.parent()
                if parent is not None and parent.pid != os.getpid():
                    return parent
        return None

    worker = wait_until(found, 120)
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    return int(worker.pid)


@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_two_workers_one_of_them_killed_make_what_one_process_makes(
    tmp_path: Path, model: ResolvedModel, alone: tuple[Path, Path], cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, cluster)
    drawn = sampling(tmp_path, model)
    killed: list[int] = []
    killer = Thread(target=lambda: killed.append(kill_the_worker_of(f"{tmp_path}")))
    killer.start()
    finished = run_or_reuse(drawn)
    killer.join()
    assert killed
    assert finished.result.made == 0  # the shares made everything; the local child only concluded
    assert same(alone[0], drawn.directory.path, SAMPLES)
    judged = judging(tmp_path, drawn.directory)
    assert isinstance(judged.request, JudgeRequest)
    run_or_reuse(judged)
    assert same(alone[1], judged.directory.path, ANSWERS)
    rows = [json.dumps(row, sort_keys=True) for row in read_jsonl(judged.directory.path / "transcript.jsonl")]
    assert sorted(rows) == sorted(json.dumps(row, sort_keys=True) for row in read_jsonl(alone[1] / "transcript.jsonl"))
    assert len(rows) == len(set(rows))


@pytest.mark.ray
def test_a_cluster_that_is_not_there_is_said_with_the_remedy() -> None:
    with pytest.raises(PrerequisiteMissing, match="ray start --head"), ray_cluster("127.0.0.1:9"):
        pass
