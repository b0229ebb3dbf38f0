"""Events: what they are about, and that the sentence for people is always there."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import events
from tasks.events import DRIFT, Notice, tell


def test_a_notice_carries_its_sentence_and_its_facts_and_no_fact_can_hide_the_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: sent.append(event))
    tell(Notice(event=DRIFT, model="reca-tiny", version="3", text="moved", facts={"delta": -0.2, "text": "hidden"}))
    (event,) = sent
    assert event["event"] == "reca.drift"
    assert event["resource"]["prefect.resource.id"] == "reca.model-version.reca-tiny.3"
    assert event["payload"] == {"text": "moved", "model": "reca-tiny", "version": "3", "delta": -0.2}


def test_an_event_that_nobody_listens_to_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reca\.promotion"):
        tell(Notice(event="reca.promoted", model="m", version="1", text="typo"))
