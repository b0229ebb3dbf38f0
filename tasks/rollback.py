"""``roll back``: a champion is taken back, and the one before it is champion again. Recorded like every decision.

A version that was taken back carries the tag ``rolled_back``, so that the rule does not promote it again next night.
"""

from __future__ import annotations

import time

from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.hashing import sha256_text
from reca_core.contracts.records import VersionRef
from reca_core.contracts.versions import Rollback
from tasks import events, ledger, tracking_lineage, tracking_models
from tasks.policies import verb
from tasks.promote import CHAMPION_BEFORE_TAG, DECISION_TAG, LONGEST_TAG, ROLLED_BACK_TAG, announce
from tasks.results import Decision, RolledBack
from tasks.run import RunContext

BY_HAND = "a person"


@verb("roll back", "roll back {choice.name}")
def roll_back(run: RunContext, choice: Rollback) -> RolledBack:
    """Move the alias back. Raises PrerequisiteMissing where no champion or no earlier one is known, BadInput where the
    wanted version is champion already."""
    began = time.monotonic()
    decision = ledger.of_run(choice.name, run.flow_run_id)
    if decision is None:
        decision = decide(run, choice)
        ledger.write(decision)
    *_, last = ledger.decisions(choice.name)
    if last == decision:
        _carry_out(run, choice, decision)
    return RolledBack(stage="roll back", seconds=time.monotonic() - began, decision=decision)


def _carry_out(run: RunContext, choice: Rollback, decision: Decision) -> None:
    """All of it may be done twice; the alias comes last of what others follow."""
    current, target = (
        tracking_models.version_at(f"models:/{choice.name}/{number}") for number in (decision.version, decision.other)
    )
    told = f"{decision.at} {decision.text}"[:LONGEST_TAG]
    tracking_models.tag_version(current, {DECISION_TAG: told, ROLLED_BACK_TAG: told})
    tracking_models.tag_version(target, {DECISION_TAG: f"{decision.at} is {choice.alias} again"})
    tracking_models.untag_version(target, ROLLED_BACK_TAG)
    tracking_models.set_alias(target, choice.alias)
    tracking_lineage.describe_decision(choice.name, choice.alias, [current.version, target.version])
    announce(run, decision, events.PROMOTION)


def decide(run: RunContext, choice: Rollback) -> Decision:
    """Which version is taken back and which one is champion again."""
    current = tracking_models.version_at(f"models:/{choice.name}@{choice.alias}")
    target = tracking_models.version_at(f"models:/{choice.name}/{choice.to or _before(current, choice)}")
    if target.version == current.version:
        raise BadInput(f"{choice.name}/{target.version} is {choice.alias} already", field="rollback.to")
    return Decision(
        kind="rolled_back",
        name=choice.name,
        version=current.version,
        other=target.version,
        alias=choice.alias,
        reasons=[choice.reason or "no reason given", f"{choice.name}/{target.version} is {choice.alias} again"],
        by=BY_HAND,
        at=ledger.now(),
        flow_run_id=run.flow_run_id,
        subject=sha256_text(f"{run.flow_run_id} rollback"),
    )


def _before(current: VersionRef, choice: Rollback) -> str:
    number = tracking_models.version_tags(current).get(CHAMPION_BEFORE_TAG, "")
    if not number:
        raise PrerequisiteMissing(
            f"nothing says which version was {choice.alias} before {current.name}/{current.version}",
            field="rollback.to",
            remedy=f"name it: reca rollback {choice.name} --to NUMBER",
        )
    return number
