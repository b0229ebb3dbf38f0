"""Two processes compute what one computes: same losses to five digits, replicated or sharded, any split."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from reca_core.contracts.errors import BadInput, CheckpointRefused
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.lifeline import Interrupted, StopRequest
from reca_core.contracts.requests import LossTerms, TrainRequest
from reca_core.models.janus.adapter import Janus
from reca_core.training import checkpoint_folder, checkpoint_shards, saving, setup
from reca_core.training.blocks import repeated_blocks
from reca_core.training.distributed import Layout, shard_group
from reca_core.training.guards import NotFinite
from reca_core.training.sharding import whole_parameters
from tests.reca_core.children import WAIT_SECONDS, die_at, launch, start
from tests.reca_core.training_rig import ALONE, ONE_PROCESS, plan, request, train, weights, write_request

DIGITS = 1e-5
FEW_BYTES = 64 * 1024
"""Of a file, so that each rank of a tiny model's training writes several."""
EVERY_TERM = LossTerms(reconstruction=1, image_to_text=1, text_to_image=1, text=1, unconditional=0.1)
SETTINGS = {"steps": 5, "images_per_step": 7, "checkpoint_every_steps": 2, "preview_every_steps": 2}


def train_on_two(*asked: TrainRequest) -> None:
    """The two ranks as torchrun would start them, without its start-up time; several trainings one after another."""
    train_on(2, *asked)


def train_on(world: int, *asked: TrainRequest, file_bytes: int = checkpoint_folder.FILE_BYTES) -> None:
    """The same for any number of ranks, and with smaller files for their parts of a checkpoint."""
    jobs = [(write_request(one), free_port()) for one in asked]
    ranks = [start(launch_rank, jobs, rank, world, file_bytes) for rank in range(world)]
    for rank in ranks:
        rank.join(WAIT_SECONDS * world * len(asked))
        rank.kill()  # one that hangs must not outlive the test; one that has ended does not mind
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0] * world


