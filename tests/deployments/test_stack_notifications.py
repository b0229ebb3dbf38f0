"""What the webhook is sent: JSON whatever a message holds, rendered by Prefect's own templates."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from uuid import uuid4

from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger
from prefect.server.utilities.user_templates import render_user_template

from deployments.stack_names import NAMES
from deployments.stack_notifications import FAILED_PAYLOAD, NOTICE_PAYLOAD, notifications
from tasks.events import DRIFT, NOTICES, PROMOTION

HOSTILE = 'he said "no"\n{{ 7 * 7 }} <b>\\'


def rendered(template: str, **context: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(asyncio.run(render_user_template(template, context)))
    return found


def test_a_notice_is_json_whatever_it_holds() -> None:
    event = SimpleNamespace(event=DRIFT, payload={"text": HOSTILE, "delta": -0.2})
    found = rendered(NOTICE_PAYLOAD, event=event)
    assert found == {"event": DRIFT, "text": HOSTILE, "facts": {"text": HOSTILE, "delta": -0.2}}


def test_a_failure_names_run_flow_and_reason() -> None:
    payload = {"validated_state": {"message": HOSTILE}}
    template = FAILED_PAYLOAD.replace(" | ui_url", ".url")
    found = rendered(
        template,
        event=SimpleNamespace(event="prefect.flow-run.Failed", payload=payload),
        flow_run=SimpleNamespace(name="busy-owl", url="http://127.0.0.1:4200/runs/flow-run/1"),
        flow=SimpleNamespace(name="evaluate"),
    )
    assert found["text"] == f"Run busy-owl of evaluate failed: {HOSTILE}"
    assert found["url"] == "http://127.0.0.1:4200/runs/flow-run/1"


def test_failures_drift_and_promotions_are_told_and_refusals_are_not() -> None:
    made = notifications(uuid4())
    assert tuple(automation.name for automation in made) == NAMES
    heard = set()
    for automation in made:
        assert isinstance(automation.trigger, EventTrigger)
        assert isinstance(automation.actions[0], CallWebhook)
        heard |= automation.trigger.expect
    assert heard == {"prefect.flow-run.Failed", DRIFT, PROMOTION}
    assert len(set(NOTICES) - heard) >= 1
