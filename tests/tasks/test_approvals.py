"""A question to a person that nobody answers: a refusal in the ledger, written by whoever looks next."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed, Running, Suspended

from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel
from tasks import approvals, events, ledger, promote, tracking, tracking_models
from tasks.results import Decision
from tasks.run import RunContext

NAME = "reca-asked"
DAYS = 30
CARRY_OUT = promote.carry_out.fn
"""Outside of a flow."""
EXPIRED = Failed(message="The flow was paused and never resumed.")
"""As Prefect's server ends a run whose pause is over (prefect.server.services.pause_expirations)."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose store has one registered version."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECA_HOME", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        weights = root / "weights"
        weights.mkdir()
        (weights / "config.json").write_text("{}")
        model = ResolvedModel(name="tiny", family="janus", path=str(weights), sha256=sha256_tree(weights))
        run = tracking.begin_run("made", {"flow_run_id": "made"}, {})
        tracking_models.register(NAME, model, run.run_id, {"request_hash": "h"}, copy=False)
        yield root


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: sent.append(event))
    return sent


def asked(name: str) -> RunContext:
    """A run that asks whether version 1 becomes champion."""
    tracked = tracking.begin_run(name, {"flow_run_id": name}, {})
    run = RunContext(flow="re-evaluate", flow_run_id=name, prefect_url="", tracked=tracked)
    refusal = Decision(
        kind="refused", name=NAME, version="1", other="", alias="champion", reasons=["it is better"], by="rule",
        at="then", flow_run_id=name, subject=name,
    )  # fmt: skip
    approvals.ask(run, refusal, DAYS)
    return run


def look(monkeypatch: pytest.MonkeyPatch, state: State[Any] | None) -> None:
    """As the poller, with a server that says this of the run."""
    monkeypatch.setattr(approvals, "_state", lambda _: state)
    monkeypatch.setattr(promote, "carry_out", CARRY_OUT)
    promote.record_unanswered()


def lines(flow_run_id: str) -> list[Decision]:
    return [decision for decision in ledger.decisions(NAME) if decision.flow_run_id == flow_run_id]


def waiting(home: Path) -> list[str]:
    return [file.stem for file in (home / "decisions/waiting").glob("*.json")]


def test_a_question_whose_time_is_over_is_a_refusal_with_its_reason_once(
    home: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked("silence")
    for state in (Suspended(), Running(), Failed(message="MLflow does not answer")):
        look(monkeypatch, state)
        assert not lines("silence")
        assert waiting(home) == ["silence"]
    look(monkeypatch, EXPIRED)
    look(monkeypatch, EXPIRED)
    (line,) = lines("silence")
    assert (line.kind, line.by, line.alias) == ("refused", approvals.NOBODY, "champion")
    assert line.reasons == [f"nobody answered within {DAYS} days", "it is better"]
    assert line.at != "then"
    assert not waiting(home)
    assert [event["event"] for event in told] == ["reca.refusal"]
    version = tracking_models.version_at(f"models:/{NAME}/1")
    assert "nobody answered" in tracking_models.version_tags(version)[promote.DECISION_TAG]
    asker = tracking.find_run({"flow_run_id": "silence"})
    assert asker is not None
    assert asker.data.tags["decision_kind"] == "refused"


def test_a_cancelled_question_is_a_refusal_too(
    home: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked("cancelled")
    look(monkeypatch, Cancelled())
    assert lines("cancelled")[0].reasons[0] == "the run that asked was cancelled before anybody answered"


def test_an_answer_that_was_written_down_stands_although_its_run_was_cut_off(
    home: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, state in (("answered", Cancelled()), ("done", Completed())):
        question = approvals.Question.model_validate_json(_file(home, asked(name)).read_text())
        answer = question.refusal.model_copy(update={"kind": "promoted", "by": "Ada"})
        ledger.write(answer)
        look(monkeypatch, state)
        assert lines(name) == [answer]
        assert not waiting(home)


def test_a_run_that_this_server_does_not_know_has_until_its_own_deadline(
    home: Path, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _file(home, asked("elsewhere"))
    look(monkeypatch, None)
    assert not lines("elsewhere")
    question = approvals.Question.model_validate_json(file.read_text())
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    file.write_text(question.model_copy(update={"until": past.isoformat()}).model_dump_json())
    look(monkeypatch, None)
    assert lines("elsewhere")[0].reasons[0] == f"nobody answered within {DAYS} days"


def test_a_run_that_asks_again_after_a_crash_keeps_its_first_deadline(home: Path) -> None:
    file = _file(home, asked("again"))
    before = file.read_text()
    asked("again")
    assert file.read_text() == before
    approvals.forget("again")
    approvals.forget("again")
    assert not file.exists()


def _file(home: Path, run: RunContext) -> Path:
    return home / f"decisions/waiting/{run.flow_run_id}.json"