def launch_rank(
    jobs: list[tuple[Path, int]], rank: int, world: int, file_bytes: int = checkpoint_folder.FILE_BYTES
) -> None:
    checkpoint_folder.FILE_BYTES = file_bytes
    for path, port in jobs:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        try:
            launch("train", path)
        except SystemExit as ended:
            if ended.code or path == jobs[-1][0]:
                raise


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(asked: TrainRequest, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reca_core.launch", "train", str(write_request(asked))],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def logged(run: Path) -> list[dict[str, float]]:
    rows = read_jsonl(run / "metrics.jsonl")
    return [
        {name: value for name, value in row.items() if name.endswith("loss") or name == "train/gradient_norm"}
        for row in rows
    ]


def assert_same_training(run: Path, other: Path) -> None:
    for one, two in zip(logged(run), logged(other), strict=True):
        assert two == pytest.approx(one, rel=DIGITS)
    first, second = (load_file(place / "final" / "model.safetensors") for place in (run, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize(
    ("losses", "sharding", "per_pass"),
    [(EVERY_TERM, "replicate", 0), (ALONE, "replicate", 2), (ALONE, "shard", 0), (EVERY_TERM, "shard", 2)],
)
def test_two_processes_train_as_one_does(tmp_path: Path, losses: LossTerms, sharding: str, per_pass: int) -> None:
    alone = request(tmp_path, "alone", losses, **SETTINGS)
    train(alone)
    both = request(tmp_path, "both", losses, processes=2, sharding=sharding, images_per_pass=per_pass, **SETTINGS)
    train_on_two(both)
    assert_same_training(tmp_path / "alone", tmp_path / "both")
    previews = [row["step"] for row in read_jsonl(tmp_path / "both" / "previews" / "index.jsonl")]
    assert sorted(set(previews)) == [0, 2, 4, 5]


def test_a_training_may_go_on_with_another_number_of_processes(tmp_path: Path) -> None:
    alone = request(tmp_path, "alone", EVERY_TERM, **SETTINGS)
    train(alone)
    shutil.copytree(tmp_path / "alone", tmp_path / "moved")
    for written in ("DONE.json", "final", "checkpoints/step-00000005"):
        path = tmp_path / "moved" / written
        path.unlink() if path.is_file() else shutil.rmtree(path)
    train_on_two(request(tmp_path, "moved", EVERY_TERM, processes=2, sharding="shard", **SETTINGS))
    assert json.loads((tmp_path / "moved" / "DONE.json").read_text())["resumed_from_step"] == 4
    assert_same_training(tmp_path / "alone", tmp_path / "moved")


def resumed(root: Path, run: str, **settings: object) -> TrainRequest:
    """The same training once more, as if it had been killed after step 4, with another layout."""
    shutil.copytree(root / "hybrid", root / run)
    for written in ("DONE.json", "final", "checkpoints/step-00000005"):
        path = root / run / written
        path.unlink() if path.is_file() else shutil.rmtree(path)
    return request(root, run, ALONE, **SETTINGS, **settings)


def test_checkpoints_in_parts_are_resumed_by_any_number_of_processes(tmp_path: Path) -> None:
    alone = request(tmp_path, "alone", ALONE, **SETTINGS)
    train(alone)
    layout = {"processes": 4, "sharding": "hybrid", "shard_group": 2}
    train_on(4, request(tmp_path, "hybrid", ALONE, **SETTINGS, **layout), file_bytes=FEW_BYTES)
    assert_same_training(tmp_path / "alone", tmp_path / "hybrid")
    parts = sorted(path.name for path in (tmp_path / "hybrid/checkpoints/step-00000004/shards").iterdir())
    assert len({name.split("-")[1] for name in parts}) >= 2, "at least the two ranks of a group write"
    assert len(parts) >= 8, "and each of them several files"
    train(resumed(tmp_path, "one"))
    train_on(3, resumed(tmp_path, "three", processes=3, sharding="shard"))
    for run in ("one", "three"):
        assert json.loads((tmp_path / run / "DONE.json").read_text())["resumed_from_step"] == 4
        assert_same_training(tmp_path / "alone", tmp_path / run)
    damaged = resumed(tmp_path, "damaged")
    part = tmp_path / "damaged/checkpoints/step-00000004/shards" / parts[-1]
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(CheckpointRefused, match=rf"(?s)shards/{parts[-1]} has .*start from the base model"):
        train(damaged)


def launch_rank_and_die(job: tuple[Path, int], rank: int, call: int) -> None:
    """A rank that is killed just before its ``call``-th change of the file system; 0: it is not."""
    if call:
        die_at(call)
    launch_rank([job], rank, 2)


def test_a_rank_killed_within_a_save_in_parts_costs_no_more_than_that_save(tmp_path: Path) -> None:
    """Whichever rank it is: what the others wrote of that save is not taken for a checkpoint."""
    layout = {**SETTINGS, "checkpoint_every_steps": 1, "processes": 2, "sharding": "shard"}
    straight, broken = (request(tmp_path, name, ALONE, **layout) for name in ("straight", "broken"))
    train_on_two(straight)
    job, deaths = write_request(broken), Counter[int]()
    for victim, call in ((1, 2), (0, 12), (1, 5), (0, 23), (1, 3)):
        port = free_port()
        ranks = [start(launch_rank_and_die, (job, port), rank, call if rank == victim else 0) for rank in (0, 1)]
        ranks[victim].join(WAIT_SECONDS)
        deaths[victim] += ranks[victim].exitcode == -signal.SIGKILL
        ranks[1 - victim].kill()  # torchrun would
        ranks[1 - victim].join()
    assert min(deaths[0], deaths[1]) > 0, deaths
    train_on_two(broken)
    assert weights(broken) == weights(straight)
    assert [row["step"] for row in read_jsonl(tmp_path / "broken/metrics.jsonl")] == list(range(1, 6))
    assert not list((tmp_path / "broken").rglob("*.tmp"))


def launch_poisoned_rank(job: tuple[Path, int], rank: int) -> None:
    """A rank whose sample 13 of the stream has a loss that is no number; what it says goes to a file of its own."""
    honest = Janus.reconstruction_loss

    def loss(self, condition, target, draws):
        found = honest(self, condition, target, draws)
        return type(found)(found.total * math.nan, found.count) if 13 in draws.positions else found

    Janus.reconstruction_loss = loss  # type: ignore[method-assign]
    with job[0].with_name(f"said-by-{rank}").open("w") as sys.stderr:
        launch_rank([job], rank, 2)


@pytest.mark.parametrize("sharding", ["replicate", "shard"])
def test_both_ranks_stop_for_a_sample_of_one_of_them_and_name_it(tmp_path: Path, sharding: str) -> None:
    asked = request(tmp_path, "run", ALONE, **{**SETTINGS, "checkpoint_every_steps": 1}, processes=2, sharding=sharding)
    job = write_request(asked), free_port()
    ranks = [start(launch_poisoned_rank, job, rank) for rank in (0, 1)]
    for rank in ranks:
        rank.join(WAIT_SECONDS)
    assert [rank.exitcode for rank in ranks] == [NotFinite.exit_code] * 2
    for rank in (0, 1):
        said = job[0].with_name(f"said-by-{rank}").read_text()
        assert re.search(r"step 2: reconstruction loss nan.*positions \[13\]: .*\.png", said), said
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept[-1] == "step-00000001"
    assert not (tmp_path / "run" / "final").exists()


def launch_stopped_rank(job: tuple[Path, int], rank: int) -> None:
    """A rank that is asked to stop; rank 0 writes slowly. It notes whether the checkpoint is there as it leaves."""
    honest = saving._save

    def slow(*arguments: Any) -> None:
        time.sleep(3)
        honest(*arguments)

    saving._save, StopRequest.requested = slow, True
    try:
        launch_rank([job], rank, 2)
    finally:
        there = (job[0].parent / "checkpoints" / "step-00000001" / "DONE.json").exists()
        job[0].with_name(f"left-by-{rank}").write_text(str(there))


def test_no_rank_of_a_stopped_training_leaves_before_the_checkpoint_is_written(tmp_path: Path) -> None:
    """The first to leave has the others ended where machines would start them again."""
    job = write_request(request(tmp_path, "run", ALONE, **SETTINGS, processes=2)), free_port()
    ranks = [start(launch_stopped_rank, job, rank) for rank in (0, 1)]
    for rank in ranks:
        rank.join(WAIT_SECONDS)
    assert [rank.exitcode for rank in ranks] == [Interrupted.exit_code] * 2
    assert [job[0].with_name(f"left-by-{rank}").read_text() for rank in (0, 1)] == ["True", "True"]


def test_both_ranks_go_without_the_captions_whose_pictures_are_missing(tmp_path: Path) -> None:
    asked = request(tmp_path, losses=LossTerms(reconstruction=0, image_to_text=1, text=0), steps=2)
    names = [f"pictures/{number:03d}.png" for number in range(8)] + ["gone.png", "gone too.png"]
    rows = [
        {"image": name, "conversations": [{"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": word}]}
        for name, word in zip(names, ["a", "red", "ring", "and", "a", "blue", "moon", "is", "there"], strict=False)
    ]
    (tmp_path / "llava.json").write_text(json.dumps(rows))
    captions = asked.captions.model_copy(update={"source": str(tmp_path / "llava.json")})
    two, one = (asked.model_copy(update={"captions": captions, "run_directory": str(tmp_path / n)}) for n in "21")
    train_on_two(two)
    alone = train(one)
    done = json.loads((tmp_path / "2" / "DONE.json").read_text())
    assert done["left_out_captions"] == alone.left_out_captions == len(rows) - 8
    assert done["last_losses"]["train/loss"] == pytest.approx(alone.last_losses["train/loss"], rel=DIGITS)


def test_files_hold_so_many_bytes_and_a_tensor_that_has_more_has_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint_folder, "FILE_BYTES", 10)
    sizes = {"a": 8, "b": 12, "c": 2, "huge": 90, "d": 7, "e": 13}  # of two ranks: 4, 6, 1, 45, 4, 7
    assert checkpoint_shards.files_of(sizes, 2) == {"a": 1, "b": 1, "c": 2, "huge": 3, "d": 4, "e": 5}
    assert set(checkpoint_shards.files_of(sizes, 20).values()) == {1}


def test_processes_that_do_not_divide_into_groups_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    six = Layout(0, 6, torch.device("cpu"))
    with pytest.raises(BadInput, match=r"(?s)6 processes cannot be divided into groups of 4.*choices: 1, 2, 3, 6"):
        shard_group(six, plan(sharding="hybrid", shard_group=4))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert shard_group(six, plan(sharding="hybrid")) == 3
    assert shard_group(six, plan(sharding="shard")) == 6


def test_the_status_of_a_rank_is_the_status_of_the_run(tmp_path: Path) -> None:
    asked = request(tmp_path, processes=2, losses=LossTerms(reconstruction=0, image_to_text=0, text=0))
    finished = torchrun(asked)
    assert finished.returncode == 2
    assert "every loss term has weight 0" in finished.stderr


ABORTING = """
import os, time
if "RANK" in os.environ:
    from reca_core.contracts import verdict
    leave, end = verdict.leave_verdict, os._exit
    def abort(error):
        leave(error)
        os.abort()
    def late(status):
        time.sleep(5)
        end(status)
    if os.environ["RANK"] == "1":
        verdict.leave_verdict = abort
    else:
        os._exit = late
"""
"""Imported by every Python that starts with it on its path: rank 1 dies as it leaves the others, and is seen first."""


def test_a_rank_that_is_aborted_while_it_leaves_hides_no_reason(tmp_path: Path) -> None:
    """gloo does that to a rank whose peer was faster."""
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "sitecustomize.py").write_text(ABORTING)
    asked = request(tmp_path, processes=2, losses=LossTerms(reconstruction=0, image_to_text=0, text=0))
    finished = torchrun(asked, PYTHONPATH=str(tmp_path / "early"))
    assert "rank 1 ended with status -6" in finished.stderr
    assert finished.stderr.count("every loss term has weight 0") == 2
    assert finished.returncode == 2


def test_fewer_pictures_than_processes_are_refused(tmp_path: Path) -> None:
    asked = request(tmp_path, images_per_step=2)
    adapter = setup.load_model(asked, ONE_PROCESS)
    with pytest.raises(BadInput, match="2 pictures cannot be divided over 3 processes"):
        setup.open_data(asked, adapter, Layout(0, 3, torch.device("cpu")))


def test_the_layers_that_repeat_are_what_is_sharded(tmp_path: Path) -> None:
    network = setup.load_model(request(tmp_path), ONE_PROCESS).network
    kinds = {type(block).__name__ for block in repeated_blocks(network)}
    assert "LlamaDecoderLayer" in kinds
    assert "JanusVisionEncoderLayer" in kinds
    assert "JanusVQVAEVectorQuantizer" not in kinds, "its codebook is read past its forward"


def test_layers_stay_whole_inside_the_block_and_are_divided_again_by_every_pass_after_it() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        layers, mesh = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), init_device_mesh("cpu", (1,))
        for module in (*layers, layers):
            fully_shard(module, mesh=mesh)
        layers(torch.ones(1, 4))
        with whole_parameters(layers):
            layers[0](torch.ones(1, 4))
            assert not isinstance(layers[0].weight, DTensor), "the next token needs it again"
        assert isinstance(layers[0].weight, DTensor)
        layers(torch.ones(1, 4))
        assert isinstance(layers[0].weight, DTensor), "a training pass keeps no layer that it has left"
    finally:
        dist.destroy_process_group()
