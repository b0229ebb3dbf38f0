"""A result is believed only if it holds; everything else in a run directory is work to resume. Real children."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.progress import Progress
from reca_core.contracts.records import PreparedData
from reca_core.contracts.requests import ImageSource
from tasks import plan
from tasks.prepare import manifest_fault
from tasks.progress import listening
from tasks.provenance import Provenance, current_provenance, differences
from tasks.stage import PROVENANCE_FILE, Stage, run_or_reuse

SCENES = ImageSource(source="shapeworld", scenes=20)


def stage_for(
    home: Path, images: ImageSource = SCENES, fault: Callable[[PreparedData], str] = manifest_fault
) -> Stage[PreparedData]:
    request = plan.prepare_request(Home(home), images)
    directory = RunDirectory(Path(request.run_directory))
    return Stage("prepare", "reca_core.launch", "prepare", request, directory, PreparedData, fault)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Stage[PreparedData]:
    stage = stage_for(tmp_path_factory.mktemp("home"))
    assert not run_or_reuse(stage).reused
    return stage


class Heard:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.seen: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.seen.append(progress)

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_stage_tells_its_listeners_how_far_it_is_and_leaves_request_log_and_provenance(tmp_path: Path) -> None:
    stage, heard = stage_for(tmp_path), Heard()
    with listening(heard):
        finished = run_or_reuse(stage)
    assert finished.result.pictures > 0
    assert heard.seen[-1].done == heard.seen[-1].total == 20
    assert str(stage.directory.path) in heard.notes[0]
    assert json.loads(stage.directory.request.read_text())["images"]["scenes"] == 20
    assert "pictures of shapeworld" in stage.directory.log.read_text()
    written = Provenance.model_validate_json((stage.directory.path / PROVENANCE_FILE).read_text())
    assert written == current_provenance()
    assert written.versions["torch"]


def test_what_is_done_and_intact_is_found_without_starting_anything(done: Stage[PreparedData]) -> None:
    log = done.directory.log.read_text()
    found = run_or_reuse(done)
    assert found.reused
    assert done.directory.log.read_text() == log


def test_a_result_that_is_worth_another_attempt_is_made_again_and_taken_as_it_then_is(
    done: Stage[PreparedData],
) -> None:
    wanting = replace(done, unfinished=lambda result: "two replies are missing")
    again = run_or_reuse(wanting)
    assert not again.reused
    assert again.result == run_or_reuse(done).result


@pytest.mark.parametrize("content", ["", "{", '{"digest": "x"}', "[1]"])
def test_an_unreadable_result_is_made_again(done: Stage[PreparedData], content: str) -> None:
    done.directory.done.write_text(content)
    assert not run_or_reuse(done).reused
    assert run_or_reuse(done).reused


def test_a_result_that_points_to_something_else_is_made_again_and_the_log_says_why(
    done: Stage[PreparedData], caplog: pytest.LogCaptureFixture
) -> None:
    result = run_or_reuse(done).result
    (Path(result.directory) / "manifest.jsonl").unlink()
    with caplog.at_level(logging.WARNING, "reca"):
        assert not run_or_reuse(done).reused
    assert "manifest.jsonl is missing" in caplog.text
    assert (Path(result.directory) / "manifest.jsonl").is_file()


def test_a_child_that_leaves_no_usable_result_is_a_failed_stage(tmp_path: Path) -> None:
    stage = stage_for(tmp_path, fault=lambda _: "never good enough")
    with pytest.raises(StageFailed, match=r"DONE\.json"):
        run_or_reuse(stage)


def test_bad_input_found_by_the_child_is_bad_input_here(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        run_or_reuse(stage_for(tmp_path, ImageSource(source=str(tmp_path / "nowhere"), kind="folder")))


def test_other_code_is_told_in_words() -> None:
    before = Provenance(git_commit="a", versions={"torch": "1", "numpy": "2"})
    now = Provenance(git_commit="b", versions={"torch": "1", "numpy": "3", "pillow": "4"})
    assert differences(before, before) == []
    assert differences(before, now) == [
        "numpy was 2, is 3",
        "pillow was absent, is 4",
        "git commit was a, is b",
    ]
