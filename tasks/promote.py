"""``promote``: after the measuring, the challenger becomes champion, or does not, and the reasons are kept.

The rule is ``tasks/promotion.py``. A decision is written into the ledger first, then carried out: tags on the version,
the alias, a page in Prefect, a tag on the MLflow run, an event. Everything may be done twice, so a run that was cut off
in between finishes what it decided. A run that asks a person is suspended: its process ends, and when somebody resumes
it with the form it begins at the top and finds everything that was measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.runtime import deployment

from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import canonical_json, request_hash, sha256_text
from reca_core.contracts.records import VersionRef
from reca_core.contracts.requests import EvaluationPlan
from reca_core.contracts.versions import Promotion
from tasks import approvals, events, ledger, tracking, tracking_lineage, tracking_models
from tasks.artifacts import show_page
from tasks.compare import compare
from tasks.conclude import cell, markdown
from tasks.policies import verb
from tasks.progress import note
from tasks.promotion import Verdict, verdict
from tasks.results import Compared, Decided, Decision, FoundVersions, Judged, StageResult
from tasks.run import RunContext

RULE = "rule"
ROLLED_BACK_TAG = "rolled_back"
CHAMPION_BEFORE_TAG = "champion_before"
DECISION_TAG = "decision"
WAITING_TAG = "waits_for_approval_in"
LONGEST_TAG = 4000
"""MLflow takes 5000 characters."""
SECONDS_PER_DAY = 86_400


def check_approvable(rule: Promotion) -> None:
    """Raises BadInput where a person is to be asked and the run is none that can wait."""
    if rule.decide == "after_approval" and not deployment.id:
        raise BadInput(
            "only a run of a deployment can wait for a person",
            field="promotion.decide",
            choices=("never", "by_rule"),
            remedy="start re-evaluate in the Prefect UI, or let the rule decide",
        )


def promote(
    run: RunContext, found: FoundVersions, judged: Sequence[Judged], evaluation: EvaluationPlan, rule: Promotion
) -> list[StageResult]:
    """What was decided about the challenger and the comparisons behind it; nothing where there is nothing to decide."""
    record_unanswered()
    challenger = found.behind.get(rule.challenger)
    if rule.decide == "never" or challenger is None:
        return []
    standing = ledger.of_run(found.name, run.flow_run_id)
    if standing is not None:
        return [carry_out(run, standing)]
    champion = found.behind.get(rule.champion)
    if champion is not None and champion.version == challenger.version:
        note(f"promote: {found.name}/{champion.version} is {rule.champion} already")
        return []
    pairs = _compared(run, found, judged, evaluation, champion, challenger)
    subject = _subject(judged, champion, challenger, rule)
    before = ledger.on_subject(found.name, subject)
    if before is not None:
        note(f"promote: decided {before.at}, nothing has changed since: {before.text}")
        return [*pairs]
    said = _verdict(found, judged, pairs, rule, champion, challenger)
    decision = Decision(
        kind="promoted" if said.promote else "refused",
        name=found.name,
        version=challenger.version,
        other=champion.version if champion else "",
        alias=rule.champion,
        reasons=said.reasons,
        by=RULE,
        at=ledger.now(),
        flow_run_id=run.flow_run_id,
        subject=subject,
    )
    if said.promote and rule.decide == "after_approval":
        if _somebody_else_waits(run, challenger):
            return [*pairs]
        approvals.ask(run, decision.model_copy(update={"kind": "refused"}), rule.approval_days)
        decision = _answered(decision, pairs, rule, champion, challenger)
    ledger.write(decision)
    approvals.forget(run.flow_run_id)
    return [*pairs, carry_out(run, decision)]


def record_unanswered() -> None:
    """Questions of suspended runs that will not be answered any more are refusals: into the ledger, and told."""
    for question, refusal in approvals.unanswered():
        standing = ledger.of_run(refusal.name, refusal.flow_run_id)
        if standing is None:
            ledger.write(refusal)
        carry_out(question.run, standing or refusal)
        approvals.forget(refusal.flow_run_id)


def _compared(
    run: RunContext,
    found: FoundVersions,
    judged: Sequence[Judged],
    evaluation: EvaluationPlan,
    champion: VersionRef | None,
    challenger: VersionRef,
) -> list[Compared]:
    """Champion and challenger on every benchmark; nothing where there is no champion or both are the same weights."""
    if champion is None or found.weights[champion.version] == found.weights[challenger.version]:
        return []
    by_weights = {(one.model.sha256, one.benchmark): one for one in judged}
    benchmarks = dict.fromkeys(one.benchmark for one in judged)
    first, second = found.weights[champion.version], found.weights[challenger.version]
    return [
        compare(run, by_weights[first, benchmark], by_weights[second, benchmark], evaluation)
        for benchmark in benchmarks
    ]


def _subject(judged: Sequence[Judged], champion: VersionRef | None, challenger: VersionRef, rule: Promotion) -> str:
    versions = [champion.version if champion else "", challenger.version]
    return sha256_text(canonical_json([versions, sorted(one.request_hash for one in judged), request_hash(rule)]))


def _verdict(
    found: FoundVersions,
    judged: Sequence[Judged],
    pairs: Sequence[Compared],
    rule: Promotion,
    champion: VersionRef | None,
    challenger: VersionRef,
) -> Verdict:
    rolled_back = tracking_models.version_tags(challenger).get(ROLLED_BACK_TAG, "")
    if rolled_back:
        return Verdict(False, [f"it was rolled back: {rolled_back}", f"remove its tag {ROLLED_BACK_TAG} to allow it"])
    asked = {found.weights[version.version] for version in (champion, challenger) if version}
    unscored = [f"{one.stage}: {reason}" for one in judged if one.model.sha256 in asked for reason in one.unscored]
    if unscored:
        return Verdict(False, unscored)
    if champion is None:
        first = rule.without_champion == "promote"
        return Verdict(first, [f"no version is {rule.champion} yet: there is nothing to compare with"])
    if not pairs:
        return Verdict(False, [f"it has the same weights as {found.name}/{champion.version}"])
    return verdict(pairs, rule)


def _somebody_else_waits(run: RunContext, challenger: VersionRef) -> bool:
    """Whether an earlier run asked about this version and still waits for its answer."""
    other = tracking_models.version_tags(challenger).get(WAITING_TAG, "")
    if other not in ("", run.flow_run_id):
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(other).state  # type: ignore[arg-type]
        except ObjectNotFound:
            state = None
        if state is not None and state.is_paused():
            note(f"promote: flow run {other} asks about {challenger.name}/{challenger.version} already")
            return True
    tracking_models.tag_version(challenger, {WAITING_TAG: run.flow_run_id})
    return False


def _answered(
    planned: Decision, pairs: Sequence[Compared], rule: Promotion, champion: VersionRef | None, challenger: VersionRef
) -> Decision:
    """End this process; in the run that begins again at the top, return what the person decided."""
    before = f"{champion.name}/{champion.version}" if champion else "no version"
    question = f"Make {challenger.name}/{challenger.version} {rule.champion}? Now it is {before}."
    told = "\n\n".join([cell(question), *(cell(reason) for reason in planned.reasons), markdown(pairs)])
    answer = suspend_flow_run(
        wait_for_input=approvals.Approval.with_initial_data(description=told),
        timeout=rule.approval_days * SECONDS_PER_DAY,
        key=f"promote-{challenger.version}-{champion.version if champion else 0}",
    )
    person = answer.person or "a person in the UI"
    kept = f"{person} says: {answer.reason or 'no reason given'}"
    kind = "promoted" if answer.promote else "refused"
    return planned.model_copy(update={"kind": kind, "reasons": [kept, *planned.reasons], "by": person})


@verb("promote", "{decision.kind} {decision.name} {decision.version}")
def carry_out(run: RunContext, decision: Decision) -> Decided:
    """Do what was decided and tell it. Nothing is done about a decision that another one followed."""
    began = time.monotonic()
    *_, last = ledger.decisions(decision.name)
    if last == decision:
        version = tracking_models.version_at(f"models:/{decision.name}/{decision.version}")
        tags = {DECISION_TAG: f"{decision.at} {decision.text}"[:LONGEST_TAG], WAITING_TAG: ""}
        if decision.kind == "promoted":
            tags[CHAMPION_BEFORE_TAG] = decision.other
        tracking_models.tag_version(version, tags)
        if decision.kind == "promoted":
            tracking_models.set_alias(version, decision.alias)
        numbers = [decision.version, *([decision.other] if decision.other else [])]
        tracking_lineage.describe_decision(decision.name, decision.alias, numbers)
        announce(run, decision, events.PROMOTION if decision.kind == "promoted" else events.REFUSAL)
    return Decided(stage="promote", seconds=time.monotonic() - began, decision=decision)


def announce(run: RunContext, decision: Decision, event: str) -> None:
    """The page in Prefect, the tag on the MLflow run, the event, and a line for who watches."""
    note(decision.text)
    tracking.log_tags(run.tracked, {DECISION_TAG: decision.text[:LONGEST_TAG], "decision_kind": decision.kind})
    facts: dict[str, events.Fact] = {
        "kind": decision.kind,
        "alias": decision.alias,
        "other": decision.other,
        "by": decision.by,
        "reasons": "; ".join(decision.reasons),
        "flow_run_id": decision.flow_run_id,
    }
    events.tell(
        events.Notice(event=event, model=decision.name, version=decision.version, text=decision.text, facts=facts)
    )
    show_page(page(decision), f"decision {decision.name}", f"Decisions about {decision.name}")


def page(decision: Decision) -> str:
    """A decision for people."""
    head = f"**{cell(decision.name)}/{decision.version}: {decision.kind.replace('_', ' ')}** ({cell(decision.alias)})"
    facts = [f"- {cell(reason)}" for reason in decision.reasons]
    other = f"- the other version is {decision.other}" if decision.other else "- there was no other version"
    return "\n".join([head, "", *facts, other, f"- decided {decision.at} by {cell(decision.by)}"]) + "\n"
