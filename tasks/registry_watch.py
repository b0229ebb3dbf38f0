"""``watch``: versions that nobody has measured are measured, whoever registered them.

A version that our own register task makes is told by an event; one that came from elsewhere is found by looking, every
few minutes. Both end here. A version is asked for once: by its tag ``evaluation``, and where the tag could not be
written any more by the idempotency key of the run, which the Prefect server never takes twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from reca_core.contracts.records import VersionRef
from reca_core.contracts.versions import Promotion, RegistryWatch
from tasks import tracking_models, tracking_weights
from tasks.policies import verb
from tasks.progress import note
from tasks.version_notes import claim, claimed

DEPLOYMENT = "re-evaluate/registered"
"""Its runs wait for one another; those of the schedules give way."""
MAKER_TAG = "flow_run_id"
"""Of a version: the run that made it."""
MEASURES_ITSELF = "train-then-evaluate"


@verb("find unmeasured versions")
def find_unmeasured(watch: RegistryWatch) -> Sequence[VersionRef]:
    """Versions of the watched names that nobody has looked after and that no run is measuring now."""
    found = [
        version
        for version in tracking_weights.ready_versions()
        if any(fnmatchcase(version.name, pattern) for pattern in watch.names)
        and not claimed(version.tags)
        and not _in_the_making(version.tags.get(MAKER_TAG, ""))
    ]
    note(f"{len(found)} registered versions have not been measured")
    return [tracking_models.reference(version) for version in found]


def _in_the_making(flow_run_id: str) -> bool:
    """Whether the run that made a version is still going on and measures it itself."""
    if not flow_run_id:
        return False
    with get_client(sync_client=True) as client:
        try:
            made_by = client.read_flow_run(flow_run_id)  # type: ignore[arg-type]
            name = client.read_flow(made_by.flow_id).name
        except ObjectNotFound:  # made on another server
            return False
    return name == MEASURES_ITSELF and made_by.state is not None and not made_by.state.is_final()


@verb("request evaluation", "request evaluation of {version.name} {version.version}")
def request_evaluation(version: VersionRef, promotion: Promotion) -> str:
    """Put a re-evaluation of the version, its champion and its challenger in the queue; returns the run's id."""
    label = f"{version.name}/{version.version}"
    parameters = {
        "versions": {"name": version.name, "numbers": [version.version]},
        "promotion": promotion.model_dump(mode="json"),
    }
    run = run_deployment(
        DEPLOYMENT,
        parameters=parameters,
        flow_run_name=f"measure {label}",
        timeout=0,
        as_subflow=False,
        idempotency_key=f"measure {label}",
    )
    asked = str(run.id)  # type: ignore[union-attr]
    claim(version, asked)
    note(f"{label} is measured by flow run {asked}")
    return asked
