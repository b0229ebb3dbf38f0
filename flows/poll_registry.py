"""Look for registered versions that nobody has measured, and have them measured."""

from __future__ import annotations

from prefect import flow

from reca_core.contracts.versions import Promotion, RegistryWatch
from tasks.form import titled
from tasks.promote import record_unanswered
from tasks.registry_watch import find_unmeasured, request_evaluation
from tasks.resumption import resume_crashed
from tasks.schedule import drop_missed

BY_RULE = Promotion(decide="by_rule")


@flow(name="poll-registry")
@titled
def poll_registry(registry: RegistryWatch = RegistryWatch(), promotion: Promotion = BY_RULE) -> list[str]:
    """Have every registered version measured once, whoever registered it.

    Args:
        registry: Which models to look at.
        promotion: Whether a challenger becomes champion once it is measured.
    """
    drop_missed()
    resume_crashed()
    record_unanswered()
    return [request_evaluation(version, promotion) for version in find_unmeasured(registry)]
