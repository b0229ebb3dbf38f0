"""`reca demo` from end to end, with a random tiny model, in surroundings that would lead it astray if it followed them.

The user's Prefect and MLflow addresses point at a server that counts requests; profile, settings files and the current
directory try the same. One run and its repetition serve all tests here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from reca_core.contracts.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED
from reca_core.contracts.files import read_jsonl
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.records import Sample
from tests.reca_core.tiny_janus import save_tiny_janus

pytestmark = pytest.mark.servers

QUICK = {
    "training.steps": 6,
    "training.images_per_step": 8,
    "training.warmup_steps": 1,
    "training.preview_every_steps": 3,
    "images.scenes": 48,
    "evaluation.prompts_per_tag": 2,
    "evaluation.pictures_per_prompt": 2,
}
PICTURES = 6 * 2 * 2
GONE_SECONDS = 10.0
LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Run:
    status: int
    document: dict[str, Any]
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """A person's directory with everything in it that could mislead a run."""

    here: Path
    home: Path
    environment: dict[str, str]
    requests: list[str]

    def command(self, *words: str, steps: int = 0) -> list[str]:
        settings = QUICK | ({"training.steps": steps} if steps else {}) | {"model.source": "./tiny"}
        sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        return [sys.executable, "-m", "deployments.cli", "--home", str(self.home), *words, *sets]

    def run(self, *words: str) -> Run:
        result = subprocess.run(
            self.command(*words),
            cwd=self.here,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        document = json.loads(result.stdout) if "--json" in words else {}
        return Run(result.returncode, document, result.stdout, result.stderr)


class Trap(BaseHTTPRequestHandler):
    """The user's server: nobody but the user may speak to it."""

    requests: list[str] = []

    def _note(self) -> None:
        self.requests.append(f"{self.command} {self.path}")
        self.send_error(418)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _note  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    here = tmp_path_factory.mktemp("person")
    save_tiny_janus(here / "tiny")
    server = HTTPServer(("127.0.0.1", 0), Trap)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trap = f"http://127.0.0.1:{server.server_port}"
    (here / "profiles.toml").write_text(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{trap}/profile"\n')
    (here / "prefect.toml").write_text(f'[api]\nurl = "{trap}/toml"\n')
    (here / ".env").write_text(f"PREFECT_API_URL={trap}/dotenv\nMLFLOW_TRACKING_URI={trap}/dotenv\n")
    environment = os.environ | {
        "PREFECT_API_URL": f"{trap}/api",
        "PREFECT_PROFILE": "mine",
        "PREFECT_PROFILES_PATH": str(here / "profiles.toml"),
        "PREFECT_HOME": str(here / "their-prefect"),
        "MLFLOW_TRACKING_URI": trap,
        "MLFLOW_REGISTRY_URI": trap,
        "MLFLOW_EXPERIMENT_NAME": "theirs",
        "MLFLOW_RUN_ID": "0" * 32,
    }
    yield Place(here, tmp_path_factory.mktemp("homes") / "home", environment, Trap.requests)
    server.shutdown()


@pytest.fixture(scope="module")
def first(place: Place) -> Run:
    return place.run("--json", "demo")


@pytest.fixture(scope="module")
def second(place: Place, first: Run) -> Run:
    return place.run("demo")


def test_the_demo_ends_well_and_names_what_it_made(place: Place, first: Run) -> None:
    assert first.status == EXIT_DONE, first.err
    made = first.document
    assert made["exit_code"] == EXIT_DONE
    assert Path(made["run_directory"]).parent == place.home / "runs"
    assert made["version"]["name"] == "reca-tiny"
    assert made["version"]["version"] == "1"
    assert made["incomplete"] == made["reused"] == []
    assert set(made["comparison"]) == {"geneval.shapeworld"}
    stages = [name.split(" ")[0] for name in made["seconds"]]
    assert stages == ["prepare", "train", "register", "sample", "judge", "sample", "judge", "compare", "note", "report"]


def test_both_models_drew_the_same_prompts_and_seeds(first: Run, place: Place) -> None:
    folders = [folder for folder in (place.home / "samples").iterdir() if (folder / "DONE.json").exists()]
    assert len(folders) == 2
    drawn = [[Sample.model_validate(row) for row in read_jsonl(folder / "samples.jsonl")] for folder in folders]
    keys = [[(sample.prompt_id, sample.seed, sample.text) for sample in side] for side in drawn]
    assert keys[0] == keys[1]
    assert len(keys[0]) == PICTURES


def test_the_report_shows_pictures_curve_and_provenance_without_loading_anything(first: Run, place: Place) -> None:
    report = Path(first.document["report"])
    assert (place.home / "reports" / "latest" / "report.html").samefile(report)
    text = report.read_text()
    assert text.count("<img ") >= PICTURES / 2
    assert "<script" not in text
    assert 'src="http' not in text
    assert 'class="curve curve-0"' in text
    assert Path(first.document["run_directory"]).name in text


def test_the_users_servers_profiles_and_files_were_left_alone(place: Place, first: Run, second: Run) -> None:
    assert place.requests == []
    assert not (place.here / "their-prefect").exists()
    names = sorted(path.name for path in place.here.iterdir())
    assert names == [".env", "prefect.toml", "profiles.toml", "tiny"]


def test_a_second_run_reuses_everything_says_so_and_ends_with_its_run_directory(first: Run, second: Run) -> None:
    assert second.status == EXIT_DONE, second.err
    assert second.out.count("reused from an earlier run") == 7
    assert second.out.rstrip().splitlines()[-1] == f"run directory {first.document['run_directory']}"
    assert "models:/reca-tiny/1" in second.out
    for heading in ("difference", "95% interval", "judged", "in all"):
        assert heading in second.out


def test_the_plan_of_a_finished_run_says_that_all_of_it_is_there(place: Place, first: Run) -> None:
    plan = place.run("--json", "demo", "--dry-run", "--print-hash").document
    states = {step["stage"]: step["state"] for step in plan["plan"]}
    assert set(states.values()) == {"reused", "to do"}
    assert [stage for stage, state in states.items() if state == "to do"] == ["register", "compare", "report"]
    assert plan["hashes"]["train"] == Path(first.document["run_directory"]).name


def test_the_plan_of_a_training_that_was_cut_off_resumes_it_where_a_checkpoint_is_whole(
    place: Place, first: Run
) -> None:
    """What a kill left half-written, or somebody's own folder, is nothing to go on from."""

    def planned() -> str:
        plan = place.run("--json", "demo", "--dry-run").document["plan"]
        return next(str(step["state"]) for step in plan if step["stage"] == "train")

    run = RunDirectory(Path(first.document["run_directory"]))
    checkpoints, elsewhere = run.checkpoints, run.path / "elsewhere"
    done = run.done.read_bytes()
    run.done.unlink()
    try:
        assert planned() == "resumed"
        checkpoints.rename(elsewhere)
        (checkpoints / ".step-00000010.tmp").mkdir(parents=True)
        assert planned() == "to do"
    finally:
        if elsewhere.exists():
            shutil.rmtree(checkpoints)
            elsewhere.rename(checkpoints)
        run.done.write_bytes(done)


def test_the_registered_model_can_be_used_by_its_alias(place: Place, first: Run) -> None:
    output = place.here.parent / "drawn"
    words = ["generate", "--model", "models:/reca-tiny@challenger", "--prompt", "a red circle", "--output", str(output)]
    command = [sys.executable, "-m", "deployments.cli", "--home", str(place.home), "--json", *words]
    result = subprocess.run(command, cwd=place.here, env=place.environment, capture_output=True, text=True, check=False)
    assert result.returncode == EXIT_DONE, result.stderr
    assert (output / "00000-0.png").is_file()


def test_two_judgings_are_compared_by_the_beginning_of_their_hash(place: Place, first: Run) -> None:
    answers = [Path(path).parent.name for path in first.document["scores"]]
    command = [sys.executable, "-m", "deployments.cli", "--home", str(place.home), "--json", "compare", *answers]
    result = subprocess.run(command, cwd=place.here, env=place.environment, capture_output=True, text=True, check=True)
    written = json.loads(Path(first.document["comparisons"][0]).read_text())
    assert json.loads(result.stdout)["comparison"]["rows"] == written["rows"]


def reca(place: Place, *words: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "deployments.cli", "--home", str(place.home), "--json", *words]
    result = subprocess.run(command, cwd=place.here, env=place.environment, capture_output=True, text=True, check=False)
    document: dict[str, Any] = json.loads(result.stdout)
    return result.returncode, document


def test_models_are_compared_by_any_name_and_more_than_two_at_once(place: Place, first: Run) -> None:
    written = json.loads(Path(first.document["comparisons"][0]).read_text())
    version = first.document["version"]["version"]
    training, run_id = Path(first.document["run_directory"]).name, first.document["mlflow_run_id"]
    names = ["./tiny", f"reca-tiny/{version}", "models:/reca-tiny@challenger", training[:8], run_id]
    status, document = reca(place, "compare", *names, "--output", "comparison.json")
    assert status == EXIT_DONE, document
    assert [found["comparison"]["rows"] for found in document["comparisons"]] == [written["rows"]] * 4
    assert document["comparisons"][0]["trained"]["name"] == f"reca-tiny/{version}"
    assert json.loads((place.here / "comparison.json").read_text())["comparisons"] == document["comparisons"]
    assert reca(place, "compare", *names[:2], "--output", "comparison.md")[0] == EXIT_DONE
    assert "| overall |" in (place.here / "comparison.md").read_text()


def test_results_that_are_not_alike_are_refused_by_what_differs(place: Place, first: Run) -> None:
    base, trained = (Path(path).parent for path in first.document["scores"])
    other = place.here / "other"
    shutil.copytree(trained, other)
    done = json.loads((other / "DONE.json").read_text())
    for table in done["tables"].values():
        table["seeds"] = [1, 2]
    (other / "DONE.json").write_text(json.dumps(done))
    status, document = reca(place, "compare", str(base), "./other")
    assert status == EXIT_INCOMPLETE
    assert "differ in seeds" in json.dumps(document)
    status, document = reca(place, "compare", str(base), "nothing-of-this-name")
    assert status == EXIT_BAD_INPUT
    assert trained.name in json.dumps(document)


def test_every_run_is_repeated_from_its_stored_request(place: Place, first: Run) -> None:
    training = Path(first.document["run_directory"])
    status, document = reca(place, "rerun", training.name[:8])
    assert (status, document["reused"], document["run_directory"]) == (EXIT_DONE, True, str(training))
    status, document = reca(place, "rerun", first.document["mlflow_run_id"])
    assert status == first.status
    assert document["version"] == first.document["version"]
    assert {"train", "register"} <= set(document["reused"])
    status, document = reca(place, "rerun", "nothing")
    assert (status, training.name in json.dumps(document)) == (EXIT_BAD_INPUT, True)


def test_a_fresh_repetition_reuses_nothing_and_comes_out_the_same(place: Place, first: Run) -> None:
    for directory in (first.document["run_directory"], str(Path(first.document["scores"][1]).parent)):
        status, document = reca(place, "rerun", directory, "--fresh")
        assert (status, document["reused"]) == (EXIT_DONE, False)
        assert document["run_directory"] != directory
        assert document["request_hash"] == Path(directory).name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process(place: Place, first: Run, number: signal.Signals) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what a shell hands down to its background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    known, said = set((place.home / "runs").iterdir()), place.here / f"ended-by-{number}"
    with said.open("w") as file:
        command = place.command("demo", steps=100_000 + number)
        process = subprocess.Popen(command, cwd=place.here, env=place.environment, stdout=file, stderr=file)

    def under_way() -> bool:
        assert process.poll() is None, said.read_text()
        return any((run / "metrics.jsonl").exists() for run in set((place.home / "runs").iterdir()) - known)

    wait_until(under_way, said=said)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(number)
    status = process.wait(LIMIT_SECONDS)
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else EXIT_INTERRUPTED)
    wait_until(lambda: not any(alive(child) for child in children), GONE_SECONDS)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until(condition: Any, seconds: float = LIMIT_SECONDS, said: Path | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said.read_text() if said else "too late"
        time.sleep(0.1)
