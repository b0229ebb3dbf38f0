"""The writer: one JSON object on standard output, bars or lines on standard error, whatever the texts contain."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from deployments.terminal import Terminal
from reca_core.contracts.errors import EXIT_INCOMPLETE, EXIT_STAGE_FAILED, StageFailed
from reca_core.contracts.progress import Progress

MARKUP = "[red]not markup[/nor this"


def progress(done: int, stage: str = "train") -> Progress:
    return Progress(stage=stage, done=done, total=4, unit="reply", metrics={"train/loss": 1.5})


def on_a_terminal() -> tuple[Terminal, io.StringIO]:
    terminal, screen = Terminal(), io.StringIO()
    terminal.messages = Console(file=screen, force_terminal=True, width=120)
    return terminal, screen


def test_bars_are_drawn_for_every_stage_and_begin_anew_when_a_stage_does() -> None:
    terminal, screen = on_a_terminal()
    for stage, done in (("train", 1), ("train", 4), (MARKUP, 2), ("sample", 4), ("sample", 1)):
        terminal.progress(progress(done, stage))
    terminal.note(MARKUP)
    terminal.close()
    text = screen.getvalue()
    assert "train" in text
    assert text.count("not markup") >= 2
    assert "4/4" in text
    assert "1/4" in text


def test_without_a_terminal_progress_is_a_line_now_and_then_and_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal()
    for done in (1, 2, 3, 4):
        terminal.progress(progress(done))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "1/4 replies loss 1.5" in lines[0]
    assert "4/4" in lines[1]


def test_with_json_people_are_spoken_to_on_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(as_json=True)
    terminal.note("a note")
    terminal.line("a result")
    terminal.answer({"text": MARKUP}, EXIT_INCOMPLETE)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"exit_code": EXIT_INCOMPLETE, "status": "incomplete", "text": MARKUP}
    assert "a note" in said.err
    assert "a result" in said.err


def test_a_fault_shows_every_part_as_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(as_json=True)
    terminal.fault(StageFailed(MARKUP, field="here", choices=["[a]", "b"], remedy="[bold]do"))
    said = capsys.readouterr()
    assert json.loads(said.out)["exit_code"] == EXIT_STAGE_FAILED
    assert all(part in said.err for part in (MARKUP, "here", "[a], b", "[bold]do"))
