"""Options that stand for settings: they add up to the same ``--set``, and paths mean the person's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments import arguments
from deployments.catalogue import FLOWS
from deployments.settings import keys
from deployments.shortcuts import OF_FLOW
from reca_core.contracts.errors import BadInput


def sets_of(*words: str) -> list[str]:
    return list(arguments.build().parse_args(list(words)).sets)


def test_every_option_stands_for_a_setting_of_its_flow() -> None:
    for flow, shortcuts in OF_FLOW.items():
        for shortcut in shortcuts:
            assert shortcut.setting in keys(FLOWS[flow].parameters)
            assert sets_of(flow, shortcut.option, "/x") == [f"{shortcut.setting}=/x"]


def test_benchmarks_add_up_and_other_options_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = sets_of("evaluate", "--benchmark", "geneval", "--images", "pictures", "--benchmark", "dpg")
    assert found == ["evaluation.benchmarks=geneval,dpg", f"evaluation.pictures_from={tmp_path / 'pictures'}"]
    assert sets_of("evaluate", "--set", "evaluation.resamples=100", "--arithmetic", "parity") == [
        "evaluation.resamples=100",
        "evaluation.arithmetic=parity",
    ]


def test_one_command_does_not_hear_what_another_was_told() -> None:
    parser = arguments.build()
    parser.parse_args(["evaluate", "--benchmark", "geneval"])
    assert parser.parse_args(["evaluate"]).sets == []


def test_flows_that_draw_their_pictures_take_none() -> None:
    with pytest.raises(BadInput, match="unrecognized arguments: --images"):
        arguments.build().parse_args(["train-then-evaluate", "--images", "x"])
