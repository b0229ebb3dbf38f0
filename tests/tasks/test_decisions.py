"""Decisions: kept with their reasons, carried out once, finished after a crash, and taken back by one command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel, VersionRef
from reca_core.contracts.versions import Rollback
from tasks import events, ledger, tracking, tracking_models
from tasks.promote import CHAMPION_BEFORE_TAG, DECISION_TAG, ROLLED_BACK_TAG, carry_out
from tasks.results import Decision
from tasks.rollback import roll_back
from tasks.run import RunContext

Told = list[dict[str, Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for the module: making its tables costs a second."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECA_HOME", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield root


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    sent: Told = []
    monkeypatch.setattr(events, "emit_event", lambda **event: sent.append(event))
    return sent


def a_run(name: str) -> RunContext:
    tracked = tracking.begin_run(name, {"flow_run_id": name}, {})
    return RunContext(flow="re-evaluate", flow_run_id=name, prefect_url="", tracked=tracked)


@pytest.fixture
def versions(home: Path, request: pytest.FixtureRequest) -> list[VersionRef]:
    """Three versions of a name of its own; the first is champion."""
    name = f"reca-{request.node.name[:40]}"
    made = []
    for number in (1, 2, 3):
        folder = home / name / str(number)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "janus"}')
        (folder / "weights").write_text(f"{name} {number}")
        model = ResolvedModel(name="tiny", family="janus", path=str(folder), sha256=sha256_tree(folder))
        run = a_run(f"{name} {number}")
        tags = {"request_hash": f"{name}{number}"}
        made.append(tracking_models.register(name, model, run.tracked.run_id, tags, copy=False)[0])
    tracking_models.set_alias(made[0], "champion")
    return made


def decision(run: RunContext, version: VersionRef, other: str, kind: str = "promoted") -> Decision:
    return Decision.model_validate(
        {
            "kind": kind, "name": version.name, "version": version.version, "other": other, "alias": "champion",
            "reasons": ["it is better"], "by": "rule", "at": ledger.now(), "flow_run_id": run.flow_run_id,
            "subject": f"{version.version} {other} {kind}",
        }
    )  # fmt: skip


def promoted(version: VersionRef, other: str) -> Decision:
    run = a_run(f"promotes {version.name} {version.version}")
    made = decision(run, version, other)
    ledger.write(made)
    carry_out.fn(run, made)
    return made


def champion(name: str) -> str:
    return str(tracking_models.version_at(f"models:/{name}@champion").version)


def test_a_promotion_moves_the_alias_and_leaves_its_reasons_everywhere(versions: list[VersionRef], told: Told) -> None:
    first, second, _ = versions
    made = promoted(second, first.version)
    assert champion(second.name) == "2"
    tags = tracking_models.version_tags(second)
    assert "it is better" in tags[DECISION_TAG]
    assert tags[CHAMPION_BEFORE_TAG] == "1"
    assert list(ledger.decisions(second.name)) == [made]
    (event,) = told
    assert (event["event"], event["payload"]["kind"], event["payload"]["other"]) == ("reca.promotion", "promoted", "1")
    run = tracking.find_run({"flow_run_id": made.flow_run_id})
    assert run is not None
    assert run.data.tags["decision_kind"] == "promoted"


def test_a_refusal_moves_nothing_and_is_told(versions: list[VersionRef], told: Told) -> None:
    first, second, _ = versions
    run = a_run("refuses")
    made = decision(run, second, first.version, "refused")
    ledger.write(made)
    carry_out.fn(run, made)
    assert champion(first.name) == "1"
    assert "did not become champion: it is better" in tracking_models.version_tags(second)[DECISION_TAG]
    assert told[0]["event"] == "reca.refusal"


def test_a_run_that_was_cut_off_after_deciding_finishes_that_decision(versions: list[VersionRef], told: Told) -> None:
    first, second, _ = versions
    run = a_run("cut off")
    ledger.write(decision(run, second, first.version))
    standing = ledger.of_run(second.name, "cut off")
    assert standing is not None
    carry_out.fn(run, standing)
    carry_out.fn(run, standing)
    assert champion(second.name) == "2"
    assert len(list(ledger.decisions(second.name))) == 1


def test_an_old_decision_never_undoes_a_newer_one(versions: list[VersionRef], told: Told) -> None:
    first, second, third = versions
    old = promoted(second, first.version)
    promoted(third, second.version)
    carry_out.fn(a_run("late"), old)
    assert champion(third.name) == "3"


def test_the_same_is_not_decided_twice_until_something_else_is(versions: list[VersionRef], told: Told) -> None:
    first, second, _ = versions
    made = promoted(second, first.version)
    assert ledger.on_subject(second.name, made.subject) == made
    roll_back.fn(a_run("back"), Rollback(name=second.name))
    assert ledger.on_subject(second.name, made.subject) is None
    assert ledger.on_subject("another", made.subject) is None


def test_a_rollback_goes_one_champion_back_each_time_and_says_why(versions: list[VersionRef], told: Told) -> None:
    first, second, third = versions
    promoted(second, first.version)
    promoted(third, second.version)
    done = roll_back.fn(a_run("once"), Rollback(name=third.name, reason="draws worse hands"))
    assert (champion(third.name), done.decision.version, done.decision.other) == ("2", "3", "2")
    assert "draws worse hands" in tracking_models.version_tags(third)[ROLLED_BACK_TAG]
    roll_back.fn(a_run("twice"), Rollback(name=third.name))
    assert champion(third.name) == "1"
    assert [item.kind for item in ledger.decisions(third.name)] == [
        "promoted",
        "promoted",
        "rolled_back",
        "rolled_back",
    ]
    assert [event["payload"]["kind"] for event in told[-2:]] == ["rolled_back", "rolled_back"]
    with pytest.raises(PrerequisiteMissing, match="which version was champion before") as caught:
        roll_back.fn(a_run("thrice"), Rollback(name=third.name))
    assert caught.value.field == "rollback.to"
    roll_back.fn(a_run("named"), Rollback(name=third.name, to="3"))
    assert champion(third.name) == "3"
    assert ROLLED_BACK_TAG not in tracking_models.version_tags(third)


def description(version: VersionRef) -> str:
    return str(tracking.client().get_model_version(version.name, version.version).description)


def test_after_a_promotion_and_a_rollback_the_pages_tell_the_lineage_and_who_is_champion(
    versions: list[VersionRef], told: Told
) -> None:
    first, second, _ = versions

    def model_page() -> str:
        return str(tracking.client().get_registered_model(first.name).description)

    promoted(second, first.version)
    assert model_page() == f"`champion` is version 2.\n\n{description(second)}"
    assert "aliases: `champion`" in description(second)
    assert "became champion: it is better" in description(second)
    assert "aliases: none" in description(first)
    roll_back.fn(a_run("lineage back"), Rollback(name=first.name, reason="six fingers"))
    assert model_page() == f"`champion` is version 1.\n\n{description(first)}"
    assert "aliases: none" in description(second)
    assert "six fingers" in description(second)
    for part in ("Data", "Training", "Checkpoint", "Scores", "Schedule"):
        assert f"**{part}**" in description(first)


def test_a_refusal_is_told_on_the_version_s_page_and_what_somebody_else_wrote_stays(
    versions: list[VersionRef], told: Told
) -> None:
    first, second, _ = versions
    tracking.client().update_model_version(first.name, first.version, "Our best one, do not touch.")
    tracking.client().update_registered_model(first.name, "Made by Ada.")
    run = a_run("refuses on the page")
    made = decision(run, second, first.version, "refused")
    ledger.write(made)
    carry_out.fn(run, made)
    assert "did not become champion: it is better" in description(second)
    assert description(first) == "Our best one, do not touch."
    assert tracking.client().get_registered_model(first.name).description == "Made by Ada."


def test_a_version_from_elsewhere_is_described_as_far_as_it_is_known(
    home: Path, versions: list[VersionRef], told: Told
) -> None:
    name, store = versions[0].name, tracking.client()
    made = store.create_model_version(name, (home / name / "3").as_uri())
    tags = {"measured.geneval.shapeworld": "overall 0.5, 24/24 scored"}
    outside = VersionRef(name=name, version=str(made.version), model_id="", run_id="")
    tracking_models.tag_version(outside, tags)
    promoted(outside, "1")
    for fact in (
        "not by this pipeline",
        f"{name}/3`",
        "- `geneval.shapeworld` overall 0.5, 24/24 scored",
        "`champion`",
    ):
        assert fact in description(outside)


def test_a_version_whose_maker_was_killed_before_it_was_linked_is_linked_by_who_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "cut off"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "janus", "name": "cut off"}')
    model = ResolvedModel(name="cut off", family="janus", path=str(folder), sha256=sha256_tree(folder))
    run, tags = a_run("cut off while it registers"), {"request_hash": "cut-off"}

    def register() -> VersionRef:
        return tracking_models.register("reca-cut-off", model, run.tracked.run_id, tags, copy=False)[0]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking_models, "_link_from_model", killed)
        with pytest.raises(KeyboardInterrupt):
            register()
    version = register()
    assert version.version == "1"
    link = tracking.client().get_logged_model(version.model_id).tags[tracking_models.VERSIONS_TAG]
    assert json.loads(link) == [{"name": "reca-cut-off", "version": "1"}]


def test_a_rollback_that_was_cut_off_does_not_go_back_a_second_time(versions: list[VersionRef], told: Told) -> None:
    first, second, third = versions
    promoted(second, first.version)
    promoted(third, second.version)
    run = a_run("resumed")
    roll_back.fn(run, Rollback(name=third.name))
    roll_back.fn(run, Rollback(name=third.name))
    assert champion(third.name) == "2"


def test_a_rollback_to_the_champion_itself_is_refused(versions: list[VersionRef], told: Told) -> None:
    with pytest.raises(BadInput, match="already"):
        roll_back.fn(a_run("same"), Rollback(name=versions[0].name, to="1"))
