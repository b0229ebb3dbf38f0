"""Names of what tells people that something happened; apart, because the doctor must not import Prefect for them."""

from __future__ import annotations

WEBHOOK_BLOCK = "reca-webhook"
"""The Secret block that a person makes, with the address; and the Webhook block made from it, which Prefect calls."""
TELL_FAILED, TELL_DRIFT, TELL_PROMOTION = (
    "reca: tell of failed runs",
    "reca: tell of drift",
    "reca: tell of promotions",
)
NAMES = (TELL_FAILED, TELL_DRIFT, TELL_PROMOTION)
"""Automations; each may be switched off in the UI and stays so."""
