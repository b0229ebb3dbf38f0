"""What an endpoint judge refuses before it asks anything, and what its identity holds."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.judges.vlm_endpoint import KEY_VARIABLE, EndpointJudge
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.judging import JudgeSettings
from tests.evaluation.judging import place


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "k")


@pytest.fixture
def openings(tmp_path: Path) -> Callable[..., EndpointJudge]:
    def opening(benchmark: str = "gedit", **settings: Any) -> EndpointJudge:
        return EndpointJudge.open(place(tmp_path, benchmark), JudgeSettings(judge="openai", **settings))

    return opening


def test_the_published_protocol_pins_the_papers_model(openings: Callable[..., EndpointJudge]) -> None:
    assert openings(protocol="published").identity.model == "gpt-4.1-2025-04-14"
    assert openings("imgedit", protocol="published").identity.model == "gpt-4o-2024-08-06"
    with pytest.raises(BadInput, match=r"gpt-4\.1-2025-04-14"):
        openings(protocol="published", model="gpt-5")
    with pytest.raises(BadInput, match="no published number of dpg"):
        openings("dpg", protocol="published")


def test_another_endpoint_needs_a_model(openings: Callable[..., EndpointJudge]) -> None:
    with pytest.raises(BadInput, match="--judge-model"):
        openings(url="http://localhost:1/v1")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "https://user:pass@host/v1", "http:///v1"])
def test_addresses_that_cannot_be_meant_are_refused(openings: Callable[..., EndpointJudge], url: str) -> None:
    with pytest.raises(BadInput):
        openings(url=url, model="m")


def test_openai_needs_a_key_and_other_endpoints_do_not(
    openings: Callable[..., EndpointJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(PrerequisiteMissing, match=KEY_VARIABLE):
        openings()
    assert openings(url="http://localhost:1/v1", model="m").identity.settings["host"] == "localhost"


def test_boxes_cannot_be_asked_for(openings: Callable[..., EndpointJudge]) -> None:
    with pytest.raises(BadInput, match="cannot judge geneval"):
        openings("geneval")


def test_a_limit_in_dollars_needs_prices(openings: Callable[..., EndpointJudge]) -> None:
    with pytest.raises(BadInput, match="both prices"):
        openings(max_cost_dollars=3.0)


def test_protocol_model_and_date_are_part_of_the_identity(openings: Callable[..., EndpointJudge]) -> None:
    identities = {
        openings(**given).identity.model_dump_json()
        for given in (
            {"date": "2026-01-01"},
            {"date": "2026-01-02"},
            {"date": "2026-01-01", "protocol": "published"},
            {"date": "2026-01-01", "model": "m"},
            {"date": "2026-01-01", "model": "m", "url": "http://h/v1"},
        )
    }
    assert len(identities) == 5


def test_a_resumed_judging_keeps_the_date_of_its_beginning(
    tmp_path: Path, openings: Callable[..., EndpointJudge]
) -> None:
    today = openings().identity.settings["date"]
    assert today == datetime.datetime.now(datetime.UTC).date().isoformat()
    record = openings(date="2020-02-02").identity.model_dump_json()
    (tmp_path / "answers").mkdir(exist_ok=True)
    (tmp_path / "answers" / "judge.json").write_text(record)
    assert openings().identity.settings["date"] == "2020-02-02"
