"""What the pipeline tells the outside: the names of its Prefect events and the shape of what they carry.

A verb emits, the automations of deployments/automations.py react: whoever is to hear of it is their business. Every
payload has ``text``, one sentence for people that a chat can show as it is, beside the facts for programs.
"""

from __future__ import annotations

from collections.abc import Mapping

from prefect.events import emit_event

from reca_core.contracts.base import Record

DRIFT = "reca.drift"
"""A version measures differently than it did: the judge, the data or the machine changed under the same name."""
PROMOTION = "reca.promotion"
"""An alias moved to another version, by comparison, by a person or as a rollback."""
REFUSAL = "reca.refusal"
"""A version was measured and the alias was not moved; the payload says why."""
NOTICES = (DRIFT, PROMOTION, REFUSAL)
REGISTERED = "reca.registered"
"""A version was made; whoever measures new versions listens (deployments/prefect.yaml). No news for people."""

Fact = str | int | float | bool | None
RESOURCE = "reca.model-version"


class Notice(Record):
    """One thing that people are to hear of."""

    event: str
    """One of NOTICES, or REGISTERED."""
    model: str
    """Name of the registered model."""
    version: str
    """Number of its version."""
    text: str
    """One sentence: what happened and why. No secret may be in it."""
    facts: dict[str, Fact] = {}
    """Numbers and names for programs, such as ``benchmark``, ``delta``, ``low``, ``high``, ``alias``, ``report``."""

    @property
    def resource(self) -> dict[str, str]:
        """What the event is about, in Prefect's terms."""
        return {
            "prefect.resource.id": f"{RESOURCE}.{self.model}.{self.version}",
            "prefect.resource.name": f"{self.model}/{self.version}",
        }

    @property
    def payload(self) -> Mapping[str, Fact]:
        """What the event carries; a fact never hides the text, the model or the version."""
        return {**self.facts, "text": self.text, "model": self.model, "version": self.version}


def tell(notice: Notice) -> None:
    """Emit it. Raises ValueError for an event that no automation listens to.

    Sent in the background: a server that does not answer stops no stage.
    """
    if notice.event not in (*NOTICES, REGISTERED):
        raise ValueError(f"{notice.event!r} is no event of ours: {', '.join((*NOTICES, REGISTERED))}")
    emit_event(event=notice.event, resource=notice.resource, payload=dict(notice.payload))
