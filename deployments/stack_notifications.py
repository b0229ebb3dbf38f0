"""One webhook that hears of failed runs, drift and promotions: the server calls it, so no process of ours must live.

A person puts the address into a Secret block called ``reca-webhook`` (Prefect UI, Blocks). Prefect's automations can
only call a Webhook block, whose address is secret too: ``reca up`` makes it from the first. What is sent is JSON with
``text``, which chats show as it is, and ``event``, ``run`` and ``url``, or the facts of tasks/events.py.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger, Posture

from deployments.stack_names import TELL_DRIFT, TELL_FAILED, TELL_PROMOTION, WEBHOOK_BLOCK
from tasks.events import DRIFT, PROMOTION, RESOURCE

FAILED = "prefect.flow-run.Failed"
SAID = "event.payload.validated_state.message"
"""Where a state's event keeps its message."""
FAILED_PAYLOAD = (
    '{"event": {{ event.event | tojson }}, '
    '"text": {{ ("Run " ~ flow_run.name ~ " of " ~ flow.name ~ " failed: " ~ (' + SAID + ' or "")) | tojson }}, '
    '"run": {{ flow_run.name | tojson }}, "flow": {{ flow.name | tojson }}, "url": {{ flow_run | ui_url | tojson }}}'
)
NOTICE_PAYLOAD = (
    '{"event": {{ event.event | tojson }}, "text": {{ event.payload.text | tojson }}, '
    '"facts": {{ event.payload | tojson }}}'
)
HEADERS = {"Content-Type": "application/json"}


def webhook_address() -> str:
    """What the person's Secret block holds; empty where there is none."""
    try:
        block = Secret.load(WEBHOOK_BLOCK)
    except ValueError:
        return ""
    return str(block.get()).strip()  # type: ignore[union-attr]


def save_webhook(address: str) -> UUID:
    """The Webhook block with this address; returns its id, the same every time."""
    block = Webhook(url=address, headers=HEADERS)  # type: ignore[arg-type]
    found: UUID = block.save(WEBHOOK_BLOCK, overwrite=True)  # type: ignore[assignment]
    return found


def remove_webhook() -> None:
    """Take the block away, where there is one."""
    with suppress(ValueError):
        Webhook.delete(WEBHOOK_BLOCK)


def notifications(webhook: UUID) -> list[Automation]:
    """The three automations."""
    runs, versions = "prefect.flow-run.*", f"{RESOURCE}.*"
    return [
        _tell(
            TELL_FAILED, "A run ended Failed; crashed ones go on by themselves.", FAILED, runs, FAILED_PAYLOAD, webhook
        ),
        _tell(TELL_DRIFT, "A version measures differently than before.", DRIFT, versions, NOTICE_PAYLOAD, webhook),
        _tell(TELL_PROMOTION, "An alias moved to another version.", PROMOTION, versions, NOTICE_PAYLOAD, webhook),
    ]


def _tell(name: str, description: str, event: str, resource: str, payload: str, webhook: UUID) -> Automation:
    return Automation(
        name=name,
        description=f"{description} docs/operations.md, Notifications.",
        trigger=EventTrigger(
            expect={event},
            match={"prefect.resource.id": [resource]},  # type: ignore[arg-type]
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[CallWebhook(block_document_id=webhook, payload=payload)],
    )
