"""A judging ends the same however often it is killed, asks nothing twice, and never turns a fault into a score."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest

from evaluation import registry, runner
from evaluation.benchmark import JudgeTask
from evaluation.judges.opening import JudgePlace
from evaluation.judges.shapeworld import ShapeworldJudge
from evaluation.records import JudgeResult, Judgment, Reply, Unscored
from evaluation.registry import BENCHMARKS, JUDGES, JudgeEntry
from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.files import read_jsonl, run_lock
from reca_core.contracts.judging import JudgeSettings
from reca_core.contracts.lifeline import child_environment
from reca_core.contracts.progress import parse_progress
from tests.evaluation.drawn import ASK_LOG, draw_samples, request_for

ROOT = Path(__file__).resolve().parents[2]
SLOW_LAUNCH = """
import sys
from evaluation import registry
from evaluation.launch import main
registry.JUDGES["shapeworld"] = registry.JudgeEntry("tests.evaluation.drawn:SlowJudge", 1)
sys.exit(main(sys.argv[1:]))
"""
DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("samples")
    draw_samples(directory, scene_seed=7)
    return directory


@pytest.fixture(scope="module")
def undisturbed(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answers of a judging that nobody disturbed, in this process."""
    output = tmp_path_factory.mktemp("answers")
    runner.main(request_for(samples, output))
    return output


def start(samples: Path, output: Path, ask_log: Path, errors: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    output.mkdir(parents=True, exist_ok=True)
    request = output / "request.json"
    request.write_text(request_for(samples, output).model_dump_json())
    environment = child_environment({**os.environ, ASK_LOG: str(ask_log), "OMP_NUM_THREADS": "1"})
    command = [sys.executable, "-c", SLOW_LAUNCH, "judge", str(request)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while lines_of(path) < count:
        assert time.monotonic() < deadline, f"{path} did not reach {count} lines"
        time.sleep(0.01)


def test_killed_three_times_it_ends_with_the_same_bytes_and_nothing_asked_twice(
    samples: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output, ask_log = tmp_path / "answers", tmp_path / "asked.txt"
    kills = 3
    for number in range(1, kills + 1):
        child = start(samples, output, ask_log)
        wait_for_lines(output / "transcript.jsonl", 6 * number)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert not (output / "DONE.json").exists()
    last = start(samples, output, ask_log)
    out, _ = last.communicate(timeout=DEADLINE_SECONDS)
    assert last.returncode == 0
    progress = [point for line in out.decode().splitlines() if (point := parse_progress(line))]
    assert [point.done for point in progress] == list(range(1, progress[-1].total + 1))
    assert {(point.stage, point.unit) for point in progress} == {("judge", "picture")}

    for name in ("scores.json", "judgments.jsonl", "parity_judgments.jsonl"):
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes(), name
    written = Counter((row["prompt_id"], row["seed"], row["question"]["key"]) for row in transcript(output))
    assert set(written.values()) == {1}
    asked = ask_log.read_text().split("\n")[:-1]
    assert set(asked) == {f"{prompt} {seed} {key}" for prompt, seed, key in written}
    lost_between_reply_and_line = len(asked) - len(written)
    assert lost_between_reply_and_line <= kills


def test_two_processes_that_start_the_same_judging_at_once_ask_nothing_twice_and_both_end_well(
    samples: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output, ask_log = tmp_path / "answers", tmp_path / "asked.txt"
    both = [start(samples, output, ask_log) for _ in range(2)]
    for child in both:
        child.communicate(timeout=DEADLINE_SECONDS)
    assert [child.returncode for child in both] == [0, 0]
    for name in ("scores.json", "judgments.jsonl", "parity_judgments.jsonl"):
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes(), name
    asked = ask_log.read_text().split("\n")[:-1]
    assert len(asked) == len(set(asked)) == len(transcript(output))


def test_one_that_waits_for_another_says_so_and_can_be_stopped(samples: Path, tmp_path: Path) -> None:
    output, said = tmp_path / "answers", tmp_path / "said.txt"
    with run_lock(output / "lock"), said.open("wb") as stream:
        child = start(samples, output, tmp_path / "asked.txt", stream)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while "waiting for its result" not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.05)
        assert f"process {os.getpid()} is working here" in said.read_text()
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=DEADLINE_SECONDS)
    assert child.returncode == 130
    assert not (output / "transcript.jsonl").exists()


def transcript(output: Path) -> list[dict]:
    return list(read_jsonl(output / "transcript.jsonl"))


def test_it_asks_for_colours_only_after_the_objects_are_known(undisturbed: Path) -> None:
    by_picture: dict[tuple[str, int], list[str]] = {}
    for row in transcript(undisturbed):
        by_picture.setdefault((row["prompt_id"], row["seed"]), []).append(row["question"]["key"])
    assert all(keys[0] == "objects" for keys in by_picture.values())
    assert any(len(keys) > 1 for keys in by_picture.values())


def test_pictures_that_are_what_was_asked_for_score_one_in_every_row(tmp_path: Path) -> None:
    samples, output = tmp_path / "samples", tmp_path / "answers"
    draw_samples(samples, scene_seed=23, faithful=True)
    for table in runner.main(request_for(samples, output)).tables.values():
        assert {name: row.value for name, row in table.rows.items()} == dict.fromkeys(table.rows, 1.0)
        assert table.complete()


def test_a_finished_judging_is_not_started_again(samples: Path, undisturbed: Path) -> None:
    before = (undisturbed / "DONE.json").read_bytes()
    result = runner.main(request_for(samples, undisturbed))
    assert (undisturbed / "DONE.json").read_bytes() == before
    assert result == JudgeResult.model_validate_json(before)


def test_asked_to_stop_it_keeps_its_replies_and_exits_130(samples: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers"
    child = start(samples, output, tmp_path / "asked.txt")
    wait_for_lines(output / "transcript.jsonl", 3)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=DEADLINE_SECONDS)
    assert child.returncode == 130
    assert lines_of(output / "transcript.jsonl") >= 3
    assert not (output / "DONE.json").exists()


def test_it_dies_with_its_parent(samples: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers"
    code = (
        "import os, subprocess, sys; from reca_core.contracts.lifeline import child_environment; "
        "child = subprocess.Popen(sys.argv[1:], env=child_environment(os.environ)); print(child.pid, flush=True); "
        "child.wait()"
    )
    output.mkdir()
    request = output / "request.json"
    request.write_text(request_for(samples, output).model_dump_json())
    environment = {**os.environ, ASK_LOG: str(tmp_path / "asked.txt")}
    command = [sys.executable, "-c", code, sys.executable, "-c", SLOW_LAUNCH, "judge", str(request)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        judge = int(parent.stdout.readline())
        wait_for_lines(output / "transcript.jsonl", 1)
        parent.kill()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while Path(f"/proc/{judge}/stat").exists() and "Z" not in Path(f"/proc/{judge}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (output / "DONE.json").exists()


@pytest.mark.parametrize("arguments", [[], ["judge"], ["score", "x"], ["judge", "nowhere.json"]])
def test_the_launcher_refuses_what_it_cannot_read(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evaluation.launch", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "usage" in ended.stderr or "nowhere.json" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_missing_broken_and_changed_pictures_are_unscored_never_wrong(tmp_path: Path) -> None:
    samples, output = tmp_path / "samples", tmp_path / "answers"
    draw_samples(samples, scene_seed=11)
    pictures = sorted(samples.rglob("*.png"))
    missing, truncated, changed = pictures[0], pictures[1], pictures[2]
    missing.unlink()
    changed.write_bytes(pictures[3].read_bytes())
    _resign(samples, truncated, truncated.read_bytes()[:60])
    result = runner.main(request_for(samples, output))

    assert result.unscored == 3
    assert result.judged == len(pictures) - 3
    overall = result.tables["corrected"].rows["overall"]
    assert (overall.n_scored, overall.n_expected) == (len(pictures) - 3, len(pictures))
    judgments = [Judgment.model_validate(row) for row in read_jsonl(output / "judgments.jsonl")]
    reasons = [judgment.outcome.reason for judgment in judgments if isinstance(judgment.outcome, Unscored)]
    assert [reason.split()[0:3] for reason in reasons] == [
        ["the", "picture", "is"],
        [truncated.name, "cannot", "be"],
        ["the", "picture", "is"],
    ]


def _resign(samples: Path, picture: Path, content: bytes) -> None:
    """Replace a picture and its recorded hash: what a sampler on a full disk might leave."""
    from reca_core.contracts.hashing import sha256_file

    picture.write_bytes(content)
    rows = [json.loads(line) for line in (samples / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        if row["image_path"] == str(picture.relative_to(samples)):
            row["sha256"] = sha256_file(picture)
    (samples / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Outage(ShapeworldJudge):
    """Gives no reply about one prompt while ``down``."""

    down = True

    def answer(self, tasks: Sequence[JudgeTask]) -> Sequence[Reply]:
        replies = super().answer(tasks)
        silent = [self.down and task.prompt.prompt_id == "00000" for task in tasks]
        return [Reply(error="HTTP 500") if quiet else reply for quiet, reply in zip(silent, replies, strict=True)]


def test_an_outage_is_unscored_and_is_asked_again_next_time(
    samples: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "JUDGES", {"shapeworld": JudgeEntry(f"{__name__}:Outage", 1)})
    monkeypatch.setattr(registry, "_load", lambda target: Outage if target.endswith(":Outage") else _load(target))
    request = request_for(samples, tmp_path)
    first = runner.main(request)
    assert first.outages == 2
    assert first.tables["corrected"].rows["overall"].n_scored == first.judged == len(request_pictures(samples)) - 2
    asked_before = len(transcript(tmp_path))

    Outage.down = False
    second = runner.main(request)
    assert second.outages == second.unscored == 0
    assert (tmp_path / "scores.json").read_bytes() == (undisturbed / "scores.json").read_bytes()
    again = transcript(tmp_path)[asked_before:]
    assert {row["prompt_id"] for row in again} == {"00000"}


_load = registry._load


def request_pictures(samples: Path) -> list[Path]:
    return sorted(samples.rglob("*.png"))


def test_answers_of_two_judges_never_mix(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.json").write_text(json.dumps({"name": "another"}))
    with pytest.raises(StageFailed, match="judged here before"):
        runner.main(request_for(samples, tmp_path))


def test_prompts_of_another_plan_are_refused_before_anything_is_asked(samples: Path, tmp_path: Path) -> None:
    request = request_for(samples, tmp_path).model_copy(update={"prompts_per_tag": 2})
    with pytest.raises(BadInput, match="not the prompts of"):
        runner.main(request)
    assert not (tmp_path / "transcript.jsonl").exists()


def test_samples_that_changed_after_the_request_are_refused(samples: Path, tmp_path: Path) -> None:
    request = request_for(samples, tmp_path).model_copy(update={"samples_sha256": "0" * 64})
    with pytest.raises(BadInput, match="changed after the request"):
        runner.main(request)


def test_every_registered_judge_and_benchmark_exists() -> None:
    assert all(registry.benchmark_class(name).card.name for name in BENCHMARKS)
    assert all(registry._load(entry.judge) for entry in JUDGES.values())
    place = JudgePlace("any", Path("answers"), Path("cache"))
    for name in registry.known_ids():
        own = registry._own_judge(name)
        assert not own or registry.open_judge(name, place, JudgeSettings()).identity.name == own
